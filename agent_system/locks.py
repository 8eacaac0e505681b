# SPDX-License-Identifier: Apache-2.0
"""Locks between processes of one machine: only one of them makes a folder, or writes to it, at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

LOCK = ".lock"
"""Name of the lock file in a locked folder. The file stays there afterwards; the lock does not."""


@contextlib.contextmanager
def locked(folder: Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock of `folder`, which must exist, against every other thread and process of this machine.

    It is a `flock`: the kernel releases it when the process ends, also when the process is killed.

    Args:
        folder: the folder to lock.
        wait: whether to wait until the lock is free.

    Raises:
        filelock.Timeout: `wait` is False and the lock is not free.
    """
    with locked_file(folder / LOCK, wait):
        yield


@contextlib.contextmanager
def locked_file(path: Path, wait: bool = True) -> Iterator[None]:
    """Like `locked`, with a lock file of any name: for a folder that must not exist before it is complete.

    The lock file is created if it does not exist; its folder must exist.
    """
    # fallback_to_soft=False: on a file system without flock an error, not a lock that outlives a killed process.
    with FileLock(path, blocking=wait, fallback_to_soft=False):
        yield
