# SPDX-License-Identifier: Apache-2.0
"""Locks between processes: one holder at a time, and a killed holder releases it."""

from __future__ import annotations

import subprocess
import sys
import threading

import filelock
import pytest

from agent_system.locks import LOCK, locked, locked_file

HOLD = """
import sys
from pathlib import Path
from agent_system.locks import locked
with locked(Path(sys.argv[1])):
    print("holding", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of `tmp_path` until it reads a line or is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "holding\n"
    yield process
    process.kill()
    process.communicate()


def test_without_waiting_a_held_lock_is_an_error(tmp_path, holder):
    with pytest.raises(filelock.Timeout), locked(tmp_path, wait=False):
        pytest.fail("two processes hold one lock")
    holder.communicate("release\n")
    with locked(tmp_path, wait=False):
        pass


def test_waiting_ends_when_the_holder_releases(tmp_path, holder):
    acquired = threading.Event()

    def acquire() -> None:
        with locked(tmp_path):
            acquired.set()

    waiting = threading.Thread(target=acquire)
    waiting.start()
    assert not acquired.wait(0.3)
    holder.communicate("release\n")
    waiting.join(timeout=60)
    assert acquired.is_set()


def test_the_lock_of_a_killed_process_is_free(tmp_path, holder):
    holder.kill()
    holder.wait()
    with locked(tmp_path, wait=False):
        pass
    assert (tmp_path / LOCK).exists()


def test_a_lock_file_of_another_name_locks_nothing_else(tmp_path, holder):
    with locked_file(tmp_path / ".model.lock", wait=False):
        pass
    assert holder.poll() is None
