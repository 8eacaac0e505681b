# SPDX-License-Identifier: Apache-2.0
"""The first SIGTERM asks the run to save and stop, a second one ends it at once."""

from __future__ import annotations

import os
import signal

import pytest

from recipe.hiper.run_dir.stop_request import (
    STOP_FILE,
    EndAtOnce,
    StopRequested,
    is_stop_requested,
    stopping_on_sigterm,
)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_request_and_then_the_end(tmp_path):
    told = []
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(EndAtOnce), stopping_on_sigterm(tmp_path, lambda: True, told.append):
        assert not is_stop_requested(tmp_path)
        terminate()
        assert is_stop_requested(tmp_path) and len(told) == 1 and "saves its latest finished step" in told[0]
        terminate()
    assert signal.getsignal(signal.SIGTERM) == before
    assert not is_stop_requested(tmp_path)  # the next start is not stopped


def test_before_training_there_is_nothing_to_save(tmp_path):
    with pytest.raises(EndAtOnce), stopping_on_sigterm(tmp_path, lambda: False, pytest.fail):
        terminate()


def test_a_request_that_an_earlier_run_left_is_ignored(tmp_path):
    (tmp_path / STOP_FILE).touch()
    with stopping_on_sigterm(tmp_path, lambda: True, pytest.fail):
        assert not is_stop_requested(tmp_path)


def test_the_exit_code_is_that_of_the_signal():
    assert StopRequested.exit_code == 143
