# SPDX-License-Identifier: Apache-2.0
"""From rows to episodes and from turns to tokens: grids, whitening, token advantages, value positions.

A row is one turn of one episode (one training sample). Notation, shapes in names:
    _R   rows, in any order     _ET  [episodes, turns] grid     _L  response tokens, right-padded
Rows made up to fill a batch (`is_padding`) never take part in anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor


class Head(IntEnum):
    """The three values of a turn, as indices into the last dimension of `[rows, 3]` tensors."""

    HIGH = 0
    """V_hi(s_t), read at the first response token of a boundary turn."""
    LOW = 1
    """V_lo(s_t, o_t), read at the first token after the sub-goal block."""
    TERM = 2
    """V_term(s_t, o_{t-1}), read at the first response token of every turn."""


@dataclass(frozen=True)
class EpisodeGrid:
    """The rows of a batch ordered as episodes.

    Attributes:
        row_ET: index of the row that holds a turn, long; 0 where `valid` is False.
        valid: which cells hold a turn, bool, right-padded.
        rows: number of rows of the batch, padding included.
    """

    row_ET: Tensor
    valid: Tensor
    rows: int

    def to_grid(self, x_R: Tensor) -> Tensor:
        """Order one value per row as `[episodes, turns]`; zero (False) outside valid cells."""
        if x_R.shape != (self.rows,):
            raise ValueError(f"expected one value for each of {self.rows} rows, got shape {tuple(x_R.shape)}")
        grid = torch.zeros(self.valid.shape, dtype=x_R.dtype, device=x_R.device)
        grid[self.valid] = x_R[self.row_ET[self.valid]]
        return grid

    def to_rows(self, x_ET: Tensor) -> Tensor:
        """The inverse: one value per row; zero (False) on padding rows."""
        if x_ET.shape != self.valid.shape:
            raise ValueError(f"expected a grid of shape {tuple(self.valid.shape)}, got {tuple(x_ET.shape)}")
        rows = torch.zeros(self.rows, dtype=x_ET.dtype, device=x_ET.device)
        rows[self.row_ET[self.valid]] = x_ET[self.valid]
        return rows


def episode_grid(episode_R: Tensor, turn_R: Tensor, is_padding_R: Tensor) -> EpisodeGrid:
    """Order rows as `[episodes, turns]`, episodes by ascending index. Padding rows are left out.

    Args:
        episode_R: episode of each row, any integers, `[rows]`.
        turn_R: turn of each row in its episode, from 0, `[rows]`.
        is_padding_R: rows that only fill up the batch (duplicates of real ones, as a rule), bool, `[rows]`.

    Raises:
        ValueError: the turns of an episode are not 0, 1, ..., n-1 with each once, or shapes differ.
    """
    if episode_R.dim() != 1 or not episode_R.shape == turn_R.shape == is_padding_R.shape:
        shapes = [tuple(x.shape) for x in (episode_R, turn_R, is_padding_R)]
        raise ValueError(f"episode, turn and is_padding must be [rows] alike, got shapes {shapes}")
    real_row = (~is_padding_R.bool()).nonzero().squeeze(1)
    turn = turn_R[real_row].long()
    names, episode = torch.unique(episode_R[real_row], return_inverse=True)
    lengths = torch.bincount(episode, minlength=len(names))
    width = int(lengths.max()) if len(names) else 0

    wrong = (turn < 0) | (turn >= lengths[episode])
    if wrong.any():
        at = int(wrong.nonzero()[0])
        raise ValueError(
            f"episode {int(names[episode[at]])} has {int(lengths[episode[at]])} rows but holds turn {int(turn[at])}: "
            "a turn is missing or repeated"
        )
    cell = episode * width + turn
    if len(torch.unique(cell)) != len(cell):
        repeated = int((torch.bincount(cell) > 1).nonzero()[0])
        raise ValueError(
            f"episode {int(names[repeated // width])} holds turn {repeated % width} twice; rows that only fill up the "
            "batch must be marked is_padding"
        )
    row_ET = torch.zeros(len(names) * width, dtype=torch.long, device=episode_R.device)
    row_ET[cell] = real_row
    valid = torch.arange(width, device=episode_R.device)[None, :] < lengths[:, None]
    return EpisodeGrid(row_ET=row_ET.view(len(names), width), valid=valid, rows=len(episode_R))


def whiten(x: Tensor, mask: Tensor) -> Tensor:
    """Centre and scale the masked entries: `(x - mean) / sqrt(var + 1e-8)`, zero outside the mask.

    Mean and unbiased variance are taken in float64 over all masked entries, so the caller passes the *global* batch.
    When no two masked entries differ there is nothing to compare: the result is zero everywhere.

    Args:
        x: any shape.
        mask: same shape, bool or 0/1.

    Raises:
        ValueError: shapes differ.
    """
    if x.shape != mask.shape:
        raise ValueError(f"x has shape {tuple(x.shape)} but mask has {tuple(mask.shape)}")
    mask = mask.bool()
    result = torch.zeros_like(x)
    entries = x[mask].double()
    if len(entries) < 2 or entries.min() == entries.max():
        return result
    result[mask] = ((entries - entries.mean()) / torch.sqrt(entries.var() + 1e-8)).to(x.dtype)
    return result


@dataclass(frozen=True)
class TokenCredit:
    """What the policy loss needs: `advantages` and bool `loss_mask`, `[rows, tokens]`; advantages are zero off it."""

    advantages: Tensor
    loss_mask: Tensor


def token_credit(
    adv_switch_R: Tensor,
    adv_high_R: Tensor,
    adv_low_R: Tensor,
    boundary_R: Tensor,
    spans: Tensor,
    response_length: int,
    is_padding_R: Tensor | None = None,
    *,
    regularize_copies: bool = False,
) -> TokenCredit:
    """Give each token the advantage of the decision it writes.

    Switch block: A_sw, every turn. Sub-goal block: A_hi, boundary turns only (a KEEP turn only copies).
    Action block: A_lo, every turn. All other tokens, and all tokens of padding rows, are off the loss mask.

    Args:
        adv_switch_R, adv_high_R, adv_low_R: advantages of each turn, `[rows]`, one dtype.
        boundary_R: whether the turn opens a segment, `[rows]`.
        spans: half-open token ranges of the switch, sub-goal and action blocks (`protocol.TokenSpans`), disjoint,
            integer `[rows, 3, 2]`; an empty range such as (0, 0) where a block is absent.
        response_length: number of response tokens of the padded batch.
        is_padding_R: rows that only fill up the batch, `[rows]`.
        regularize_copies: leave the sub-goal block of a KEEP turn on the loss mask, with advantage zero, so that the KL
            and entropy terms reach it.

    Raises:
        ValueError: shapes differ, or a span leaves the response.
    """
    rows = len(boundary_R)
    _check_rows(rows, adv_switch=adv_switch_R, adv_high=adv_high_R, adv_low=adv_low_R, is_padding=is_padding_R)
    if spans.shape != (rows, 3, 2):
        raise ValueError(f"spans must be [rows, 3, 2] = {(rows, 3, 2)}, got {tuple(spans.shape)}")
    if rows and (int(spans.min()) < 0 or int(spans.max()) > response_length):
        raise ValueError(f"spans reach from {int(spans.min())} to {int(spans.max())}, outside 0..{response_length}")

    real_R = _real_rows(boundary_R, is_padding_R)
    position_L = torch.arange(response_length, device=spans.device)
    advantages = torch.zeros(rows, response_length, dtype=adv_low_R.dtype, device=spans.device)
    loss_mask = torch.zeros(rows, response_length, dtype=torch.bool, device=spans.device)
    opens_R = real_R & boundary_R.bool()
    subgoal_in_loss_R = real_R if regularize_copies else opens_R
    blocks = ((adv_switch_R, real_R, real_R), (adv_high_R, opens_R, subgoal_in_loss_R), (adv_low_R, real_R, real_R))
    for index, (advantage_R, carries_R, in_loss_R) in enumerate(blocks):
        start_R1, end_R1 = spans[:, index, :1], spans[:, index, 1:]
        block_RL = (position_L >= start_R1) & (position_L < end_R1)
        advantages = torch.where(block_RL & carries_R[:, None], advantage_R[:, None], advantages)
        loss_mask |= block_RL & in_loss_R[:, None]
    return TokenCredit(advantages=advantages, loss_mask=loss_mask)


HEAD_OF_SLOT = {3: (0, 1, 2), 2: (0, 1, 1), 1: (0, 0, 0)}
"""For each number of value heads: which head the high, low and term values of a turn are read from."""


def stacked(column: Tensor) -> Tensor:
    """A column of equally long rows as one ordinary tensor. TransferQueue hands such columns back as nested tensors."""
    return torch.stack(list(column.unbind())) if column.is_nested else column


def read_slots(values_RL: list[Tensor], value_low_R: Tensor) -> Tensor:
    """Read the three values of each turn from the heads' values at all response tokens.

    High and term at the first token, before anything is written; low at `value_low`, after the sub-goal is written.

    Args:
        values_RL: one `[rows, tokens]` tensor per head, the value before each response token is written.
        value_low_R: `protocol.TokenSpans.value_low`, integer `[rows]`.

    Returns:
        `[rows, 3]`, last dimension by `Head`.

    Raises:
        ValueError: shapes differ, or `value_low_R` leaves the response.
    """
    rows, tokens = values_RL[0].shape
    _check_rows(rows, value_low=value_low_R)
    if rows and not (int(value_low_R.min()) >= 0 and int(value_low_R.max()) < tokens):
        raise ValueError(
            f"value_low reaches from {int(value_low_R.min())} to {int(value_low_R.max())}, "
            f"outside a response of {tokens} tokens"
        )
    slots = HEAD_OF_SLOT[len(values_RL)]
    first = torch.zeros_like(value_low_R)
    positions = {Head.HIGH: first, Head.LOW: value_low_R, Head.TERM: first}
    row = torch.arange(rows, device=value_low_R.device)
    return torch.stack([values_RL[slots[slot]][row, positions[slot]] for slot in Head], dim=1)


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


def _real_rows(boundary_R: Tensor, is_padding_R: Tensor | None) -> Tensor:
    if is_padding_R is None:
        return torch.ones(boundary_R.shape, dtype=torch.bool, device=boundary_R.device)
    return ~is_padding_R.bool()


def _check_rows(rows: int, **columns: Tensor | None) -> None:
    for name, column in columns.items():
        if column is not None and column.shape != (rows,):
            raise ValueError(f"{name} must hold one entry for each of {rows} rows, got shape {tuple(column.shape)}")
