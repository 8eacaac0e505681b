# SPDX-License-Identifier: Apache-2.0
"""From the rows of a training batch to what the updates need: the one place where the pure functions are put together.

rows -> [episodes, turns] grids -> shaping and estimator -> whitening -> token advantages, loss mask, value targets
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from agent_system.plan_execute.protocol import Problem
from agent_system.rollout.records import TurnRecord
from recipe.hiper.credit import EpisodeGrid, Head, TokenCredit, episode_grid, token_credit
from recipe.hiper.estimate import Estimate, TurnGrids, estimate, whitened
from recipe.hiper.settings import HiPERSettings

UNREADABLE_SWITCH = {Problem.MISSING_SWITCH.value, Problem.UNKNOWN_SWITCH.value}


@dataclass(frozen=True)
class BatchTurns:
    """The turns of a batch. Attributes that are tensors have one entry per row, in the order of the batch.

    Attributes:
        records: the record of each row; rows that only fill up the batch hold a copy of a real one.
        episode: name of the episode ("{uid}_{session}") of each row.
        is_padding, is_bootstrap: rows that are no turns.
        value_low: where the low value is read, long.
        spans: token ranges of the three blocks, long `[rows, 3, 2]`.
        grid: the turns ordered as episodes.
        generations_after_end: generations each episode cost after its end, one entry per episode.
    """

    records: list[TurnRecord]
    episode: list[str]
    is_padding: Tensor
    is_bootstrap: Tensor
    value_low: Tensor
    spans: Tensor
    grid: EpisodeGrid
    generations_after_end: list[int]

    @classmethod
    def from_fields(cls, keys: list[str], padding: list[bool], extra_fields: list[dict]) -> BatchTurns:
        """Build from row keys "{uid}_{session}_{index}", padding marks and the rows' `extra_fields`."""
        records = [TurnRecord.from_fields(fields) for fields in extra_fields]
        episode = [key.rsplit("_", 1)[0] for key in keys]
        is_padding = torch.tensor(padding)
        is_bootstrap = torch.tensor([record.bootstrap for record in records]) & ~is_padding
        number = {name: index for index, name in enumerate(dict.fromkeys(episode))}
        value_low = torch.tensor([record.value_low for record in records])
        spans = torch.tensor([record.spans for record in records])
        # A padding row has one response token; positions copied from a real row would lie outside it.
        value_low[is_padding] = 0
        spans[is_padding] = 0
        grid = episode_grid(
            torch.tensor([number[name] for name in episode]),
            torch.tensor([record.turn for record in records]),
            is_padding | is_bootstrap,
        )
        first_rows = grid.row_ET[:, 0].tolist() if grid.valid.numel() else []
        after_end = [int(extra_fields[row].get("generations_after_end", 0)) for row in first_rows]
        return cls(records, episode, is_padding, is_bootstrap, value_low, spans, grid, after_end)

    def column(self, name: str, dtype: torch.dtype = torch.bool) -> Tensor:
        """One attribute of the records as a tensor, `[rows]`."""
        return torch.tensor([getattr(record, name) for record in self.records], dtype=dtype)

    def on_grid(self, name: str, dtype: torch.dtype = torch.bool) -> Tensor:
        """One attribute of the records, `[episodes, turns]`."""
        return self.grid.to_grid(self.column(name, dtype))

    @property
    def is_turn(self) -> Tensor:
        """Rows that are turns of an episode."""
        return ~(self.is_padding | self.is_bootstrap)

    @property
    def malformed(self) -> Tensor:
        """Turns whose reply breaks the format, `[rows]`."""
        return ~self.column("well_formed") & self.is_turn

    @property
    def inadmissible(self) -> Tensor:
        """Turns whose action the environment did not offer, `[rows]`."""
        return ~self.column("admissible") & self.is_turn

    def episodes(self) -> list[list[int]]:
        """Row indices of each episode's turns, in order."""
        return [row[valid].tolist() for row, valid in zip(self.grid.row_ET, self.grid.valid, strict=True)]


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


def switch_probability(log_probs_RL: Tensor, turns: BatchTurns) -> Tensor:
    """P(SWITCH | s_t, o_{t-1}) of each turn, read off the tokens of its switch block.

    The probability of the block that was written is the product over its tokens; the block of the other word has the
    rest, up to replies that break the format. Without a readable switch block there is no decision to speak of, nor
    with a SWITCH that sets no sub-goal and is carried out as KEEP: 0, which gives the turn no switch advantage under
    "termination" and no part of `switch_cost`. Anything else would credit what was written with the opposite.

    Args:
        log_probs_RL: log-probabilities of the response tokens, `[rows, tokens]`.
    """
    position = torch.arange(log_probs_RL.shape[1])
    inside = (position >= turns.spans[:, 0, :1]) & (position < turns.spans[:, 0, 1:])
    written = (log_probs_RL * inside).sum(dim=1).exp()
    wrote_switch = torch.tensor([record.switch == "SWITCH" for record in turns.records])
    readable = torch.tensor([UNREADABLE_SWITCH.isdisjoint(record.problems) for record in turns.records])
    carried_out = ~wrote_switch | turns.column("boundary")
    probability = torch.where(wrote_switch, written, 1.0 - written)
    return torch.where(inside.any(dim=1) & readable & carried_out, probability, torch.zeros_like(probability))


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


def turn_grids(turns: BatchTurns, values: Tensor | None, beta: Tensor, bootstrap_truncated: bool) -> TurnGrids:
    """The batch as `[episodes, turns]` grids.

    Args:
        values: `[rows, 3]` by `credit.Head`, or None.
        beta: P(SWITCH) of each turn, `[rows]`.
        bootstrap_truncated: whether the states after episodes that the step limit cut are valued.
    """
    grid = turns.grid
    observations = [record.observation for record in turns.records]
    number = {text: index for index, text in enumerate(dict.fromkeys(observations))}
    groups = [turns.episode[rows[0]].rsplit("_", 1)[0] for rows in turns.episodes()]
    group = {name: index for index, name in enumerate(dict.fromkeys(groups))}
    has_values = values is not None
    return TurnGrids(
        rewards=turns.on_grid("reward", torch.float32),
        valid=grid.valid,
        boundary=turns.on_grid("boundary"),
        copied_exactly=turns.on_grid("copied_exactly"),
        comparable=turns.on_grid("comparable"),
        well_formed=turns.on_grid("well_formed"),
        admissible=turns.on_grid("admissible"),
        terminated=turns.on_grid("terminated"),
        anchor=grid.to_grid(torch.tensor([number[text] for text in observations])),
        group=torch.tensor([group[name] for name in groups], dtype=torch.long),
        switch_probability=grid.to_grid(beta),
        values=torch.stack([grid.to_grid(values[:, slot]) for slot in Head], dim=-1) if has_values else None,
        bootstrap=_bootstrap_values(turns, values) if has_values and bootstrap_truncated else None,
    )


def _bootstrap_values(turns: BatchTurns, values: Tensor) -> Tensor:
    """Values of the state after each episode's last turn, `[episodes, 3]`; zero where the episode terminated.

    Raises:
        ValueError: an episode that the step limit cut has no row for that state. Counting it as 0 would treat cut
            episodes as lost ones.
    """
    by_episode = {turns.episode[row]: values[row] for row in turns.is_bootstrap.nonzero().squeeze(1).tolist()}
    result = torch.zeros(len(turns.grid.valid), len(Head), dtype=values.dtype)
    for index, rows in enumerate(turns.episodes()):
        name = turns.episode[rows[0]]
        if name in by_episode:
            result[index] = by_episode[name]
        elif not turns.records[rows[-1]].terminated:
            raise ValueError(f"episode {name} was cut by the step limit but has no row to bootstrap from")
    return result
