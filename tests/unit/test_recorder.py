# SPDX-License-Identifier: Apache-2.0
"""What a run leaves in its folder."""

from __future__ import annotations

import json
import math
import subprocess

import numpy
import pytest
import torch
from made_turns import batch_turns, keep, made_settings, turn
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from agent_system.rollout.failures import FailureLog
from recipe.hiper.estimators.hae import HAEConfig
from recipe.hiper.run_dir.recorder import NoSpaceLeft, RunRecorder
from recipe.hiper.trainer.episode_records import episode_records
from recipe.hiper.trainer.token_credit import batch_credit


def recorder(folder, **changes) -> RunRecorder:
    return RunRecorder(folder, **{"total_steps": 5, "checkpoint_bytes": 10, "episodes_every": 1, **changes})


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def status(folder) -> dict:
    return json.loads((folder / "status.json").read_text())


def test_metrics_are_appended_step_by_step(tmp_path):
    made = recorder(tmp_path)
    made.log({"rollout/success_rate": 0.25}, step=1)
    assert lines(tmp_path / "metrics.jsonl") == [{"step": 1, "rollout/success_rate": 0.25}]
    made.log({"rollout/success_rate": 0.5, "timing_s/gen": 2}, step=2)
    assert [row["step"] for row in lines(tmp_path / "metrics.jsonl")] == [1, 2]


def test_numbers_that_json_does_not_know_become_null(tmp_path):
    values = {"nan": math.nan, "inf": -math.inf, "numpy": numpy.float32("nan"), "fine": numpy.float32(0.5), "n": 3}
    recorder(tmp_path).log(values, step=1)
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert json.loads(text) == {"step": 1, "nan": None, "inf": None, "numpy": None, "fine": 0.5, "n": 3}


def test_what_comes_later_for_the_same_step_is_merged(tmp_path):
    """A resumed run validates once more at the step it resumed from."""
    made = recorder(tmp_path)
    made.log({"a": 1.0, "b": 1.0}, step=1)
    made.log({"b": 2.0, "c": 2.0}, step=1)
    assert lines(tmp_path / "metrics.jsonl") == [{"step": 1, "a": 1.0, "b": 2.0, "c": 2.0}]


@pytest.mark.parametrize("step", [0, 2])
def test_resuming_keeps_what_the_checkpoint_knows_of(tmp_path, step):
    """Later steps are played again. A killed run may leave half a line."""
    before = recorder(tmp_path)
    for number in range(1, 5):
        before.log({"a": float(number)}, step=number)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 5, "a": 5')
    after = recorder(tmp_path)
    after.resumed_from(step)
    assert [row["step"] for row in lines(tmp_path / "metrics.jsonl")] == list(range(1, step + 1))
    (aside,) = (tmp_path / "earlier").iterdir()
    assert [row["step"] for row in lines(aside / "metrics.jsonl")] == list(range(step + 1, 5))
    assert status(tmp_path)["step"] == step
    assert (f"checkpoint of step {step}" if step else "step 0") in status(tmp_path)["stage"]
    after.log({"a": -1.0}, step=step + 1)
    assert lines(tmp_path / "metrics.jsonl")[-1] == {"step": step + 1, "a": -1.0}


@pytest.mark.parametrize(
    ("step", "evaluated", "lacks"),
    [
        (0, (), True),
        (0, (0,), False),
        (3, (0,), False),  # it was not due
        (4, (0,), True),  # killed between the checkpoint and its evaluation
        (4, (0, 4), False),
    ],
)
def test_a_resumed_run_evaluates_what_was_not_evaluated(tmp_path, step, evaluated, lacks):
    before = recorder(tmp_path)
    for number in range(step + 1):
        before.log({"a": 1.0} | ({"val/success_rate": 0.5} if number in evaluated else {}), step=number)
    after = recorder(tmp_path)
    after.resumed_from(step)
    assert after.lacks_evaluation(test_freq=2) is lacks
    assert after.lacks_evaluation(test_freq=-1) is (lacks and step == 0)


def test_a_branch_that_is_left_is_moved_aside(tmp_path):
    """Going back to step 2: files and events of steps 3 and 4 are not left beside the new ones."""
    before = recorder(tmp_path)
    for step in range(1, 5):
        before.log({"a": float(step)}, step=step)
        (tmp_path / "episodes" / f"train_{step:06d}.jsonl").write_text(f"{step}")
    with SummaryWriter(str(tmp_path / "tensorboard")) as writer:
        for step in range(1, 5):
            writer.add_scalar("a", step, step)
    after = recorder(tmp_path)
    after.resumed_from(2)
    (aside,) = (tmp_path / "earlier").iterdir()
    for folder, steps in ((tmp_path, [1, 2]), (aside, [3, 4])):
        assert [row["step"] for row in lines(folder / "metrics.jsonl")] == steps
        assert sorted(int(path.read_text()) for path in (folder / "episodes").iterdir()) == steps
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("a")] == [(1, 1.0), (2, 2.0)]
    recorder(tmp_path).resumed_from(2)
    assert list((tmp_path / "earlier").iterdir()) == [aside], "nothing was left this time"


def test_the_status_says_what_is_going_on(tmp_path):
    made = recorder(tmp_path)
    assert status(tmp_path)["stage"] == "starting"
    made.stage("step 1/5")
    made.log({"rollout/success_rate": 0.5, "name": "text", "nothing": math.nan}, step=1)
    seen = status(tmp_path)
    assert (seen["stage"], seen["step"], seen["total_steps"]) == ("step 1/5", 1, 5)
    # Values a step does not have keep their last one: validation is not run on every step.
    made.log({"val/success_rate": 0.75}, step=2)
    assert status(tmp_path)["metrics"]["rollout/success_rate"] == 0.5
    for outcome in ("finished", "stopped", "failed"):
        made.finish(outcome)
        assert status(tmp_path)["stage"] == outcome


def alarms(folder) -> list:
    return [row.get("hierarchy/alarm") for row in lines(folder / "metrics.jsonl")]


def test_a_hierarchy_that_is_lost_is_reported(tmp_path, capsys):
    made = recorder(tmp_path)
    for step, rate in enumerate((0.5, 1.0, 0.99, 1.0, 0.97), start=1):
        made.log({"rollout/switch_rate": rate}, step=step)
        assert (status(tmp_path)["alarm"] is not None) is (step >= 4)
        assert "\n" not in str(status(tmp_path)["alarm"])
    assert alarms(tmp_path) == [0.0, 0.0, 0.0, 1.0, 1.0]
    assert "since step 2" in status(tmp_path)["alarm"] and "algorithm/hae=living" in status(tmp_path)["alarm"]
    assert capsys.readouterr().out.count("Hierarchy alarm") == 1  # in the log once, not on every step
    made.log({"val/success_rate": 0.5}, step=6)  # an evaluation changes nothing
    assert status(tmp_path)["alarm"] and alarms(tmp_path)[-1] is None
    made.log({"rollout/switch_rate": 0.5}, step=7)
    assert status(tmp_path)["alarm"] is None and alarms(tmp_path)[-1] == 0.0
    assert "Hierarchy alarm is over" in capsys.readouterr().out


def test_replies_that_are_cut_are_reported(tmp_path, capsys):
    """Once, at the first step with more than a tenth of them, until a step has fewer."""
    made = recorder(tmp_path)
    for step, fraction in enumerate((0.0, 0.1, 0.11, 0.5), start=1):
        made.log({"rollout/cut_fraction": fraction}, step=step)
        assert (status(tmp_path)["reply_alarm"] is not None) is (step >= 3)
    text = status(tmp_path)["reply_alarm"]
    assert "since step 3" in text and "Try: data.max_response_length=" in text and "\n" not in text
    made.log({"timing_s/step": 1.0}, step=5)  # a row without replies changes nothing
    assert status(tmp_path)["reply_alarm"] == text
    assert capsys.readouterr().out.count("Reply alarm") == 1
    made.log({"rollout/cut_fraction": 0.05, "val/cut_fraction": 0.2}, step=6)
    assert status(tmp_path)["reply_alarm"] == text, "an evaluation counts as well"
    made.log({"rollout/cut_fraction": 0.05}, step=7)
    assert status(tmp_path)["reply_alarm"] is None and "Reply alarm is over" in capsys.readouterr().out


def test_there_is_no_alarm_without_a_switch_rate(tmp_path):
    made = recorder(tmp_path)
    for step in range(1, 5):
        made.log({"rollout/success_rate": 0.5, "rollout/switch_rate": math.nan} if step > 2 else {}, step=step)
    assert status(tmp_path)["alarm"] is None and alarms(tmp_path) == [None] * 4


def test_the_alarm_survives_a_resumption(tmp_path, capsys):
    before = recorder(tmp_path)
    for step in range(1, 5):
        before.log({"rollout/switch_rate": 0.0}, step=step)
    capsys.readouterr()
    after = recorder(tmp_path)
    assert status(tmp_path)["alarm"] is None
    after.resumed_from(3)
    assert "since step 1" in status(tmp_path)["alarm"]
    after.log({"val/success_rate": 0.5}, step=3)  # merged with the row of step 3
    assert alarms(tmp_path) == [0.0, 0.0, 1.0] and status(tmp_path)["alarm"]
    assert capsys.readouterr().out.count("Hierarchy alarm") == 1
    after = recorder(tmp_path)
    after.resumed_from(2)
    assert status(tmp_path)["alarm"] is None


def test_the_curve_is_a_picture(tmp_path):
    made = recorder(tmp_path)
    made.log({"val/success_rate": 0.3}, step=0)
    for step in range(1, 6):
        values = {
            "rollout/success_rate": 0.1 * step,
            "rollout/episode_length": 30.0 - step,
            "rollout/switch_rate": math.nan if step == 3 else 0.5,
            "critic/vf_loss_low": 1.0 / step,
        }
        made.log(values, step=step)
        with Image.open(tmp_path / "curve.png") as image:
            image.load()
            assert image.format == "PNG" and min(image.size) > 400
            colours = len(set(image.convert("RGB").resize((220, 140)).get_flattened_data()))
            assert colours > 20, "lines and letters, not one colour"


TURNS = [
    ("x-y_0", turn(0, kind="look_at_obj_in_light", reply="<switch>SWITCH</switch>\n…")),
    ("x-y_0", keep(1, reward=10.0, terminated=True, stop="won", won=True, score=1.0)),
    ("pad_0", turn(0)),
]


def played(step: int) -> list[dict]:
    return list(episode_records(step, batch_turns(TURNS, padding=(2,)), None))


def test_training_episodes_hold_the_credit_of_every_turn(tmp_path):
    turns = batch_turns(TURNS, padding=(2,))
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [0.0, 0.0, 0.0]])
    credit = batch_credit(turns, values, torch.zeros(3, 6), made_settings(HAEConfig(1.0, 1.0, 1.0)))
    recorder(tmp_path).write_episodes("train", 7, episode_records(7, turns, credit))
    (episode,) = lines(tmp_path / "episodes" / "train_000007.jsonl")
    about = {name: episode[name] for name in ("step", "session", "kind", "stop", "won", "score", "turns", "return")}
    assert about == {
        "step": 7,
        "session": "x-y_0",
        "kind": "look_at_obj_in_light",
        "stop": "won",
        "won": True,
        "score": 1.0,
        "turns": 2,
        "return": 10.0,
    }
    first, second = episode["trajectory"]
    assert first["reply"] == "<switch>SWITCH</switch>\n…" and first["spans"] == [[0, 2], [2, 4], [4, 6]]
    assert first["values"] == {"high": 1.0, "low": 2.0, "term": 3.0}
    # low: 10 - 5 = 5 on turn 1, 5 - 2 + 5 on turn 0; high 10 - 1; switch 10 minus the value before it.
    assert first["advantages"] == {"switch": 7.0, "subgoal": 9.0, "action": 8.0}
    assert second["advantages"] == {"switch": 4.0, "subgoal": 0.0, "action": 5.0}
    assert second["shaped_reward"] == 10.0 and second["switch_probability"] == 0.0


def test_held_out_episodes_have_no_credit(tmp_path):
    recorder(tmp_path, episodes_every=0).write_episodes("val", 3, played(3))
    (episode,) = lines(tmp_path / "episodes" / "val_000003.jsonl")
    assert "advantages" not in episode["trajectory"][0]


@pytest.mark.parametrize(("every", "written"), [(0, []), (1, [1, 2, 3, 4]), (2, [2, 4])])
def test_training_episodes_are_written_as_often_as_asked(tmp_path, every, written):
    made = recorder(tmp_path, episodes_every=every)
    for step in range(1, 5):
        made.write_episodes("train", step, played(step))
    found = sorted(path.name for path in (tmp_path / "episodes").iterdir())
    assert found == [f"train_{step:06d}.jsonl" for step in written]


def test_a_checkpoint_that_does_not_fit_is_refused_with_what_to_try(tmp_path):
    made = recorder(tmp_path, checkpoint_bytes=10**18)
    folder = tmp_path / "checkpoints" / "not" / "yet" / "there"
    with pytest.raises(NoSpaceLeft) as refused:
        made.require_disk_space(str(folder))
    message = str(refused.value)
    for part in ("1,000,000,000,000 MB", str(tmp_path), "run_dir=", "trainer.save_freq="):
        assert part in message
    assert not folder.exists()
    recorder(tmp_path).require_disk_space(str(folder))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {made.stderr.strip()}")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_a_disk_that_fills_up_during_a_run_is_noticed_before_the_next_checkpoint(small_disk):
    made = recorder(small_disk / "run", checkpoint_bytes=500_000)
    made.require_disk_space(str(small_disk / "checkpoints"))
    (small_disk / "something else").write_bytes(bytes(700_000))
    with pytest.raises(NoSpaceLeft, match="Try: run_dir="):
        made.require_disk_space(str(small_disk / "checkpoints"))
    made.log({"rollout/success_rate": 0.5}, step=1)
    assert lines(small_disk / "run" / "metrics.jsonl") == [{"step": 1, "rollout/success_rate": 0.5}]


def test_the_failures_of_an_earlier_run_are_forgotten(tmp_path):
    FailureLog(tmp_path / "failures.jsonl").record("old-task", ValueError("old"))
    made = recorder(tmp_path)
    assert "old" not in made.first_failure()
    FailureLog(tmp_path / "failures.jsonl").record("new-task", ValueError("new"))
    assert "new-task" in made.first_failure()
