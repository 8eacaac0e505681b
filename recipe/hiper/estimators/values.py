# SPDX-License-Identifier: Apache-2.0
"""The three values of a turn: which head each is read from, at which token, and how well they predict.

Notation, shapes in names: _R rows (one turn each), _L response tokens, right-padded.
"""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor


class ValueSlot(IntEnum):
    """The three values of a turn, as indices into the last dimension of `[rows, 3]` tensors."""

    HIGH = 0
    """V_hi(s_t), read at the first response token of a boundary turn."""
    LOW = 1
    """V_lo(s_t, o_t), read at the first token after the sub-goal block."""
    TERM = 2
    """V_term(s_t, o_{t-1}), read at the first response token of every turn."""


HEAD_OF_SLOT = {3: (0, 1, 2), 2: (0, 1, 1), 1: (0, 0, 0)}
"""For each number of value heads: which head the high, low and term values of a turn are read from."""


def read_slots(values_RL: list[Tensor], value_low_R: Tensor) -> Tensor:
    """Read the three values of each turn from the heads' values at all response tokens.

    High and term at the first token, before anything is written; low at `value_low`, after the sub-goal is written.

    Args:
        values_RL: one `[rows, tokens]` tensor per head, the value before each response token is written.
        value_low_R: `protocol.TokenSpans.value_low`, integer `[rows]`.

    Returns:
        `[rows, 3]`, last dimension by `ValueSlot`.

    Raises:
        ValueError: shapes differ, or `value_low_R` leaves the response.
    """
    rows, tokens = values_RL[0].shape
    check_rows(rows, value_low=value_low_R)
    if rows and not (int(value_low_R.min()) >= 0 and int(value_low_R.max()) < tokens):
        raise ValueError(
            f"value_low reaches from {int(value_low_R.min())} to {int(value_low_R.max())}, "
            f"outside a response of {tokens} tokens"
        )
    slots = HEAD_OF_SLOT[len(values_RL)]
    first = torch.zeros_like(value_low_R)
    positions = {ValueSlot.HIGH: first, ValueSlot.LOW: value_low_R, ValueSlot.TERM: first}
    row = torch.arange(rows, device=value_low_R.device)
    return torch.stack([values_RL[slots[slot]][row, positions[slot]] for slot in ValueSlot], dim=1)


def explained_variance(prediction: Tensor, target: Tensor, mask: Tensor) -> float:
    """`1 - var(target - prediction) / var(target)` over the masked entries only, in float64.

    1 is a perfect head, 0 is as good as a constant. NaN when the masked targets do not vary (or there are none): the
    share of no variance is not defined.

    Raises:
        ValueError: shapes differ.
    """
    if not prediction.shape == target.shape == mask.shape:
        shapes = [tuple(x.shape) for x in (prediction, target, mask)]
        raise ValueError(f"prediction, target and mask must have one shape, got {shapes}")
    target = target[mask.bool()].double()
    prediction = prediction[mask.bool()].double()
    if len(target) < 2 or target.min() == target.max():
        return float("nan")
    return float(1.0 - (target - prediction).var() / target.var())


def check_rows(rows: int, **columns: Tensor | None) -> None:
    """Check that each column holds one entry for each row.

    Raises:
        ValueError: a shape differs.
    """
    for name, column in columns.items():
        if column is not None and column.shape != (rows,):
            raise ValueError(f"{name} must hold one entry for each of {rows} rows, got shape {tuple(column.shape)}")
