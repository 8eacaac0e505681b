# SPDX-License-Identifier: Apache-2.0
"""How rows of different lengths are cut into micro-batches.

Packed rows have no padding, and a micro-batch may hold any rows whose tokens fit. verl balances the sums by a method
that takes time in proportion to rows times micro-batches, in Python while the GPU waits (3.35 s for the 6,400 rows of
a step, in each of three passes); here it takes 9 ms.

Rows that are not packed are padded to the longest of their micro-batch, and all of the padding is computed. verl mixes
long and short rows: with ALFWorld's prompts a third of all positions was padding. Here rows of similar length go
together (under 1%).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

import torch
from tensordict import NonTensorStack, TensorDict
from torch import Tensor
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_id
from verl.workers.engine.fsdp import transformer_impl


def partition_by_length(lengths: Sequence[int], budget: int, at_least: int = 1) -> list[list[int]]:
    """Cut rows into micro-batches of similar length, the longest rows first.

    Args:
        lengths: tokens of each row.
        budget: positions of a micro-batch at most, padding included. A row longer than that is alone in its own.
        at_least: number of micro-batches at least.

    Returns:
        Indices of rows; each row is in exactly one micro-batch.

    Raises:
        ValueError: fewer rows than `at_least`.
    """
    _require_rows(lengths, at_least)
    parts: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if parts and (len(parts[-1]) + 1) * lengths[parts[-1][0]] <= budget:
            parts[-1].append(row)
        else:
            parts.append([row])
    return _halve_largest(parts, at_least)


def partition_by_tokens(lengths: Sequence[int], budget: int, at_least: int = 1) -> list[list[int]]:
    """Cut packed rows into micro-batches of about equally many tokens.

    The longest rows first, each goes to the micro-batch with the fewest tokens; where it does not fit there it fits
    nowhere, and a new one is opened. O(n log n). Arguments, result and errors as in `partition_by_length`, but for the
    budget, which bounds the sum of lengths.
    """
    _require_rows(lengths, at_least)
    fewest = min(len(lengths), max(at_least, math.ceil(sum(lengths) / budget)))
    parts = _least_loaded_first(lengths, budget, fewest)
    if len(parts) > fewest:  # the last ones hold the few rows that were left: distribute all rows over as many
        again = _least_loaded_first(lengths, budget, len(parts))
        parts = again if len(again) == len(parts) else parts
    return parts


def _least_loaded_first(lengths: Sequence[int], budget: int, count: int) -> list[list[int]]:
    parts: list[list[int]] = [[] for _ in range(count)]
    loads = [(0, part) for part in range(count)]  # a heap: the least loaded part first
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        load, part = loads[0]
        if load and load + lengths[row] > budget:
            heapq.heappush(loads, (lengths[row], len(parts)))
            parts.append([row])
        else:
            heapq.heapreplace(loads, (load + lengths[row], part))
            parts[part].append(row)
    return parts


def _require_rows(lengths: Sequence[int], parts: int) -> None:
    if len(lengths) < parts:
        raise ValueError(f"{len(lengths)} rows cannot be cut into {parts} micro-batches")


def _halve_largest(parts: list[list[int]], at_least: int) -> list[list[int]]:
    """Cut the micro-batch with the most rows in two until there are `at_least`."""
    while len(parts) < at_least:
        largest = max(range(len(parts)), key=lambda index: len(parts[index]))
        rows = parts[largest]
        parts[largest : largest + 1] = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    return parts


def cut_micro_batches(data: TensorDict, dp_group=None, **others) -> tuple[list[TensorDict], list[list[int]] | None]:
    """Replaces verl's `prepare_micro_batches` and returns what that returns.

    Fixed-size micro-batches (`use_dynamic_bsz=False`), rows that must stay together and rows that are split over GPUs
    are left to verl.
    """
    by_tokens = tu.get_non_tensor_data(data=data, key="use_dynamic_bsz", default=True)
    of_verl = any(tu.get_non_tensor_data(data=data, key=key, default=1) > 1 for key in ("force_group_size", "sp_size"))
    if not by_tokens or of_verl:
        return _verl_prepare_micro_batches(data=data, dp_group=dp_group, **others)
    packed = tu.get_non_tensor_data(data=data, key="use_remove_padding", default=True)
    partition = partition_by_tokens if packed else partition_by_length
    lengths = data["input_ids"].offsets().diff().tolist()
    parts = partition(lengths, data["max_token_len_per_gpu"])
    if torch.distributed.is_initialized() and dp_group is not None:
        # FSDP gathers the weights in every micro-batch, so all ranks must go through the same number of them.
        most = torch.tensor(len(parts), device=get_device_id())
        torch.distributed.all_reduce(most, op=torch.distributed.ReduceOp.MAX, group=dp_group)
        parts = _halve_largest(parts, int(most))
    return _split(data, parts), parts


def _split(data: TensorDict, parts: list[list[int]]) -> list[TensorDict]:
    """The rows of each part, with every nested field taken apart once and not once for each part, as verl does it.

    Python objects that belong to rows (records of an episode and the like) stay behind: engines read tensors, and
    moving the objects with every micro-batch took 7% of a forward pass.
    """
    split: list[dict] = [{} for _ in parts]
    for name, field in data.items():
        if isinstance(field, Tensor) and field.is_nested:
            rows, ragged = field.unbind(), getattr(field, "_ragged_idx", field.dim() - 1)
            columns = [tu.nested_tensor_from_tensor_list([rows[i] for i in part], ragged_idx=ragged) for part in parts]
        elif isinstance(field, NonTensorStack) and name != "multi_modal_inputs":
            continue
        else:  # NonTensorData is a setting of the whole batch, with or without the batch's shape
            columns = [field[part] if field.shape else field for part in parts]
        for fields, column in zip(split, columns, strict=True):
            fields[name] = column
    return [TensorDict(fields, batch_size=len(part)) for fields, part in zip(split, parts, strict=True)]


_verl_prepare_micro_batches = transformer_impl.prepare_micro_batches


class MicroBatchMixin:
    """Put before a verl FSDP engine class: its micro-batches are cut by `cut_micro_batches`.

    The engine calls a function of its module and offers no method to override.
    """

    def forward_backward_batch(self, data: TensorDict, loss_function, forward_only: bool = False):
        transformer_impl.prepare_micro_batches = cut_micro_batches
        try:
            return super().forward_backward_batch(data, loss_function, forward_only=forward_only)  # type: ignore[misc]
        finally:
            transformer_impl.prepare_micro_batches = _verl_prepare_micro_batches
