# SPDX-License-Identifier: Apache-2.0
"""From turns to tokens: shaping, estimator, whitening, token advantages, loss mask and value targets of a batch.

Notation, shapes in names: _R rows, in any order; _L response tokens, right-padded.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recipe.hiper.configuration.settings import HiPERSettings
from recipe.hiper.estimators.registry import Estimate, estimate, whitened
from recipe.hiper.estimators.values import Head, check_rows
from recipe.hiper.trainer.turn_batch import BatchTurns, switch_probability, turn_grids


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
    check_rows(rows, adv_switch=adv_switch_R, adv_high=adv_high_R, adv_low=adv_low_R, is_padding=is_padding_R)
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


@dataclass(frozen=True)
class TurnCredit:
    """Everything an estimator decides about a batch.

    Attributes:
        estimate: shaped rewards, advantages before whitening and value targets, `[episodes, turns]`.
        is_hierarchical: whether the three decisions of a turn have advantages of their own.
        values: the values used, `[rows, 3]` by `credit.Head`; None without a critic.
        token_advantages, token_mask: `[rows, tokens]`.
        value_targets, value_mask: `[rows, 3]` by `credit.Head`.
        switch_probability: P(SWITCH) of each turn under the policy that sampled it, `[rows]`.
    """

    estimate: Estimate
    is_hierarchical: bool
    values: Tensor | None
    token_advantages: Tensor
    token_mask: Tensor
    value_targets: Tensor
    value_mask: Tensor
    switch_probability: Tensor


def turn_credit(
    turns: BatchTurns,
    values: Tensor | None,
    log_probs: Tensor,
    settings: HiPERSettings,
    is_response: Tensor | None = None,
    signs: torch.Generator | None = None,
) -> TurnCredit:
    """Shape the rewards, estimate the advantages, whiten them and hand them to tokens.

    With `hae` each block of a reply gets the advantage of its own decision. The other estimators give the advantage of
    the turn to every token of its reply.

    Args:
        turns: the batch.
        values: `[rows, 3]` by `credit.Head`, read by `credit.read_slots`; None without a critic.
        log_probs: of the response tokens under the sampling policy, `[rows, tokens]`.
        settings: HiPER's settings.
        is_response: which tokens of the padded responses are real, `[rows, tokens]`; None: all. Read without hierarchy.
        signs: generator of the random signs, read with `random_signs`.
    """
    beta = switch_probability(log_probs, turns)
    grids = turn_grids(turns, values, beta, settings.estimator.hae.bootstrap_truncated)
    found = estimate(grids, settings.estimator)
    grid = turns.grid
    rows = dict(
        zip(("switch", "high", "low"), map(grid.to_rows, whitened(grids, found, settings.estimator)), strict=True)
    )
    if settings.random_signs:
        rows = {
            name: advantage * (2 * torch.randint(2, advantage.shape, generator=signs) - 1)
            for name, advantage in rows.items()
        }
    if settings.estimator.is_hierarchical:
        credit = token_credit(
            rows["switch"],
            rows["high"],
            rows["low"],
            grid.to_rows(grids.opens),
            turns.spans,
            log_probs.shape[1],
            ~turns.is_turn,
            regularize_copies=settings.regularize_copies,
        )
    else:
        mask = torch.ones_like(log_probs, dtype=torch.bool) if is_response is None else is_response.bool()
        mask = mask & turns.is_turn[:, None]
        credit = TokenCredit(advantages=rows["low"][:, None] * mask, loss_mask=mask)
    return TurnCredit(
        estimate=found,
        is_hierarchical=settings.estimator.is_hierarchical,
        values=values,
        token_advantages=credit.advantages,
        token_mask=credit.loss_mask,
        value_targets=torch.stack([grid.to_rows(found.targets[..., slot]) for slot in Head], dim=1),
        value_mask=torch.stack([grid.to_rows(found.has_target[..., slot]) for slot in Head], dim=1).float(),
        switch_probability=beta,
    )


def _real_rows(boundary_R: Tensor, is_padding_R: Tensor | None) -> Tensor:
    if is_padding_R is None:
        return torch.ones(boundary_R.shape, dtype=torch.bool, device=boundary_R.device)
    return ~is_padding_R.bool()
