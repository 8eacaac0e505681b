# SPDX-License-Identifier: Apache-2.0
"""Every set of episodes is looked at before it is trained on, and an incomplete one is refused."""

from __future__ import annotations

import random

import pytest
from transfer_queue import KVBatchMeta

from recipe.hiper.trainer.replay_guard import EpisodesLost, SubmissionOrder, WatchedReplayBuffer


class Buffer:
    """Replaces verl's replay buffer, which needs Ray: returns the batch of its constructor."""

    def __init__(self, keys: list[str]):
        self.batch = KVBatchMeta(partition_id="train", keys=keys, tags=[{} for _ in keys])
        self.poll_interval = 2.0
        self.looks = 0

    def _sync_metadata_from_transfer_queue(self) -> None:
        self.looks += 1

    def sample(self, *, global_steps: int, partition_id: str, batch_size: int):
        self._sync_metadata_from_transfer_queue()
        return self.batch, {"staleness": global_steps}


def watched(keys: list[str]) -> tuple[WatchedReplayBuffer, list]:
    seen: list = []
    watch = WatchedReplayBuffer(
        Buffer(keys),
        sort=lambda batch: None,
        group_size={"train": 2, "val": 1},
        observer=lambda batch, partition: seen.append((batch.keys, partition)),
        first_failure=lambda: "The first: task x: it broke",
    )
    return watch, seen


def test_complete_episodes_are_shown_and_handed_on():
    """Two tasks, two episodes of each, of one to three turns."""
    keys = ["a_0_0", "a_0_1", "a_1_0", "b_0_0", "b_1_0", "b_1_1", "b_1_2"]
    watch, seen = watched(keys)
    batch, metrics = watch.sample(global_steps=3, partition_id="train", batch_size=2)
    assert batch.keys == keys and metrics == {"staleness": 3}
    assert seen == [(keys, "train")]
    assert watch.poll_interval == 2.0, "everything else is verl's buffer"


@pytest.mark.parametrize(("keys", "lost"), [(["a_0_0", "a_0_1", "a_1_0", "b_1_0"], 1), (["a_0_0"], 3), ([], 4)])
def test_a_partial_batch_is_never_trained_on(keys, lost):
    watch, seen = watched(keys)
    with pytest.raises(EpisodesLost, match=f"{lost} of 4 episodes could not be played. The first: task x: it broke"):
        watch.sample(global_steps=1, partition_id="train", batch_size=2)
    assert seen == []


def test_what_is_to_be_done_while_waiting_is_done_at_every_look():
    def die():
        raise EpisodesLost("process 1 of 4 died")

    ignore = lambda *_: None  # noqa: E731
    watch = WatchedReplayBuffer(Buffer([]), ignore, {"train": 1}, ignore, lambda: "", while_waiting=die)
    with pytest.raises(EpisodesLost, match="process 1 of 4 died"):
        watch.sample(global_steps=1, partition_id="train", batch_size=1)
    calm, _ = watched(["a_0_0", "a_1_0"])
    calm.sample(global_steps=1, partition_id="train", batch_size=1)
    assert calm.looks == 1, "verl still looks"


class Manager:
    """Replaces verl's manager of agent loops, which needs Ray."""

    agent_loop_workers = ("one",)

    def __init__(self):
        self.submitted: list[str] = []

    def generate_sequences(self, prompts) -> None:
        self.submitted += prompts["uid"]


def test_rows_are_in_the_order_of_submission_whatever_order_they_arrive_in():
    manager = Manager()
    order = SubmissionOrder(manager)
    for uids in (["c", "a"], ["b"]):
        order.generate_sequences({"uid": uids})
    assert manager.submitted == ["c", "a", "b"] and order.agent_loop_workers == ("one",)
    wanted = ["c_0_0", "c_0_1", "c_0_2", "c_1_0", "a_0_0", "b_0_0", "b_0_1", "b_0_10"]
    for seed in range(20):
        keys = random.Random(seed).sample(wanted, len(wanted))
        batch = KVBatchMeta(partition_id="train", keys=list(keys), tags=[{"key": key} for key in keys])
        order.sort(batch)
        assert batch.keys == wanted and [tag["key"] for tag in batch.tags] == wanted
