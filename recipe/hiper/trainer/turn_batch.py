# SPDX-License-Identifier: Apache-2.0
"""The rows of a training batch as episodes: rows in any order -> `[episodes, turns]` grids.

A row is one turn of one episode (one training sample). Notation, shapes in names:
    _R   rows, in any order     _ET  [episodes, turns] grid     _L  response tokens, right-padded
Rows made up to fill a batch (`is_padding`) never take part in anything.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agent_system.plan_execute.protocol import Problem
from agent_system.rollout.records import TurnRecord
from recipe.hiper.estimators.grids import TurnGrids
from recipe.hiper.estimators.values import ValueSlot

_NUMPY_DTYPE = {torch.long: np.int64, torch.float32: np.float32}
UNREADABLE_SWITCH = {Problem.MISSING_SWITCH.value, Problem.UNKNOWN_SWITCH.value}


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

    @cached_property
    def _cell(self) -> Tensor:
        """Index of each turn in the flattened grid, `[turns]`."""
        return self.valid.flatten().nonzero().squeeze(1)

    @cached_property
    def _row(self) -> Tensor:
        """Index of each turn among the rows, in the order of `_cell`, `[turns]`."""
        return self.row_ET.flatten()[self._cell]

    def first_rows(self) -> list[int]:
        """Row of each episode's first turn."""
        return self.row_ET[:, 0].tolist() if self.valid.numel() else []

    def to_grid(self, x_R: Tensor) -> Tensor:
        """Order one value per row as `[episodes, turns]`; zero (False) outside valid cells."""
        if x_R.shape != (self.rows,):
            raise ValueError(f"expected one value for each of {self.rows} rows, got shape {tuple(x_R.shape)}")
        grid = torch.zeros(self.valid.numel(), dtype=x_R.dtype, device=x_R.device)
        grid[self._cell] = x_R[self._row]
        return grid.view(self.valid.shape)

    def to_rows(self, x_ET: Tensor) -> Tensor:
        """The inverse: one value per row; zero (False) on padding rows."""
        if x_ET.shape != self.valid.shape:
            raise ValueError(f"expected a grid of shape {tuple(self.valid.shape)}, got {tuple(x_ET.shape)}")
        rows = torch.zeros(self.rows, dtype=x_ET.dtype, device=x_ET.device)
        rows[self._row] = x_ET.flatten()[self._cell]
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
        retries: attempts that a fault ended before these episodes were played, by its source.
    """

    records: list[TurnRecord]
    episode: list[str]
    is_padding: Tensor
    is_bootstrap: Tensor
    value_low: Tensor
    spans: Tensor
    grid: EpisodeGrid
    generations_after_end: list[int]
    retries: Counter[str]
    _columns: dict[tuple[str, torch.dtype], Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What `column` has read."""

    @classmethod
    def from_fields(cls, keys: list[str], padding: list[bool], extra_fields: list[dict]) -> BatchTurns:
        """Build from row keys "{uid}_{session}_{index}", padding marks and the rows' `extra_fields`."""
        records = [TurnRecord.from_fields(fields) for fields in extra_fields]
        episode = [key.rsplit("_", 1)[0] for key in keys]
        is_padding = torch.tensor(padding)
        is_bootstrap = _column(records, "bootstrap") & ~is_padding
        number = {name: index for index, name in enumerate(dict.fromkeys(episode))}
        value_low = _column(records, "value_low", torch.long)
        ranges = chain.from_iterable(record.spans for record in records)
        ends = np.fromiter(chain.from_iterable(ranges), dtype=np.int64, count=6 * len(records))
        spans = torch.from_numpy(ends).view(len(records), 3, 2)
        # A padding row has one response token; positions copied from a real row would be outside it.
        value_low[is_padding] = 0
        spans[is_padding] = 0
        grid = episode_grid(
            torch.tensor([number[name] for name in episode]),
            _column(records, "turn", torch.long),
            is_padding | is_bootstrap,
        )
        first_rows = grid.first_rows()
        after_end = [int(extra_fields[row].get("generations_after_end", 0)) for row in first_rows]
        retries = Counter[str]()
        for row in first_rows:
            retries.update(extra_fields[row].get("retries", {}))
        return cls(records, episode, is_padding, is_bootstrap, value_low, spans, grid, after_end, retries)

    def column(self, name: str, dtype: torch.dtype = torch.bool) -> Tensor:
        """One attribute of the records as a tensor, `[rows]`; read once, so do not write to it."""
        key = (name, dtype)
        if key not in self._columns:
            self._columns[key] = _column(self.records, name, dtype)
        return self._columns[key]

    def on_grid(self, name: str, dtype: torch.dtype = torch.bool) -> Tensor:
        """One attribute of the records, `[episodes, turns]`."""
        return self.grid.to_grid(self.column(name, dtype))

    @cached_property
    def well_formed(self) -> Tensor:
        """Rows whose reply keeps to the format."""
        return _as_tensor([not record.problems for record in self.records])

    @property
    def is_turn(self) -> Tensor:
        """Rows that are turns of an episode."""
        return ~(self.is_padding | self.is_bootstrap)

    @property
    def malformed(self) -> Tensor:
        """Turns whose reply breaks the format, `[rows]`."""
        return ~self.well_formed & self.is_turn

    @property
    def inadmissible(self) -> Tensor:
        """Turns whose action the environment did not offer, `[rows]`."""
        return ~self.column("admissible") & self.is_turn

    def episodes(self) -> list[list[int]]:
        """Row indices of each episode's turns, in order."""
        lengths = self.grid.valid.sum(dim=1).tolist()
        return [rows[:length] for rows, length in zip(self.grid.row_ET.tolist(), lengths, strict=True)]


def _column(records: list[TurnRecord], name: str, dtype: torch.dtype = torch.bool) -> Tensor:
    return _as_tensor(list(map(attrgetter(name), records)), dtype)


def _as_tensor(numbers: list[Any], dtype: torch.dtype = torch.bool) -> Tensor:
    """The same as `torch.tensor`, which takes three to six times as long for a long list."""
    if dtype is torch.bool:
        return torch.frombuffer(bytearray(numbers), dtype=dtype) if numbers else torch.zeros(0, dtype=dtype)
    return torch.from_numpy(np.fromiter(numbers, dtype=_NUMPY_DTYPE[dtype], count=len(numbers)))


def switch_probability(log_probs_RL: Tensor, turns: BatchTurns) -> Tensor:
    """P(SWITCH | s_t, o_{t-1}) of each turn, read off the tokens of its switch block.

    The probability of the block that was written is the product over its tokens; the block of the other word has the
    rest, up to replies that break the format. Without a readable switch block there is no decision to speak of, nor
    with a SWITCH that sets no sub-goal and is carried out as KEEP: 0, which gives the turn no switch advantage under
    "termination" and no part of `switch_cost`. Anything else would credit what was written with the opposite.

    Args:
        log_probs_RL: log-probabilities of the response tokens, `[rows, tokens]`.
    """
    tokens = log_probs_RL.shape[1]
    # NumPy compares short integers several times as fast as torch compares those of 64 bits.
    span = turns.spans[:, 0].numpy().clip(0, tokens).astype(np.min_scalar_type(-1 - tokens))
    start, end, position = span[:, :1], span[:, 1:], np.arange(tokens, dtype=span.dtype)
    inside = (position >= start) & (position < end)
    # All tokens are summed, zeros included: with the terms in other places the sum may differ in its last bit.
    written = torch.from_numpy(log_probs_RL.numpy() * inside).sum(dim=1).exp()
    has_block = torch.from_numpy((end > start).squeeze(1))
    wrote_switch = _as_tensor([record.switch == "SWITCH" for record in turns.records])
    readable = _as_tensor([UNREADABLE_SWITCH.isdisjoint(record.problems) for record in turns.records])
    carried_out = ~wrote_switch | turns.column("boundary")
    probability = torch.where(wrote_switch, written, 1.0 - written)
    return torch.where(has_block & readable & carried_out, probability, torch.zeros_like(probability))


def turn_grids(turns: BatchTurns, values: Tensor | None, beta: Tensor, bootstraps: bool) -> TurnGrids:
    """The batch as `[episodes, turns]` grids.

    Args:
        values: `[rows, 3]` by `ValueSlot`, or None.
        beta: P(SWITCH) of each turn, `[rows]`.
        bootstraps: whether the states after episodes that the step limit cut are valued. They then have rows.
    """
    grid = turns.grid
    number = {text: index for index, text in enumerate(dict.fromkeys(map(attrgetter("observation"), turns.records)))}
    groups = [turns.episode[row].rsplit("_", 1)[0] for row in turns.grid.first_rows()]
    group = {name: index for index, name in enumerate(dict.fromkeys(groups))}
    return TurnGrids(
        rewards=turns.on_grid("reward", torch.float32),
        valid=grid.valid,
        boundary=turns.on_grid("boundary"),
        copied_exactly=turns.on_grid("copied_exactly"),
        comparable=turns.on_grid("comparable"),
        well_formed=grid.to_grid(turns.well_formed),
        admissible=turns.on_grid("admissible"),
        terminated=turns.on_grid("terminated"),
        anchor=grid.to_grid(_as_tensor([number[record.observation] for record in turns.records], torch.long)),
        group=torch.tensor([group[name] for name in groups], dtype=torch.long),
        switch_probability=grid.to_grid(beta),
        values=torch.stack([grid.to_grid(values[:, slot]) for slot in ValueSlot], dim=-1)
        if values is not None
        else None,
        bootstrap=_bootstrap_values(turns, values) if values is not None and bootstraps else None,
    )


def _bootstrap_values(turns: BatchTurns, values: Tensor) -> Tensor:
    """Values of the state after each episode's last turn, `[episodes, 3]`; zero where the episode terminated.

    Raises:
        ValueError: an episode that the step limit cut has no row for that state. Counting it as 0 would treat cut
            episodes as lost ones.
    """
    by_episode = {turns.episode[row]: values[row] for row in turns.is_bootstrap.nonzero().squeeze(1).tolist()}
    result = torch.zeros(len(turns.grid.valid), len(ValueSlot), dtype=values.dtype)
    for index, rows in enumerate(turns.episodes()):
        name = turns.episode[rows[0]]
        if name in by_episode:
            result[index] = by_episode[name]
        elif not turns.records[rows[-1]].terminated:
            raise ValueError(f"episode {name} was cut by the step limit but has no row to bootstrap from")
    return result
