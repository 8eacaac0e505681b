# SPDX-License-Identifier: Apache-2.0
"""What programs that make large folders share: one maker at a time, and workers that do not outlive their parent."""

from __future__ import annotations

import contextlib
import fcntl
import math
import multiprocessing
import os
import threading
from collections.abc import Iterator
from pathlib import Path

LOCK = ".lock"
"""The file in such a folder that is locked while somebody makes it; it stays there afterwards."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait until nobody else, in this process or another one of this machine, is making `folder`; then keep them out.

    The kernel lets go of the lock when the process ends, however it ends.
    """
    with locked_file(folder / LOCK):
        yield


@contextlib.contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """The same with a file of any name, made if absent: for a folder that must not exist before it is finished."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def usable_cpus(quota_file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """CPUs that this process may use: those it may run on, within the quota of its container.

    `os.cpu_count()` counts those of the machine: 64 processes in a container that was given two.

    Args:
        quota_file: of cgroup v2, "quota period" in microseconds; "max" or no file is no quota.
    """
    cpus = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        quota, period = map(int, quota_file.read_text(encoding="utf-8").split())
        cpus = min(cpus, math.ceil(quota / period))
    return max(1, cpus)


def end_with_parent() -> None:
    """Initializer of worker processes: ends them when their parent is killed, for whom they would wait on for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
