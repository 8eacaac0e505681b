# SPDX-License-Identifier: Apache-2.0
"""Every call of TransferQueue, which holds the rows between rollout and trainer. Upstream is about to change it.

A `Batch` names rows by their keys "{uid}_{session}_{index}" in a partition ("train" or "val"); their columns stay in
the queue until they are fetched.
"""

from __future__ import annotations

from typing import Any

import ray
import torch
import transfer_queue as tq
from omegaconf import DictConfig
from tensordict import TensorDict
from torch import Tensor
from transfer_queue import KVBatchMeta as Batch

from agent_system.errors import HiPERError
from recipe.hiper.trainer.turn_batch import BatchTurns

__all__ = [
    "Batch",
    "ClusterInUse",
    "TurnReader",
    "connect",
    "disconnect",
    "fetch",
    "read_turns",
    "stacked",
    "store",
    "tensors_only",
]


class ClusterInUse(HiPERError):
    """Another run has its queue in this Ray cluster."""


def connect(config: DictConfig) -> None:
    """Start the queue of this run. `config` is verl's section `transfer_queue`.

    Raises:
        ClusterInUse: there is a queue. A Ray cluster has one, so the two runs would train on each other's episodes, and
            the first to end would stop the other.
    """
    try:
        ray.get_actor("TransferQueueController", namespace="transfer_queue")
    except ValueError:  # there is none
        tq.init(config)
        return
    address = ray.get_runtime_context().gcs_address
    raise ClusterInUse(
        f"another run uses the Ray cluster at {address}: verl keeps the episodes of all runs of a cluster in one "
        "queue, so the two would train on each other's episodes. Try: unset RAY_ADDRESS, so that this run starts its "
        "own cluster (on GPUs also CUDA_VISIBLE_DEVICES=<GPUs of this run>), or wait until the other run has ended"
    )


def disconnect() -> None:
    """Leave the queue, and end it in the process that started it."""
    tq.close()


def fetch(batch: Batch, *columns: str) -> TensorDict:
    """The named columns of a batch, in the order of its rows."""
    return tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=list(columns))


def store(batch: Batch, **columns: Any) -> Batch:
    """Write columns, one entry per row. Use the returned batch from then on: it lists them."""
    return tq.kv_batch_put(
        keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(columns, batch_size=len(batch))
    )


def tensors_only(batch: Batch) -> Batch:
    """Have the workers fetch the tensors of a batch and leave its Python objects where they are.

    Rows carry their turn's record and their task for the trainer's own use. A worker fetches every column that is
    not excluded, again on each call, and on two cores unpacking these objects took 38% of the time of an update.
    """
    schema = tq.get_client().kv_retrieve_meta(keys=batch.keys, partition_id=batch.partition_id).field_schema
    batch.fields = sorted(name for name, column in schema.items() if not column["is_non_tensor"])
    return batch


def read_turns(batch: Batch) -> BatchTurns:
    """The turns of a batch."""
    return BatchTurns.from_fields(batch.keys, _padding(batch), list(fetch(batch, "extra_fields")["extra_fields"]))


class TurnReader:
    """Reads the turns of a batch, once for all stages of a step that read the same rows.

    Unpacking the records takes time, and a row's record never changes: rows with the same keys in the same order are
    the same turns. Any other batch is read again.
    """

    def __init__(self) -> None:
        self._rows: tuple[str, list[str], list[bool]] | None = None
        self._turns: BatchTurns | None = None

    def read(self, batch: Batch) -> BatchTurns:
        """The turns of a batch."""
        rows = (batch.partition_id, list(batch.keys), _padding(batch))
        if self._turns is None or rows != self._rows:
            self._rows, self._turns = rows, read_turns(batch)
        return self._turns


def _padding(batch: Batch) -> list[bool]:
    return [bool(tag.get("is_padding", False)) for tag in batch.tags]


def stacked(column: Tensor) -> Tensor:
    """A column of equally long rows as one ordinary tensor. The queue returns such columns as nested tensors."""
    return torch.stack(list(column.unbind())) if column.is_nested else column
