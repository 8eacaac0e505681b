# SPDX-License-Identifier: Apache-2.0
"""Looks at every set of finished episodes before the trainer uses it, and refuses to go on when some are missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from transfer_queue import KVBatchMeta

from agent_system.errors import HiPERError


class EpisodesLost(HiPERError):
    """Some episodes could not be played. Training on what is left would be training on another task distribution."""


class WatchedReplayBuffer:
    """verl's replay buffer with an observer.

    Args:
        inner: verl's replay buffer.
        group_size: episodes per task, by partition ("train", "val").
        observer: called with (batch, partition) after every complete sample.
        first_failure: says why an episode is missing.
    """

    def __init__(
        self,
        inner,
        group_size: Mapping[str, int],
        observer: Callable[[KVBatchMeta, str], None],
        first_failure: Callable[[], str],
    ):
        self._inner = inner
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
        self._observer(batch, partition_id)
        return batch, metrics
