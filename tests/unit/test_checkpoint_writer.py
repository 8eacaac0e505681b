# SPDX-License-Identifier: Apache-2.0
"""Checkpoints are written after a step's metrics, a full disk costs no complete one, and old ones go last."""

from __future__ import annotations

import errno
import json
import random

import numpy as np
import pytest
import torch
from made_checkpoints import make_checkpoint

from recipe.hiper.configuration.settings import CheckpointSettings
from recipe.hiper.run_dir.checkpoints import complete_steps, read_pointer, saved_steps, write_pointer
from recipe.hiper.run_dir.manifest import read_manifest
from recipe.hiper.run_dir.recorder import NoSpaceLeft, RunRecorder
from recipe.hiper.trainer.checkpoint_writer import CheckpointWriter, random_states, set_random_states


class Disk:
    """Writes checkpoints, or fails as a full disk does."""

    def __init__(self, folder):
        self.folder = folder
        self.failures: dict[int, BaseException] = {}

    def write(self, step: int) -> None:
        checkpoint = make_checkpoint(self.folder, step, complete=False)
        if step in self.failures:
            (checkpoint / "data.pt").unlink()
            raise self.failures[step]
        write_pointer(checkpoint)


@pytest.fixture
def disk(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    return Disk(tmp_path / "checkpoints")


def writer(disk, *, first_step=0, processes=1, **settings):
    usual = {"keep": 2, "save_best": False, "stop_when_full": True}
    recorder = RunRecorder(disk.folder.parent, total_steps=9, checkpoint_bytes=100, episodes_every=0)
    return CheckpointWriter(
        disk.folder, CheckpointSettings(**usual | settings), recorder, disk.write, processes, first_step
    )


def alarm(disk):
    return json.loads((disk.folder.parent / "status.json").read_text())["disk_alarm"]


def full(code=errno.ENOSPC) -> OSError:
    return OSError(code, "No space left on device")


def test_what_is_due_is_saved_and_old_ones_go(disk):
    made = writer(disk)
    for step in range(1, 7):
        made.after_step(step, None, is_due=step % 2 == 0)
    assert complete_steps(disk.folder) == [4, 6] and read_pointer(disk.folder) == 6


def test_the_best_is_saved_even_where_it_is_not_due(disk):
    made = writer(disk, save_best=True, keep=1)
    for step, success in ((1, 0.2), (2, 0.6), (3, None), (4, 0.6), (5, 0.5), (6, None)):
        made.after_step(step, success, is_due=step % 3 == 0)
    assert complete_steps(disk.folder) == [2, 6]
    assert read_manifest(disk.folder / "global_step_2").success == 0.6
    resumed = writer(disk, save_best=True, keep=1, first_step=6)  # it knows the best of before
    resumed.after_step(7, 0.5, is_due=False)
    assert complete_steps(disk.folder) == [2, 6]
    resumed.after_step(8, 0.7, is_due=False)
    assert complete_steps(disk.folder) == [8]


def test_a_stop_saves_the_latest_finished_step_once(disk):
    made = writer(disk)
    made.save()  # nothing was trained
    assert saved_steps(disk.folder) == []
    made.after_step(1, 0.5, is_due=False)
    made.save()
    made.save()
    assert complete_steps(disk.folder) == [1] and read_manifest(disk.folder / "global_step_1").success == 0.5


def test_what_an_interrupted_save_left_is_replaced(disk):
    (make_checkpoint(disk.folder, 1, complete=False) / "of an earlier save").touch()
    writer(disk).after_step(1, None, is_due=True)
    assert (
        complete_steps(disk.folder) == [1]
        and "of an earlier save" not in read_manifest(disk.folder / "global_step_1").files
    )


class OfRay(Exception):
    """As `ray.exceptions.RayTaskError`: the error of another process is in `cause`."""

    def __init__(self, cause):
        super().__init__("task failed")
        self.cause = cause


@pytest.mark.parametrize("error", [full(), full(errno.EDQUOT), OfRay(full())])
def test_a_disk_that_fills_during_a_save_leaves_the_last_checkpoint(disk, error):
    made = writer(disk, keep=1)
    made.after_step(1, None, is_due=True)
    disk.failures[2] = error
    with pytest.raises(NoSpaceLeft) as stopped:
        made.after_step(2, None, is_due=True)
    text = str(stopped.value)
    assert text.startswith("step 2 is not saved; the latest complete checkpoint is that of step 1. The disk of")
    assert "Try: free space and repeat the command" in text
    assert saved_steps(disk.folder) == [1]  # the broken one takes no space


def test_during_the_first_save(disk):
    disk.failures[1] = full()
    with pytest.raises(NoSpaceLeft, match="step 1 is not saved; there is no checkpoint"):
        writer(disk).after_step(1, None, is_due=True)


def test_torch_does_not_say_that_the_disk_is_full(disk, monkeypatch):
    made = writer(disk, stop_when_full=False)
    error = RuntimeError("[enforce fail at inline_container.cc:668] . unexpected pos 64 vs 0")
    disk.failures = {1: error, 2: error}
    with pytest.raises(RuntimeError, match="unexpected pos"):  # there is space: it is another error
        made.after_step(1, None, is_due=True)
    usage = type("Usage", (), {"free": 0})
    monkeypatch.setattr("recipe.hiper.trainer.checkpoint_writer.shutil.disk_usage", lambda path: usage)
    monkeypatch.setattr(RunRecorder, "require_disk_space", lambda *_: None)
    made.after_step(2, None, is_due=True)
    assert "step 2 is not saved" in alarm(disk)


def test_on_request_a_run_continues_without_saving_and_says_so(disk, capsys):
    made = writer(disk, stop_when_full=False)
    disk.failures[1] = full()
    made.after_step(1, None, is_due=True)
    assert saved_steps(disk.folder) == [] and "step 1 is not saved" in alarm(disk)
    made.after_step(2, None, is_due=True)
    assert complete_steps(disk.folder) == [2] and alarm(disk) is None
    assert "checkpoints are saved again" in capsys.readouterr().out


def test_no_checkpoint_is_begun_that_does_not_fit(disk, monkeypatch):
    usage = type("Usage", (), {"free": 99})
    monkeypatch.setattr("recipe.hiper.run_dir.recorder.shutil.disk_usage", lambda path: usage)
    monkeypatch.setattr(disk, "write", lambda step: pytest.fail("it was begun"))
    with pytest.raises(NoSpaceLeft, match="A checkpoint needs about"):
        writer(disk).after_step(1, None, is_due=True)
    made = writer(disk, stop_when_full=False, processes=2)  # nobody waits: nothing was begun
    made.after_step(1, None, is_due=True)
    assert "A checkpoint needs about" in alarm(disk)


def test_with_several_processes_a_broken_off_save_ends_the_run(disk):
    """The others wait in a barrier for the one that failed."""
    disk.failures[1] = full()
    with pytest.raises(NoSpaceLeft):
        writer(disk, stop_when_full=False, processes=2).after_step(1, None, is_due=True)


def test_another_error_is_not_taken_for_a_full_disk(disk):
    disk.failures[1] = OSError(errno.EIO, "Input/output error")
    with pytest.raises(OSError, match="Input/output error"):
        writer(disk, stop_when_full=False).after_step(1, None, is_due=True)


def test_random_states_return_from_a_file(tmp_path):
    def draw():
        return random.random(), random.gauss(0, 1), np.random.rand(), torch.rand(1).item()

    random.gauss(0, 1)  # one more is kept for the next call
    torch.save(random_states(), tmp_path / "states.pt")
    drawn = draw()
    assert draw() != drawn
    set_random_states(torch.load(tmp_path / "states.pt", weights_only=True))
    assert draw() == drawn
