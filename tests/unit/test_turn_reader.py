# SPDX-License-Identifier: Apache-2.0
"""The turns of a step are unpacked once, and turns of other rows are never returned for them."""

from __future__ import annotations

import pytest
from made_turns import keep, turn
from transfer_queue import KVBatchMeta

from recipe.hiper.trainer import transfer


@pytest.fixture
def reads(monkeypatch) -> list[list[str]]:
    """The keys of every read. The queue, which needs Ray, is replaced by the records of two turns."""
    keys_read: list[list[str]] = []

    def fetch(batch: KVBatchMeta, *columns: str) -> dict[str, list[dict]]:
        keys_read.append(list(batch.keys))
        records = {"0": turn(0), "1": keep(1)}
        return {"extra_fields": [records[key.rsplit("_", 1)[1]].to_fields() for key in batch.keys]}

    monkeypatch.setattr(transfer, "fetch", fetch)
    return keys_read


def batch(*keys: str, padding: tuple[int, ...] = (), partition: str = "train") -> KVBatchMeta:
    tags = [{"is_padding": row in padding} for row in range(len(keys))]
    return KVBatchMeta(partition_id=partition, keys=list(keys), tags=tags)


def test_a_batch_is_read_once(reads):
    reader = transfer.TurnReader()
    first = reader.read(batch("a_0_0", "a_0_1"))
    assert reader.read(batch("a_0_0", "a_0_1")) is first
    assert reads == [["a_0_0", "a_0_1"]]
    assert first.episodes() == [[0, 1]]


@pytest.mark.parametrize(
    "other",
    [
        batch("b_0_0", "b_0_1"),  # the next step
        batch("a_0_1", "a_0_0"),  # another order
        batch("a_0_0", "a_0_1", "b_0_0", padding=(2,)),  # filled up
        batch("a_0_0", "a_0_1", partition="val"),
    ],
)
def test_any_other_batch_is_read_again(reads, other):
    reader = transfer.TurnReader()
    first = reader.read(batch("a_0_0", "a_0_1"))
    turns = reader.read(other)
    assert turns is not first and len(reads) == 2
    assert len(turns.records) == len(other.keys) and turns.is_padding.sum() == sum(t["is_padding"] for t in other.tags)
