# SPDX-License-Identifier: Apache-2.0
"""Many episodes at once: by the policy, and by a scripted player whose episodes are its warm start.

Shapes in names: `_E` episodes, `_ET` `[episodes, turns]`, right-padded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recipe.hiper.toy.agent import Policy
from recipe.hiper.toy.game import BACK, DELIVER, DOORS, ENTER, ON, REWARD, TAKE, Spot
from recipe.hiper.toy.tables import NONE, Tables, decisions

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class TurnView:
    """What a player decides on in a turn, `[episodes]` each: the state (scripted players only), the turn, the
    observation and the sub-goal before the switch decision."""

    state: Ints
    turn: int
    observation: Ints
    kept: Ints


@dataclass(frozen=True)
class TurnReply:
    """What a player writes, `[episodes]` each: SWITCH (1) or KEEP (0), a sub-goal from 1 on, and the log-probability of
    SWITCH. `act` returns the action when it is known which sub-goal is in force."""

    switch: Ints
    subgoal: Ints
    switch_probability: NDArray[np.float64]
    act: Callable[[Ints], Ints]


Player = Callable[[TurnView], TurnReply]


@dataclass(frozen=True)
class EpisodeBatch:
    """Episodes, `[episodes, turns]` each unless another shape is named; zero outside `valid`.

    Attributes:
        state, observation: numbers of `Tables`.
        kept, subgoal: the sub-goal before the turn and in force on it.
        boundary: whether it opens a segment.
        switch, written, action: what the reply wrote; `written` is read on boundaries.
        switch_probability: P(SWITCH) under the policy that played.
        won: `[episodes]`.
    """

    state: Ints
    observation: Ints
    kept: Ints
    subgoal: Ints
    boundary: NDArray[np.bool_]
    switch: Ints
    written: Ints
    action: Ints
    switch_probability: NDArray[np.float64]
    reward: NDArray[np.float32]
    valid: NDArray[np.bool_]
    terminated: NDArray[np.bool_]
    admissible: NDArray[np.bool_]
    won: NDArray[np.bool_]

    def tensor(self, name: str) -> Tensor:
        """One of the arrays as a tensor."""
        return torch.from_numpy(getattr(self, name))

    @property
    def switch_rate(self) -> float:
        """Share of SWITCH among the turns on which there is a choice: all but the first of each episode."""
        later = self.valid[:, 1:]
        return float(self.boundary[:, 1:][later].mean()) if later.any() else float("nan")

    @property
    def segment_length(self) -> float:
        """Mean turns of a segment."""
        return float(self.valid.sum() / (self.boundary & self.valid).sum())


def play(tables: Tables, tasks_E: Ints, player: Player) -> EpisodeBatch:
    """Play one episode from each first state, to its end or the horizon.

    A KEEP reply repeats the kept sub-goal word for word; `TurnReply.subgoal` is what a SWITCH would write.
    """
    boundaries, in_force = decisions(tables.house)
    state, kept = tasks_E.copy(), np.full(len(tasks_E), NONE)
    running = np.ones(len(tasks_E), dtype=bool)
    turns = []
    for turn in range(tables.house.horizon):
        view = TurnView(state, turn, tables.observation[state], kept)
        reply = player(view)
        written = np.where(reply.switch == 1, reply.subgoal, kept)
        later = min(turn, 1)
        # On turn 0 there is nothing to repeat: a KEEP there still writes a sub-goal.
        written = np.where(written == NONE, reply.subgoal, written)
        boundary = boundaries[later, reply.switch, written, kept]
        subgoal = in_force[later, reply.switch, written, kept]
        action = reply.act(subgoal)
        turns.append(
            (
                state, view.observation, kept, subgoal, boundary, reply.switch, written, action,
                reply.switch_probability, tables.reward[state, action], running.copy(),
                tables.terminated[state, action], tables.admissible[state, action],
            )
        )  # fmt: skip
        running &= ~turns[-1][11]
        state, kept = tables.next_state[state, action], subgoal
        if not running.any():
            break
    columns = [np.stack(column, axis=1) for column in zip(*turns, strict=True)]
    valid = columns[10]
    columns = [np.where(valid, column, np.zeros((), dtype=column.dtype)) for column in columns]
    columns.append(columns[9].sum(axis=1) >= REWARD)  # won
    return EpisodeBatch(*columns)


class LearnedPlayer:
    """Samples from a policy.

    Args:
        sees_kept: whether the sub-goal is written with the kept one in sight, as a language model's is, whose prompt
            shows it; else as in the paper, pi(o_t | s_t).
        plans: False for the flat format, in which switch and sub-goal are not written.
        forced: see `variants.Variant`.
    """

    def __init__(
        self,
        tables: Tables,
        policy: Policy,
        rng: np.random.Generator,
        *,
        sees_kept: bool,
        plans: bool = True,
        forced: bool | None = None,
    ):
        with torch.no_grad():
            logits = policy(tables.features)
        switch, subgoal, action = (part.double().exp().numpy() for part in vars(logits).values())
        self._switch, self._subgoal, self._action = switch[:, 1], subgoal.cumsum(axis=1), action.cumsum(axis=1)
        if forced is not None:
            self._switch = np.full_like(self._switch, float(forced))
        self._tables, self._rng, self._sees_kept, self._plans = tables, rng, sees_kept, plans

    def __call__(self, view: TurnView) -> TurnReply:
        prompt = self._tables.prompt
        size = len(view.kept)
        # Always as many draws, so that runs with one seed differ in their policies alone.
        draws = self._rng.random((3, size))

        def act(subgoal: Ints) -> Ints:
            return _pick(self._action[prompt[view.observation, subgoal]], draws[2])

        if not self._plans:
            return TurnReply(np.ones(size, dtype=np.int64), np.ones(size, dtype=np.int64), np.ones(size), act)
        probability = self._switch[prompt[view.observation, view.kept]]
        shown = view.kept if self._sees_kept else np.full(size, NONE)
        subgoal = 1 + _pick(self._subgoal[prompt[view.observation, shown]], draws[1])
        return TurnReply((draws[0] < probability).astype(np.int64), subgoal, probability, act)


@dataclass(frozen=True)
class ScriptedPlayer:
    """Reads clues into sub-goals and walks to the room of the sub-goal, with mistakes.

    Attributes:
        misread: probability of writing a random sub-goal in place of the clue's.
        slip: probability of a random action, offered or not.
        whim: probability of a SWITCH where there is nothing to read.
        repeat: probability that it writes the kept sub-goal once more, instead of a random one.
        forgets: walks without looking at the sub-goal.
    """

    tables: Tables
    rng: np.random.Generator
    misread: float = 0.0
    slip: float = 0.0
    whim: float = 0.0
    repeat: float = 0.5
    forgets: bool = False

    def __call__(self, view: TurnView) -> TurnReply:
        size, house = len(view.state), self.tables.house
        clue = self.tables.clue[view.state]
        news = (clue >= 0) & (clue + 1 != view.kept)
        anything = self.rng.integers(1, len(house.subgoals) + 1, size)
        again = (self.rng.random(size) < self.repeat) & (view.kept != NONE)
        subgoal = np.where(again, view.kept, anything)
        read = (clue >= 0) & (self.rng.random(size) >= self.misread)
        subgoal = np.where(read, clue + 1, subgoal)
        switch = np.where(news, 1.0, self.rng.random(size) < self.whim).astype(np.int64)
        if view.turn == 0:
            switch[:] = 1

        def act(in_force: Ints) -> Ints:
            if self.forgets:
                in_force = np.full(size, NONE)
            steps = zip(view.state, in_force, strict=True)
            action = np.array([house.actions.index(self._towards(int(state), int(room) - 1)) for state, room in steps])
            slipped = self.rng.random(size) < self.slip
            return np.where(slipped, self.rng.integers(0, len(house.actions), size), action)

        return TurnReply(switch, subgoal, np.full(size, 0.5), act)

    def _towards(self, number: int, room: int) -> str:
        """The next step to a room; without one, an action towards an end, at random where the text is not enough."""
        state = self.tables.states[number]
        size = self.tables.house.size
        knows = 0 <= room < size
        if state.spot is Spot.HALL:
            return ENTER
        if state.spot is Spot.LANDING:
            return DOORS[room if knows else int(self.rng.integers(size))]
        if state.spot is Spot.PASSAGE:
            continues = state.door == room if knows else not state.carrying or self.rng.random() < 0.5
            return ON if continues else BACK
        if (state.door != room) if knows else state.label_shows:
            return BACK
        return DELIVER if state.carrying else TAKE


def _pick(cumulative: NDArray[np.float64], draw_E: NDArray[np.float64]) -> Ints:
    """Sample rows of cumulative probabilities, `[episodes, choices]`."""
    scaled = draw_E[:, None] * cumulative[:, -1:]
    return (cumulative <= scaled).sum(axis=1).clip(max=cumulative.shape[1] - 1)
