# SPDX-License-Identifier: Apache-2.0
"""From turns to tokens: shaping, estimator, whitening, token advantages, credit mask and value targets of a batch.

Notation, shapes in names: _R rows, in any order; _L response tokens, right-padded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recipe.hiper.configuration.settings import HiPERSettings
from recipe.hiper.estimators.registry import TurnAdvantages, estimate_advantages, find_estimator, whiten_advantages
from recipe.hiper.estimators.values import ValueSlot, check_rows
from recipe.hiper.trainer.turn_batch import BatchTurns, switch_probability, turn_grids


@dataclass(frozen=True)
class TokenCredit:
    """What the policy loss needs, `[rows, tokens]`.

    Attributes:
        advantages: zero off the credit mask.
        credit_mask: tokens that the policy loss and its KL and entropy terms reach, bool.
    """

    advantages: Tensor
    credit_mask: Tensor


def token_credit(
    adv_switch_R: Tensor,
    adv_subgoal_R: Tensor,
    adv_action_R: Tensor,
    boundary_R: Tensor,
    spans: Tensor,
    response_length: int,
    is_padding_R: Tensor | None = None,
    *,
    regularize_copies: bool = False,
) -> TokenCredit:
    """Give each token the advantage of the decision it writes.

    Switch block: every turn. Sub-goal block: boundary turns only (a KEEP turn only copies). Action block: every turn.
    All other tokens, and all tokens of padding rows, are off the credit mask.

    Args:
        adv_switch_R, adv_subgoal_R, adv_action_R: advantages of each turn, `[rows]`, one dtype.
        boundary_R: whether the turn opens a segment, `[rows]`.
        spans: half-open token ranges of the switch, sub-goal and action blocks (`protocol.TokenSpans`), disjoint,
            integer `[rows, 3, 2]`; an empty range such as (0, 0) where a block is absent.
        response_length: number of response tokens of the padded batch.
        is_padding_R: rows that only fill up the batch, `[rows]`.
        regularize_copies: leave the sub-goal block of a KEEP turn on the credit mask, with advantage zero, so that the
            KL and entropy terms reach it.

    Raises:
        ValueError: shapes differ, a span leaves the response, or two blocks of a row overlap.
    """
    rows = len(boundary_R)
    check_rows(
        rows, adv_switch=adv_switch_R, adv_subgoal=adv_subgoal_R, adv_action=adv_action_R, is_padding=is_padding_R
    )
    if spans.shape != (rows, 3, 2):
        raise ValueError(f"spans must be [rows, 3, 2] = {(rows, 3, 2)}, got {tuple(spans.shape)}")
    if rows and (int(spans.min()) < 0 or int(spans.max()) > response_length):
        raise ValueError(f"spans reach from {int(spans.min())} to {int(spans.max())}, outside 0..{response_length}")

    real_R = _real_rows(boundary_R, is_padding_R)
    opens_R = real_R & boundary_R.bool()
    blocks = (
        (adv_switch_R, real_R, real_R),
        (adv_subgoal_R, opens_R, real_R if regularize_copies else opens_R),
        (adv_action_R, real_R, real_R),
    )
    carried = [torch.where(carries_R, advantage_R, 0.0) for advantage_R, carries_R, _ in blocks]
    runs = _TokenRuns.of_spans(spans, response_length)
    return TokenCredit(
        advantages=runs.spread(torch.stack(carried, dim=1)),
        credit_mask=runs.spread(torch.stack([in_mask_R for _, _, in_mask_R in blocks], dim=1)),
    )


@dataclass(frozen=True)
class _TokenRuns:
    """All tokens of the rows, one row after the other, as runs: before, in and after each block, in turns.

    Writing run by run touches each token once.

    Attributes:
        lengths: tokens of each run, `[6 rows + 1]`; those with an odd index are blocks, three of each row.
        block: which block those three are, `[rows, 3]`: a malformed reply has them in any order.
        response_length: number of response tokens of the padded batch.
    """

    lengths: Tensor
    block: Tensor
    response_length: int

    @classmethod
    def of_spans(cls, spans: Tensor, response_length: int) -> _TokenRuns:
        """From the token ranges of the blocks, `[rows, 3, 2]`."""
        rows = len(spans)
        spans = spans.masked_fill((spans[..., 1] <= spans[..., 0])[..., None], 0)
        block = spans[..., 1].argsort(dim=1)  # by their ends, so that absent blocks (0, 0) come first
        edges = spans.gather(1, block[..., None].expand(-1, -1, 2)).view(rows, 6)
        edges = (edges + response_length * torch.arange(rows, device=spans.device)[:, None]).flatten()
        first, last = edges.new_zeros(1), edges.new_full((1,), rows * response_length)
        lengths = edges.diff(prepend=first, append=last)
        if int(lengths.min()) < 0:
            row = int((lengths < 0).nonzero()[0]) // 6
            raise ValueError(f"the blocks of row {row} overlap: its spans are {spans[row].tolist()}")
        return cls(lengths, block, response_length)

    def spread(self, x_RB: Tensor) -> Tensor:
        """Write the value of each block at its tokens, `[rows, 3]` -> `[rows, tokens]`; zero (False) elsewhere."""
        runs = x_RB.new_zeros(len(self.lengths))
        runs[1::2] = x_RB.gather(1, self.block).flatten()
        # NumPy repeats in half of the time of torch. The trainer's own tensors are in the CPU's memory.
        tokens = np.repeat(runs.numpy(), self.lengths.numpy())
        return torch.from_numpy(tokens).view(len(x_RB), self.response_length)


@dataclass(frozen=True)
class BatchCredit:
    """Everything an estimator decides about a batch.

    Attributes:
        turn_advantages: shaped rewards, advantages before whitening and value targets, `[episodes, turns]`.
        is_hierarchical: whether the three decisions of a turn have advantages of their own.
        values: the values used, `[rows, 3]` by `ValueSlot`; None without a critic.
        token_advantages, credit_mask: see `TokenCredit`, `[rows, tokens]`.
        value_targets, value_mask: `[rows, 3]` by `ValueSlot`.
        switch_probability: P(SWITCH) of each turn under the policy that sampled it, `[rows]`.
    """

    turn_advantages: TurnAdvantages
    is_hierarchical: bool
    values: Tensor | None
    token_advantages: Tensor
    credit_mask: Tensor
    value_targets: Tensor
    value_mask: Tensor
    switch_probability: Tensor


def batch_credit(
    turns: BatchTurns,
    values: Tensor | None,
    log_probs: Tensor,
    settings: HiPERSettings,
    is_response: Tensor | None = None,
    signs: torch.Generator | None = None,
) -> BatchCredit:
    """Shape the rewards, estimate the advantages, whiten them and assign them to tokens.

    With `hae` each block of a reply gets the advantage of its own decision. The other estimators give the advantage of
    the turn to every token of its reply.

    Args:
        turns: the batch.
        values: `[rows, 3]` by `ValueSlot`, read by `values.read_slots`; None without a critic.
        log_probs: of the response tokens under the sampling policy, `[rows, tokens]`.
        settings: HiPER's settings.
        is_response: which tokens of the padded responses are real, `[rows, tokens]`; None: all. Read without hierarchy.
        signs: generator of the random signs, read with `random_signs`.
    """
    config = settings.estimator
    entry = find_estimator(config.name)
    beta = switch_probability(log_probs, turns)
    bootstraps = entry.uses_bootstrap and config.hae.bootstrap_truncated
    grids = turn_grids(turns, values, beta, bootstraps)
    advantages = estimate_advantages(grids, config)
    grid = turns.grid
    rows = dict(
        zip(
            ("switch", "subgoal", "action"),
            map(grid.to_rows, whiten_advantages(grids, advantages, config)),
            strict=True,
        )
    )
    if settings.random_signs:
        rows = {
            name: advantage * (2 * torch.randint(2, advantage.shape, generator=signs) - 1)
            for name, advantage in rows.items()
        }
    if entry.is_hierarchical:
        credit = token_credit(
            rows["switch"],
            rows["subgoal"],
            rows["action"],
            grid.to_rows(grids.opens),
            turns.spans,
            log_probs.shape[1],
            ~turns.is_turn,
            regularize_copies=settings.regularize_copies,
        )
    else:
        mask = torch.ones_like(log_probs, dtype=torch.bool) if is_response is None else is_response.bool()
        mask = mask & turns.is_turn[:, None]
        credit = TokenCredit(advantages=rows["action"][:, None] * mask, credit_mask=mask)
    targets = [grid.to_rows(advantages.targets[..., slot]) for slot in ValueSlot]
    has_target = [grid.to_rows(advantages.has_target[..., slot]) for slot in ValueSlot]
    return BatchCredit(
        turn_advantages=advantages,
        is_hierarchical=entry.is_hierarchical,
        values=values,
        token_advantages=credit.advantages,
        credit_mask=credit.credit_mask,
        value_targets=torch.stack(targets, dim=1),
        value_mask=torch.stack(has_target, dim=1).float(),
        switch_probability=beta,
    )


def _real_rows(boundary_R: Tensor, is_padding_R: Tensor | None) -> Tensor:
    if is_padding_R is None:
        return torch.ones(boundary_R.shape, dtype=torch.bool, device=boundary_R.device)
    return ~is_padding_R.bool()
