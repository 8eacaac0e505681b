# SPDX-License-Identifier: Apache-2.0
"""What programs that make large folders share: one maker at a time, and workers that do not outlive their parent."""

from __future__ import annotations

import contextlib
import fcntl
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
    with (folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def end_with_parent() -> None:
    """Initializer of worker processes: ends them when their parent is killed, for whom they would wait on for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
