# SPDX-License-Identifier: Apache-2.0
"""Checks every set of finished episodes before the trainer uses it, and stops the run when some are missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from tensordict import TensorDict

from agent_system.errors import HiPERError
from recipe.hiper.trainer.transfer import Batch


class EpisodesLost(HiPERError):
    """Some episodes could not be played. Training on the others would change the distribution of tasks."""


class Heartbeat:
    """Notices when a process that plays episodes has died. verl would wait for its episodes forever.

    Args:
        workers: Ray actors; a busy one need not answer, only a dead one is noticed.
        every_s: seconds between two checks.
    """

    def __init__(self, workers: Sequence[Any], every_s: float = 20.0):
        self._workers = workers
        self._every_s = every_s
        self._asked: dict[int, ray.ObjectRef] = {}
        self._latest = 0.0

    def check(self) -> None:
        """Check, if the interval has passed.

        Raises:
            EpisodesLost: a worker has died.
        """
        if time.monotonic() - self._latest < self._every_s:
            return
        self._latest = time.monotonic()
        for number, worker in enumerate(self._workers):
            if number not in self._asked:
                self._asked[number] = worker.__ray_ready__.remote()
            answer = self._asked[number]
            if ray.wait([answer], timeout=0)[0]:
                del self._asked[number]
                try:
                    ray.get(answer)
                except ray.exceptions.RayActorError as error:
                    raise EpisodesLost(
                        f"process {number} of {len(self._workers)} that play episodes died, and its episodes with it "
                        f"(out of memory is the usual cause): {error}"
                    ) from error


class SubmissionOrder:
    """verl's manager of agent loops, which remembers the order in which tasks are submitted.

    Rows come back in the order in which episodes end, under random names. Sums over them would differ from run to run.

    Args:
        inner: verl's manager.
    """

    def __init__(self, inner: Any):
        self._inner = inner
        self._place: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def generate_sequences(self, prompts: TensorDict) -> None:
        """verl's `AgentLoopManager.generate_sequences`: start the episodes of these tasks."""
        for uid in prompts["uid"]:
            self._place[uid] = len(self._place)
        self._inner.generate_sequences(prompts)

    def sort(self, batch: Batch) -> None:
        """Order the rows by task, sample and turn, in place; keys are "{uid}_{session}_{index}"."""

        def place(row: int) -> tuple[int, int, int]:
            uid, session, index = batch.keys[row].rsplit("_", 2)
            return self._place[uid], int(session), int(index)

        batch.reorder(sorted(range(len(batch.keys)), key=place))


class WatchedReplayBuffer:
    """verl's replay buffer with an observer.

    Args:
        inner: verl's replay buffer.
        sort: puts the rows of a sample in their order, in place.
        group_size: episodes per task, by partition ("train", "val").
        observer: called with (batch, partition) after every complete sample.
        first_failure: returns why an episode is missing.
        while_waiting: called at every check for finished episodes; may raise.
    """

    def __init__(
        self,
        inner,
        sort: Callable[[Batch], None],
        group_size: Mapping[str, int],
        observer: Callable[[Batch, str], None],
        first_failure: Callable[[], str],
        while_waiting: Callable[[], None] = lambda: None,
    ):
        self._inner = inner
        look = inner._sync_metadata_from_transfer_queue

        def look_and_check() -> None:
            while_waiting()
            look()

        inner._sync_metadata_from_transfer_queue = look_and_check
        self._sort = sort
        self._group_size = group_size
        self._observer = observer
        self._first_failure = first_failure

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def sample(self, *, global_steps: int, partition_id: str, batch_size: int):
        """verl's `ReplayBuffer.sample`: wait for `batch_size` tasks and return all their rows.

        Raises:
            EpisodesLost: an episode ended without rows; the message holds the first error.
        """
        batch, metrics = self._inner.sample(global_steps=global_steps, partition_id=partition_id, batch_size=batch_size)
        expected = batch_size * self._group_size[partition_id]
        played = len({key.rsplit("_", 1)[0] for key in batch.keys})
        if played < expected:
            raise EpisodesLost(
                f"{expected - played} of {expected} episodes could not be played. {self._first_failure()}"
            )
        self._sort(batch)
        self._observer(batch, partition_id)
        return batch, metrics
