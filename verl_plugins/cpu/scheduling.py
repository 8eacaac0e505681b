# SPDX-License-Identifier: Apache-2.0
"""Which threads of a CPU run are served first: those that compute.

A run is a dozen processes, and on a few cores all but one of them wait. Waiting, each of them wakes up a hundred times
a second or more (Ray's core, TransferQueue, gloo). Every time it may interrupt a thread of the computation, and the
other threads of that one wait for it at the end of their loop: on two cores an update took a tenth longer.

A thread with the policy SCHED_BATCH interrupts no other thread when it wakes up. It waits for the next tick of the
kernel and has its fair share otherwise. Children inherit the policy.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

SWITCH = "VERL_CPU_COMPUTE_FIRST"
"""Environment variable: 0 leaves all threads alike."""

logger = logging.getLogger(__name__)


def give_way() -> None:
    """Have this thread, and all processes and threads that it starts from now on, interrupt no other."""
    if _is_on():
        _set_policy([0], os.SCHED_BATCH)


def compute_first() -> None:
    """Let this thread interrupt those that gave way, and with it the OpenMP threads that it has started.

    These are the threads with its name: a thread inherits the name of the one that starts it, and the threads of Ray,
    gloo and ZeroMQ give themselves others.
    """
    if _is_on():
        _set_policy(_threads_of_this_name(), os.SCHED_OTHER)


class ComputeFirstMixin:
    """Put before a training engine."""

    def forward_backward_batch(self, *args, **kwargs):
        """See verl's engine."""
        compute_first()
        return super().forward_backward_batch(*args, **kwargs)


def _is_on() -> bool:
    return hasattr(os, "SCHED_BATCH") and os.environ.get(SWITCH, "1") != "0"


def _threads_of_this_name() -> list[int]:
    name = Path("/proc/thread-self/comm").read_text("utf-8")
    threads = []
    for folder in Path("/proc/self/task").iterdir():
        try:
            if (folder / "comm").read_text("utf-8") == name:
                threads.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
    return threads


def _set_policy(threads: Iterable[int], policy: int) -> None:
    for thread in threads:
        try:
            os.sched_setscheduler(thread, policy, os.sched_param(0))
        except ProcessLookupError:
            continue  # likewise
        except PermissionError:
            logger.warning("the system allows no choice of scheduling policies: the run may be a tenth slower")
            return
