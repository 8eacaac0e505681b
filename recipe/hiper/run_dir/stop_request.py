# SPDX-License-Identifier: Apache-2.0
"""SIGTERM, which schedulers send before they kill: the run saves its latest finished step and ends with 143.

The driver process gets the signal, the trainer is in another one and cannot be called while it trains. They share the
run's folder, so the request is a file in it.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from agent_system.errors import HiPERError

STOP_FILE = "stop-requested"

EXIT_CODE = 128 + signal.SIGTERM


class StopRequested(HiPERError):
    """The run was asked to stop and did, after it saved what it had."""

    exit_code = EXIT_CODE


class EndAtOnce(BaseException):
    """SIGTERM where there is nothing to save, or a second one."""


def is_stop_requested(folder: Path) -> bool:
    """Whether the run in `folder` was asked to stop."""
    return (folder / STOP_FILE).exists()


@contextlib.contextmanager
def stopping_on_sigterm(folder: Path, has_started: Callable[[], bool], tell: Callable[[str], None]) -> Iterator[None]:
    """Turn SIGTERM into a request to stop, as long as this lasts. Only for the main thread.

    Enter it after `ray.init`, which sets a handler of its own.

    Args:
        folder: the run's folder.
        has_started: whether there is a step to finish or to save; without one a first signal ends the run at once.
        tell: shows the user a line.

    Raises:
        EndAtOnce: at the place where the main thread is when a signal arrives that ends the run at once.
    """
    request = folder / STOP_FILE
    request.unlink(missing_ok=True)

    def on_signal(*_) -> None:
        if request.exists() or not has_started():
            raise EndAtOnce
        request.touch()
        tell("SIGTERM: the run saves its latest finished step and ends; a second SIGTERM ends it at once")

    before = signal.signal(signal.SIGTERM, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        request.unlink(missing_ok=True)
