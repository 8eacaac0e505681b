# SPDX-License-Identifier: Apache-2.0
"""How rows of different lengths are cut into micro-batches and laid out where nothing skips padding.

On GPU verl packs rows without padding and flash attention keeps them apart. CPU attention has no such mode: each row is
padded to the longest of its micro-batch, and all of the padding is computed. verl cuts micro-batches so that their sums
of lengths agree, which mixes long and short rows: with ALFWorld's prompts a third of all positions was padding. Here
rows of similar length go together (under 1%).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from tensordict import NonTensorStack, TensorDict
from torch import Tensor
from verl.utils import tensordict_utils as tu
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
    if len(lengths) < at_least:
        raise ValueError(f"{len(lengths)} rows cannot be cut into {at_least} micro-batches")
    parts: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if parts and (len(parts[-1]) + 1) * lengths[parts[-1][0]] <= budget:
            parts[-1].append(row)
        else:
            parts.append([row])
    while len(parts) < at_least:
        largest = max(range(len(parts)), key=lambda index: len(parts[index]))
        rows = parts[largest]
        parts[largest : largest + 1] = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    return parts


def micro_batches_by_length(
    data: TensorDict, dp_group=None, **others
) -> tuple[list[TensorDict], list[list[int]] | None]:
    """Replaces verl's `prepare_micro_batches` and returns what that returns.

    Fixed-size micro-batches (`use_dynamic_bsz=False`) and rows that must stay together are left to verl.
    """
    by_tokens = tu.get_non_tensor_data(data=data, key="use_dynamic_bsz", default=True)
    if not by_tokens or tu.get_non_tensor_data(data=data, key="force_group_size", default=1) > 1:
        return _verl_prepare_micro_batches(data=data, dp_group=dp_group, **others)
    lengths = data["input_ids"].offsets().diff().tolist()
    budget = data["max_token_len_per_gpu"]
    parts = partition_by_length(lengths, budget)
    if torch.distributed.is_initialized() and dp_group is not None:
        # FSDP gathers the weights in every micro-batch, so all ranks must go through the same number of them.
        most = torch.tensor(len(parts))
        torch.distributed.all_reduce(most, op=torch.distributed.ReduceOp.MAX, group=dp_group)
        parts = partition_by_length(lengths, budget, at_least=int(most))
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


@contextlib.contextmanager
def rows_of_similar_length() -> Iterator[None]:
    """verl's FSDP engine cuts its micro-batches with `micro_batches_by_length` meanwhile.

    The engine calls a function of its module and offers no method to override.
    """
    transformer_impl.prepare_micro_batches = micro_batches_by_length
    try:
        yield
    finally:
        transformer_impl.prepare_micro_batches = _verl_prepare_micro_batches


def align_right(padded_BL: Tensor, lengths_B: Tensor, fill: int = 0) -> Tensor:
    """Move rows `[B, L]` that are padded on the right to the right end, so that all of them end in the last column."""
    columns_L = torch.arange(padded_BL.shape[1], device=padded_BL.device)
    source_BL = columns_L - (padded_BL.shape[1] - lengths_B).unsqueeze(1)
    return padded_BL.gather(1, source_BL.clamp(min=0)).masked_fill(source_BL < 0, fill)
