# SPDX-License-Identifier: Apache-2.0
"""Scheduling policies of the processes of a CPU run, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="only Linux has this policy")

PROGRAM = """
import os, subprocess, sys, threading
from pathlib import Path
from verl_plugins.cpu.scheduling import compute_first, give_way

give_way()
here = os.sched_getscheduler(0)
child = int(subprocess.run([sys.executable, "-c", "import os; print(os.sched_getscheduler(0))"],
                           capture_output=True, text=True, check=True).stdout)

done, ready, found = threading.Event(), threading.Barrier(3), {}
def wait(name):
    if name:
        Path("/proc/thread-self/comm").write_text(name)
    found[name] = threading.get_native_id()
    ready.wait()
    done.wait()
threads = [threading.Thread(target=wait, args=(name,)) for name in ("", "gloo_tcp_loop")]
for thread in threads:
    thread.start()
ready.wait()
compute_first()
policies = {name: os.sched_getscheduler(tid) for name, tid in found.items()}
done.set()
print(here, child, os.sched_getscheduler(0), policies[""], policies["gloo_tcp_loop"])
"""


def policies(**environment: str) -> list[int]:
    printed = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=os.environ | environment
    )
    return [int(word) for word in printed.stdout.split()]


def test_all_give_way_but_the_threads_that_compute():
    batch, other = os.SCHED_BATCH, os.SCHED_OTHER
    # here, in a child, then after `compute_first`: here, a thread with this name, a thread with another
    assert policies() == [batch, batch, other, other, batch]


def test_it_can_be_switched_off():
    assert policies(VERL_CPU_COMPUTE_FIRST="0") == [os.sched_getscheduler(0)] * 5


def test_a_system_that_forbids_it_is_reported_and_changes_nothing(monkeypatch, caplog):
    from verl_plugins.cpu import scheduling

    def refuse(*_arguments):
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    scheduling.compute_first()
    assert "the system allows no choice of scheduling policies" in caplog.text
