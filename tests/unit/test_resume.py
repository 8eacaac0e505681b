# SPDX-License-Identifier: Apache-2.0
"""In a folder that holds a run: no run loads the weights of another, and no evaluation overwrites its files."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from made_checkpoints import make_checkpoint
from made_config import check, composed, settings_of
from omegaconf import OmegaConf

from agent_system.errors import ConfigError
from recipe.hiper.cli.train import RunStopped, _run, train
from recipe.hiper.run_dir.checkpoints import POINTER_FILE
from recipe.hiper.run_dir.earlier_runs import (
    changed_settings,
    earlier_run,
    exclusive_run_folder,
    move_earlier_results,
    record_start,
    refuse_other_run,
    use_evaluation_folder,
)
from recipe.hiper.run_dir.resume import decide_start, is_finished


def run(folder, *overrides, **presets):
    return composed(f"run_dir={folder}", *overrides, **presets)


def left(folder, *overrides, **presets):
    """The folder of a run that saved a checkpoint."""
    config = run(folder, *overrides, **presets)
    OmegaConf.resolve(config)
    record_start(config)
    checkpoints = Path(config.trainer.default_local_dir)
    make_checkpoint(checkpoints, 24)
    (checkpoints / POINTER_FILE).write_text("24")
    for name in ("config.yaml", "metrics.jsonl"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("of the earlier run")
    return config


def saved(folder, *steps):
    """Create checkpoints of these steps in a run's folder; return the folder of the checkpoints."""
    for step in steps:
        make_checkpoint(folder / "checkpoints", step)
    return folder / "checkpoints"


def named(checkpoint):
    """The overrides that name a checkpoint."""
    return "trainer.resume_mode=resume_path", f'trainer.resume_from_path="{checkpoint}"'


def refusal(config) -> str:
    with pytest.raises(ConfigError) as refused:
        check(config)
    return str(refused.value)


def interrupted(config, monkeypatch) -> str:
    """The message after Ctrl-C in the run."""

    def run(*_):
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "recipe.hiper.trainer.task_runner", SimpleNamespace(run=run))
    monkeypatch.setattr("recipe.hiper.cli.train.checkpoint_bytes", lambda *_: 0)
    for name in ("quiet_terminal", "ProgressBar"):
        monkeypatch.setattr(f"recipe.hiper.cli.train.{name}", lambda *_: contextlib.nullcontext())
    Path(config.run_dir).mkdir(parents=True, exist_ok=True)
    with pytest.raises(RunStopped) as stopped:
        _run(config, settings_of(config))
    return str(stopped.value)


def test_the_same_command_resumes(tmp_path):
    earlier = left(tmp_path / "run", "actor_rollout_ref.model.path=/old/cache/warm-start-1")
    # More steps, another step size, a cache that has moved
    more = ("trainer.total_training_steps=99", "actor_rollout_ref.actor.optim.lr=1e-5", "env.pool_name=another")
    config = run(tmp_path / "run", *more, "actor_rollout_ref.model.path=/cache/warm-start-1")
    recorded = earlier_run(config)
    assert recorded.run_dir == earlier.run_dir
    refuse_other_run(config, recorded)
    changed = list(changed_settings(config, recorded))
    assert "trainer.total_training_steps: 24 -> 99" in changed
    assert "actor_rollout_ref.actor.optim.lr: 0.0002 -> 1e-05" in changed
    assert "actor_rollout_ref.model.path: /old/cache/warm-start-1 -> /cache/warm-start-1" in changed
    assert not [line for line in changed if line.startswith(("env.pool_name", "run_dir"))]
    # Before the model is made, there is nothing to compare.
    refuse_other_run(run(tmp_path / "run"), recorded)


def test_nothing_to_resume_from(tmp_path):
    assert earlier_run(run(tmp_path / "new")) is None
    left(tmp_path / "run")
    assert earlier_run(run(tmp_path / "run", "trainer.resume_mode=disable")) is None
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "global_step_24")  # the pointer stays
    assert earlier_run(run(tmp_path / "run")) is None


@pytest.mark.parametrize(
    ("overrides", "preset", "difference"),
    [
        (["algorithm.adv_estimator=turn_gae"], "custom", "algorithm.adv_estimator=turn_gae, but that run has hae"),
        (
            ["env.env_name=alfworld/AlfredTWEnv"],
            "custom",
            "env.env_name=alfworld/AlfredTWEnv, but that run has alfworld/",
        ),
        (["env.prompt_layout=rules_last"], "custom", "env.prompt_layout=rules_last, but that run has rules_first"),
        (["env.short_keep=true"], "custom", "env.short_keep=True, but that run has False"),
        (
            ["actor_rollout_ref.model.path=b/other"],
            "custom",
            "actor_rollout_ref.model.path=other, but that run has model",
        ),
        ([], "paper", "the critic has 2 value heads, but that run has 3"),
        ([], "paper", "algorithm.hae.switch_advantage=termination, but that run has segment_return"),
        ([], "living", "algorithm.hae.penalty_credit=switch, but that run has turn"),
        (["env.seed=1"], "custom", "env.seed=1, but that run has 0"),
        (["env.system_prompt=Be brief."], "custom", "env.system_prompt=Be brief., but that run has None"),
        (
            ["+data.apply_chat_template_kwargs.enable_thinking=false"],
            "custom",
            "data.apply_chat_template_kwargs={'enable_thinking': False}, but that run has {}",
        ),
    ],
)
def test_another_run_is_refused(tmp_path, overrides, preset, difference):
    left(tmp_path / "run", "actor_rollout_ref.model.path=a/model")
    config = run(tmp_path / "run", *overrides, preset=preset)
    with pytest.raises(ConfigError) as refused:
        refuse_other_run(config, earlier_run(config))
    message = str(refused.value)
    assert difference in message and str(tmp_path / "run") in message
    assert f"Try: run_dir={tmp_path / 'run-2'}" in message and "trainer.resume_mode=disable" in message


def test_another_small_model_is_named_by_the_keys_that_the_user_set(tmp_path):
    data = "env.alfworld.data_dir=/cache/games"  # filled in by the earlier run
    left(tmp_path / "run", "actor_rollout_ref.model.path=warm-start-1", data, "env.alfworld.games=auto")
    config = run(tmp_path / "run", "actor_rollout_ref.model.path=warm-start-2", "warm_start.steps=30")
    with pytest.raises(ConfigError, match="  - warm_start.steps=30, but that run has null\n") as refused:
        refuse_other_run(config, earlier_run(config))
    assert "env.alfworld.data_dir" not in str(refused.value)


def test_another_small_model_is_refused_before_it_is_made(tmp_path, monkeypatch):
    """It takes minutes to make."""
    left(tmp_path / "run", "actor_rollout_ref.model.path=warm-start-1")

    def make_ready(config, settings, accept):
        config.actor_rollout_ref.model.path = "warm-start-2"
        accept(config)
        pytest.fail("made although it does not belong to the run")

    monkeypatch.setattr("recipe.hiper.cli.train.make_ready", make_ready)
    with pytest.raises(ConfigError, match="warm-start-2, but that run has warm-start-1"):
        train(run(tmp_path / "run", "trainer.total_training_steps=48"))


def test_a_finished_run_starts_nothing(tmp_path, monkeypatch, capsys):
    left(tmp_path / "run")
    monkeypatch.setattr("recipe.hiper.cli.train.make_ready", lambda *_, **__: pytest.fail("starts something"))
    before = all_files(tmp_path / "run")
    train(run(tmp_path / "run", "trainer.total_training_steps=24"))
    printed = capsys.readouterr().err
    assert "has finished its 24 steps. Try: trainer.total_training_steps=48" in printed
    assert f"run_dir={tmp_path / 'run-2'} for a new run" in printed
    assert all_files(tmp_path / "run").items() >= before.items()


def test_a_new_run_from_the_last_checkpoint_of_another_is_not_finished(tmp_path):
    left(tmp_path / "run")
    last = tmp_path / "run" / "checkpoints" / "global_step_24"
    assert is_finished(run(tmp_path / "run", "trainer.total_training_steps=24"))
    assert not is_finished(run(tmp_path / "run", "trainer.total_training_steps=24", "trainer.val_only=true"))
    assert not is_finished(run(tmp_path / "new", *named(last), "trainer.total_training_steps=24"))


@pytest.mark.parametrize("name", ["file", "file/inside"])
def test_a_run_folder_that_cannot_be_one_is_refused(tmp_path, name):
    (tmp_path / "file").write_text("of the user")
    with pytest.raises(ConfigError, match="cannot be used as a folder .*Try: run_dir=<"):
        train(run(tmp_path / name))


def test_a_checkpoint_by_its_path_is_compared_with_its_own_run(tmp_path):
    left(tmp_path / "run")
    named = ("trainer.resume_mode=resume_path", f"trainer.resume_from_path={tmp_path}/run/checkpoints/global_step_6")
    config = run(tmp_path / "new", *named, preset="living")
    with pytest.raises(ConfigError, match="penalty_credit=switch, but that run has turn"):
        refuse_other_run(config, earlier_run(config))


def test_an_evaluation_has_a_folder_of_its_own(tmp_path):
    left(tmp_path / "run", preset="living")
    config = run(tmp_path / "run", "trainer.val_only=true")  # the script without the preset
    use_evaluation_folder(config)
    assert str(config.run_dir).startswith(f"{tmp_path}/run/evaluations/20")
    assert config.trainer.default_local_dir == f"{tmp_path}/run/checkpoints"
    assert config.data.val_files == f"{config.run_dir}/tasks/val.json"
    refuse_other_run(config, earlier_run(config))  # how it was trained does not matter here
    flat = run(tmp_path / "run", "trainer.val_only=true", "env.env_name=alfworld/AlfredTWEnv")
    use_evaluation_folder(flat)
    with pytest.raises(ConfigError, match="Try: its values to evaluate it"):
        refuse_other_run(flat, earlier_run(flat))


def test_an_evaluation_evaluates_also_where_trainings_begin_without_one(tmp_path):
    """verl checks `val_only` only after a validation before the training; it would train."""
    config = run(tmp_path / "run", "trainer.val_only=true", "trainer.val_before_train=false")
    use_evaluation_folder(config)
    assert config.trainer.val_before_train is True
    training = run(tmp_path / "run", "trainer.val_before_train=false")
    use_evaluation_folder(training)
    assert training.trainer.val_before_train is False


def test_a_training_keeps_its_folder(tmp_path):
    config = run(tmp_path / "run")
    use_evaluation_folder(config)
    assert config.run_dir == str(tmp_path / "run")


def start(config, monkeypatch) -> None:
    """`main.train` without what needs a model and Ray."""
    monkeypatch.setattr("recipe.hiper.cli.train.make_ready", lambda *_, **__: None)
    monkeypatch.setitem(sys.modules, "recipe.hiper.trainer.task_runner", SimpleNamespace(run=lambda *_: None))
    monkeypatch.setattr("recipe.hiper.cli.train.checkpoint_bytes", lambda *_: 0)
    for name in ("quiet_terminal", "ProgressBar"):
        monkeypatch.setattr(f"recipe.hiper.cli.train.{name}", lambda *_: contextlib.nullcontext())
    train(config)


def all_files(folder) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("lost", ["the checkpoints", "the folder of checkpoints", "never saved"])
def test_results_without_a_checkpoint_are_moved_aside_whole(tmp_path, monkeypatch, capsys, lost):
    """The run starts from step 0. It must not empty `metrics.jsonl` or write over curve and episodes."""
    folder, checkpoints = tmp_path / "run", tmp_path / "run" / "checkpoints"
    left(folder)
    (folder / "episodes").mkdir()
    (folder / "logs").mkdir()
    for name in ("curve.png", "episodes/val_000024.jsonl", "logs/train-1.log"):
        (folder / name).write_text("of the earlier run")
    if lost == "the checkpoints":
        shutil.rmtree(checkpoints / "global_step_24")  # the pointer file stays
    else:
        shutil.rmtree(checkpoints)
    before = all_files(folder)
    start(run(folder, "trainer.save_freq=-1") if lost == "never saved" else run(folder), monkeypatch)
    (aside,) = (folder / "earlier").iterdir()
    after = all_files(aside)
    assert {name: text for name, text in before.items() if not name.startswith((".", "checkpoints"))}.items() <= (
        after.items()
    )
    assert f"they are now in {aside}" in capsys.readouterr().err
    assert not (folder / "metrics.jsonl").exists()
    # A start that left no results has nothing to move.
    start(run(folder), monkeypatch)
    assert list((folder / "earlier").iterdir()) == [aside]


def test_a_run_resumes_from_the_latest_checkpoint_that_is_really_there(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    left(folder)
    checkpoints = saved(folder, 6, 18, 30)  # 30: of a branch that was left
    shutil.rmtree(checkpoints / "global_step_24")
    evaluation = run(folder, "trainer.val_only=true")
    use_evaluation_folder(evaluation)
    assert any("resuming from" in notice for notice in decide_start(evaluation).notices)
    assert evaluation.trainer.resume_from_path == f"{checkpoints}/global_step_18"
    assert (checkpoints / POINTER_FILE).read_text() == "24"
    start(run(folder), monkeypatch)
    printed = capsys.readouterr().err
    assert f"names, does not exist: resuming from {checkpoints}/global_step_18" in printed
    assert (checkpoints / POINTER_FILE).read_text() == "18"
    assert (folder / "metrics.jsonl").read_text() == "of the earlier run"
    (moved,) = (folder / "earlier").iterdir()
    assert [path.name for path in moved.rglob("global_step_*")] == ["global_step_30"]
    assert f"later checkpoints (steps 30) are now in {moved}/checkpoints" in printed
    assert decide_start(run(folder)).notices == ()


def test_presets_have_folders_of_their_own():
    folders = {composed(preset=preset).run_dir for preset in ("custom", "released", "paper", "living")}
    assert len(folders) == 4 and "outputs/hiper/alfworld-hae" in folders


def test_checkpoints_that_lie_elsewhere_know_whose_they_are(tmp_path):
    there = f"trainer.default_local_dir={tmp_path / 'disk' / 'checkpoints'}"
    left(tmp_path / "run", there)
    config = run(tmp_path / "another", there, "algorithm.adv_estimator=turn_gae")
    with pytest.raises(ConfigError, match="algorithm.adv_estimator=turn_gae, but that run has hae"):
        refuse_other_run(config, earlier_run(config))


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_start_from_step_0_moves_the_earlier_run(tmp_path, elsewhere):
    """A later start without the override must not resume from its checkpoints."""
    there = [f"trainer.default_local_dir={tmp_path / 'disk' / 'checkpoints'}"] if elsewhere else []
    folder = tmp_path / "run"
    left(folder, *there)
    config = run(folder, *there, "trainer.resume_mode=disable", "algorithm.adv_estimator=turn_gae")
    moved_to = move_earlier_results(config)
    assert (moved_to / "metrics.jsonl").read_text() == "of the earlier run" and not (folder / "metrics.jsonl").exists()
    kept = list((tmp_path / "disk").glob("checkpoints-*")) if elsewhere else [moved_to / "checkpoints"]
    assert len(kept) == 1 and (kept[0] / POINTER_FILE).read_text() == "24"
    record_start(config)
    assert earlier_run(run(folder, *there)) is None  # killed before it saved anything
    assert move_earlier_results(run(tmp_path / "new", "trainer.resume_mode=disable")) is None
    assert move_earlier_results(run(folder)) is None


def test_after_going_back_to_a_checkpoint_later_ones_stay_ignored(tmp_path):
    left(tmp_path / "run")
    checkpoints = tmp_path / "run" / "checkpoints"
    named = ("trainer.resume_mode=resume_path", f"trainer.resume_from_path={checkpoints}/global_step_6")
    record_start(run(tmp_path / "run", *named))
    assert (checkpoints / POINTER_FILE).read_text() == "6"
    record_start(run(tmp_path / "other", *named))  # another run may start from it: the pointer of the first one stays
    record_start(run(tmp_path / "run", *named[:1], named[1].replace("_6", "_12"), "trainer.val_only=true"))
    assert (checkpoints / POINTER_FILE).read_text() == "6"


@pytest.mark.parametrize("typed", ["global_step_42", "global_step_3", "latest", "global_step_6x", "."])
def test_a_path_that_is_no_checkpoint_is_refused(tmp_path, typed):
    """verl would not load anything from it and start from step 0."""
    checkpoints = saved(tmp_path / "run", 6, 12)
    (checkpoints / "global_step_3").mkdir()  # verl leaves data.pt there when it takes the weights away
    (checkpoints / "global_step_6x" / "actor").mkdir(parents=True)
    (checkpoints / "latest").symlink_to(checkpoints / "global_step_12")
    message = refusal(run(tmp_path / "run", *named(checkpoints / typed)))
    last = f"trainer.resume_from_path={checkpoints}/global_step_12"
    assert (
        "(1 problem)" in message and "Checkpoints there: global_step_6, global_step_12." in message and last in message
    )
    check(run(tmp_path / "run", "trainer.resume_mode=resume_path", last))


def test_a_path_in_a_folder_without_checkpoints_is_refused(tmp_path):
    message = refusal(run(tmp_path / "run", *named(tmp_path / "nowhere" / "global_step_6")))
    assert f"There is no checkpoint in {tmp_path / 'nowhere'}." in message and "trainer.resume_mode=auto" in message
    assert "is not a checkpoint" in refusal(run(tmp_path / "run", "trainer.resume_mode=resume_path", named(6)[1]))


@pytest.mark.parametrize("mode", ["disabled", "null"])
def test_an_unknown_resume_mode_is_refused(tmp_path, mode):
    message = refusal(run(tmp_path / "run", f"trainer.resume_mode={mode}"))
    assert "is not one of auto, disable, resume_path" in message
    assert "(what a run starts from). Try: trainer.resume_mode=auto" in message


@pytest.mark.parametrize("typed", ["{0}/", "run/checkpoints/global_step_6", "~/run/checkpoints/global_step_6", "{0}/."])
@pytest.mark.parametrize("val_only", [False, True])
def test_verl_gets_a_path_that_ends_with_the_step(tmp_path, monkeypatch, typed, val_only):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    left(tmp_path / "run")
    checkpoint = saved(tmp_path / "run", 6) / "global_step_6"
    config = run(tmp_path / "run", *named(typed.format(checkpoint)), f"trainer.val_only={val_only}")
    assert earlier_run(config).run_dir == str(tmp_path / "run")
    check(config)
    record_start(config)
    assert config.trainer.resume_from_path == str(checkpoint)
    assert (checkpoint.parent / POINTER_FILE).read_text() == ("24" if val_only else "6")


def test_a_run_does_not_start_from_anothers_checkpoint_in_the_folder_of_a_third(tmp_path):
    begins = named(saved(tmp_path / "run", 6) / "global_step_6")
    left(tmp_path / "third")
    message = refusal(run(tmp_path / "third", *begins))
    assert f"belongs to another run than the one in {tmp_path}/third" in message
    assert f"Try: run_dir={tmp_path}/third-2" in message and "trainer.resume_mode=auto" in message
    for fine in (run(tmp_path / "third-2", *begins), run(tmp_path / "third", *begins, "trainer.val_only=true")):
        check(fine)
    # A run without a checkpoint cannot be resumed.
    config = run(tmp_path / "young")
    (tmp_path / "young").mkdir()
    OmegaConf.save(config, tmp_path / "young" / "config.yaml")
    (tmp_path / "young" / "metrics.jsonl").write_text("{}")
    message = refusal(run(tmp_path / "young", *begins))
    assert f"run_dir={tmp_path}/young-2" in message and "resume_mode=auto" not in message


def test_a_folder_by_another_name_is_the_same(tmp_path):
    left(tmp_path / "run")
    saved(tmp_path / "run", 6)
    (tmp_path / "link").symlink_to(tmp_path / "run")
    config = run(tmp_path / "run", *named(tmp_path / "link" / "checkpoints" / "global_step_6"))
    check(config)
    record_start(config)
    assert (tmp_path / "run" / "checkpoints" / POINTER_FILE).read_text() == "6"


@pytest.mark.parametrize("save_freq", [6, -1])
def test_a_run_from_anothers_checkpoint_may_start_again_until_it_has_its_own(tmp_path, monkeypatch, save_freq):
    begins = named(saved(tmp_path / "run", 6) / "global_step_6")
    command = (tmp_path / "new", *begins, f"trainer.save_freq={save_freq}")
    assert "the same command restarts from step 0" in interrupted(run(*command), monkeypatch)
    (tmp_path / "new" / "metrics.jsonl").write_text("{}")
    check(run(*command))
    checkpoints = saved(tmp_path / "new", 12)
    (checkpoints / POINTER_FILE).write_text("12")
    assert "trainer.resume_mode=auto" in refusal(run(*command))
    message = interrupted(run(*command), monkeypatch)
    assert "The command without trainer.resume_mode resumes from the latest checkpoint (step 12)." in message


def test_the_message_of_an_interrupted_run_names_the_command_that_resumes_it(tmp_path, monkeypatch):
    assert "the same command restarts from step 0" in interrupted(run(tmp_path / "new"), monkeypatch)
    left(tmp_path / "run")
    assert "The same command resumes from the latest checkpoint (step 24)." in interrupted(
        run(tmp_path / "run"), monkeypatch
    )
    evaluation = run(tmp_path / "run", "trainer.val_only=true")
    use_evaluation_folder(evaluation)
    assert "the same command restarts from step 0" in interrupted(evaluation, monkeypatch)


def test_two_runs_do_not_write_to_one_folder(tmp_path):
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from recipe.hiper.run_dir.earlier_runs import exclusive_run_folder\n"
        "with exclusive_run_folder(Path(sys.argv[1])):\n"
        "    print('running', flush=True)\n    sys.stdin.readline()\n"
    )
    folder = tmp_path / "run"
    command = [sys.executable, "-c", program, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "running\n"
            with (
                pytest.raises(ConfigError) as refused,
                exclusive_run_folder(folder),
            ):
                pytest.fail("two runs write to one folder")
            first = rf"another run is writing to it \(process {other.pid} on .+, since 20.+\). Try: run_dir={folder}-2"
            assert re.search(first, str(refused.value))
        finally:
            other.kill()
    with exclusive_run_folder(folder):  # the kernel released the lock of the killed run
        assert folder.is_dir()
