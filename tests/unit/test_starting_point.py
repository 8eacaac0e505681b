# SPDX-License-Identifier: Apache-2.0
"""What a start in a folder with checkpoints does, whatever is missing, incomplete or unreadable there.

It resumes from a complete checkpoint, or it starts from step 0 and the earlier results are moved aside, or it refuses.
"""

from __future__ import annotations

import pytest
from made_checkpoints import make_checkpoint, set_pointer
from made_config import check, composed

from agent_system.errors import ConfigError
from recipe.hiper.run_dir.checkpoints import POINTER_FILE, read_pointer
from recipe.hiper.run_dir.resume import decide_start

WEIGHTS = "actor/model_world_size_1_rank_0.pt"


def run(folder, *overrides):
    return composed(f"run_dir={folder}", *overrides)


def refusal(config) -> str:
    with pytest.raises(ConfigError) as refused:
        check(config)
    return str(refused.value)


@pytest.fixture
def folder(tmp_path):
    """A run with complete checkpoints of steps 6 and 12."""
    for step in (6, 12):
        make_checkpoint(tmp_path / "run" / "checkpoints", step)
    set_pointer(tmp_path / "run" / "checkpoints", "12")
    return tmp_path / "run"


def started(folder, *overrides):
    """(step, notices) of a start that is not refused."""
    config = run(folder, *overrides)
    check(config)
    start = decide_start(config)
    step = 0 if start.checkpoint is None else int(start.checkpoint.name.rpartition("_")[2])
    if step:
        assert read_pointer(folder / "checkpoints") == step  # what verl reads
    return step, "\n".join(start.notices)


@pytest.mark.parametrize("text", ["12", "12\n", "12\r\n", " 12"])
def test_a_number_with_any_line_end_is_a_number(folder, text):
    set_pointer(folder / "checkpoints", text)
    assert started(folder) == (12, "")


@pytest.mark.parametrize("text", ["", "abc", "global_step_12", "\x00"])
def test_an_unreadable_pointer_is_replaced(folder, text):
    set_pointer(folder / "checkpoints", text)
    step, notices = started(folder)
    assert step == 12 and f"{POINTER_FILE} does not hold a step: resuming from" in notices


def test_checkpoints_without_a_pointer_are_resumed(folder):
    (folder / "checkpoints" / POINTER_FILE).unlink()
    step, notices = started(folder)
    assert step == 12 and f"{POINTER_FILE} is missing: resuming from" in notices


def test_a_pointer_without_its_folder(folder):
    set_pointer(folder / "checkpoints", "18")
    step, notices = started(folder)
    assert step == 12 and "the checkpoint of step 18, which" in notices and "does not exist" in notices


def test_a_pointer_without_any_checkpoint(tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    set_pointer(tmp_path / "run" / "checkpoints", "12")
    step, notices = started(tmp_path / "run")
    assert step == 0 and "does not exist: starting from step 0" in notices


@pytest.mark.parametrize("how", ["no manifest", "truncated", "missing file", "changed bytes"])
def test_the_latest_complete_checkpoint_is_taken_and_the_broken_one_named(folder, how):
    broken = folder / "checkpoints" / "global_step_12"
    if how == "no manifest":
        (broken / "manifest.json").unlink()
    elif how == "missing file":
        (broken / WEIGHTS).unlink()
    else:
        content = (broken / WEIGHTS).read_bytes()
        (broken / WEIGHTS).write_bytes(content[:-1] + (b"" if how == "truncated" else b"?"))
    step, notices = started(folder)
    assert step == 6 and str(broken) in notices
    if how == "changed bytes":
        (renamed,) = (folder / "checkpoints").glob("global_step_12.damaged-*")
        assert "has changed bytes" in notices and renamed.name in notices
        assert (renamed / WEIGHTS).exists()
    else:
        assert "resuming from" in notices and "global_step_6" in notices
    # The next start has nothing to report about the damaged bytes, and the same about an interrupted save.
    assert started(folder)[0] == 6


def test_a_save_that_was_killed_costs_the_steps_since_the_last_one(folder):
    make_checkpoint(folder / "checkpoints", 18, complete=False)
    step, notices = started(folder)
    assert step == 12 and "global_step_18 has no manifest.json, so its save was interrupted" in notices


def test_a_first_save_that_was_killed_restarts(tmp_path):
    make_checkpoint(tmp_path / "run" / "checkpoints", 6, complete=False)
    step, notices = started(tmp_path / "run")
    assert step == 0 and "global_step_6 has no manifest.json" in notices and "starting from step 0" in notices


def test_checkpoints_of_an_older_version_are_not_lost_silently(tmp_path):
    """Without manifests, but with the pointer that verl writes last."""
    checkpoint = make_checkpoint(tmp_path / "run" / "checkpoints", 6, complete=False)
    set_pointer(tmp_path / "run" / "checkpoints", "6")
    message = refusal(run(tmp_path / "run"))
    assert "no other checkpoint is complete" in message and "trainer.resume_mode=disable to restart" in message
    chosen = ("trainer.resume_mode=resume_path", f"trainer.resume_from_path={checkpoint}")
    assert chosen[1] in message
    assert started(tmp_path / "run", *chosen)[0] == 6


def test_only_later_checkpoints_than_the_pointer(folder):
    set_pointer(folder / "checkpoints", "3")
    message = refusal(run(folder))
    assert "names step 3, whose checkpoint does not exist" in message and "later steps (6, 12)" in message
    assert f"trainer.resume_from_path={folder}/checkpoints/global_step_12" in message


def test_a_named_checkpoint_that_is_damaged_is_refused(folder):
    checkpoint = folder / "checkpoints" / "global_step_12"
    (checkpoint / WEIGHTS).unlink()
    named = ("trainer.resume_mode=resume_path", f"trainer.resume_from_path={checkpoint}")
    message = refusal(run(folder, *named))
    assert f"lacks {WEIGHTS}" in message and "global_step_6" in message
    other = folder / "checkpoints" / "global_step_6"
    (other / WEIGHTS).write_bytes(b"?" * (other / WEIGHTS).stat().st_size)
    config = run(folder, named[0], f"trainer.resume_from_path={other}")
    check(config)
    with pytest.raises(ConfigError, match="has changed bytes"):
        decide_start(config)
    assert other.exists()


class TestEvaluation:
    def test_of_a_run_without_a_checkpoint_is_refused(self, tmp_path, folder):
        message = refusal(run(tmp_path / "other", "trainer.val_only=true"))
        assert "would be evaluated as it is before training" in message
        assert f"Try: run_dir={folder}, or trainer.resume_mode=disable to evaluate the untrained model" in message

    def test_of_the_untrained_model_on_request(self, tmp_path):
        assert started(tmp_path / "new", "trainer.val_only=true", "trainer.resume_mode=disable")[0] == 0

    def test_names_the_checkpoint_that_is_broken(self, tmp_path):
        make_checkpoint(tmp_path / "run" / "checkpoints", 6, complete=False)
        assert "global_step_6 has no manifest.json" in refusal(run(tmp_path / "run", "trainer.val_only=true"))

    def test_changes_nothing_on_the_disk(self, folder):
        set_pointer(folder / "checkpoints", "18")
        config = run(folder, "trainer.val_only=true")
        check(config)
        assert decide_start(config).checkpoint == folder / "checkpoints" / "global_step_12"
        assert config.trainer.resume_from_path == f"{folder}/checkpoints/global_step_12"
        assert read_pointer(folder / "checkpoints") == 18
        path = folder / "checkpoints" / "global_step_12" / WEIGHTS
        path.write_bytes(b"?" * path.stat().st_size)
        with pytest.raises(ConfigError, match="has changed bytes"):
            decide_start(run(folder, "trainer.val_only=true"))
        assert path.exists()
