# SPDX-License-Identifier: Apache-2.0
"""How many CPUs a program may use, and worker processes that end with their parent."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import threading
from pathlib import Path


def usable_cpus(quota_file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Number of CPUs that this process may use: its CPU affinity, limited by the quota of its container.

    `os.cpu_count()` counts the CPUs of the machine, also in a container that may use two of 64.

    Args:
        quota_file: file of cgroup v2 with "<quota> <period>" in microseconds. "max" or no file means no quota.
    """
    cpus = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        quota, period = map(int, quota_file.read_text(encoding="utf-8").split())
        cpus = min(cpus, math.ceil(quota / period))
    return max(1, cpus)


def end_with_parent() -> None:
    """Initializer of worker processes: end this process when its parent ends, and leave Ctrl-C to the parent.

    Without it the workers of a parent that was killed wait for work forever, and every worker answers Ctrl-C with a
    traceback.

    Raises:
        RuntimeError: this process was not started by `multiprocessing`.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        raise RuntimeError("end_with_parent() was called in a process that multiprocessing did not start")

    def watch() -> None:
        parent.join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()
