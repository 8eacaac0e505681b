# SPDX-License-Identifier: Apache-2.0
"""The running state of one episode on the agent's side."""

from __future__ import annotations

from collections.abc import Sequence

from agent_system.plan_execute.prompts import PromptParts
from agent_system.plan_execute.protocol import Decision


class EpisodeMemory:
    """What the agent carries from turn to turn: the last turns, the sub-goal in force and the turn index.

    Args:
        history_length: how many of the latest turns a prompt may show (`env.history_length`).
        history_observations: for how many of the latest of these the observation is shown before the action
            (`env.history_observations`); None: for all.

    Raises:
        ValueError: a number is negative.
    """

    def __init__(self, history_length: int, history_observations: int | None = None) -> None:
        if history_length < 0:
            raise ValueError(
                f"env.history_length={history_length} is negative. Try: env.history_length=0 for no history"
            )
        if history_observations is not None and history_observations < 0:
            raise ValueError(
                f"env.history_observations={history_observations} is negative. Try: env.history_observations=0 for "
                "actions only"
            )
        self._history_length = history_length
        self._observations = history_length if history_observations is None else history_observations
        self._history: tuple[tuple[str, str], ...] = ()
        self._subgoal = ""
        self._turn = 0

    @property
    def turn(self) -> int:
        """Index of the turn to be played now, from 0."""
        return self._turn

    @property
    def subgoal(self) -> str:
        """Sub-goal in force before the turn to be played now; "" when there is none."""
        return self._subgoal

    def parts(self, observation: str, admissible: Sequence[str], task: str) -> PromptParts:
        """What the prompt of the turn to be played now may show."""
        hidden = len(self._history) - self._observations
        history = ((None if age < hidden else seen, done) for age, (seen, done) in enumerate(self._history))
        return PromptParts(
            task=task,
            history=tuple(history),
            turn=self._turn,
            observation=observation,
            subgoal=self._subgoal,
            admissible_actions=tuple(admissible),
        )

    def record(self, decision: Decision | None, observation: str, action: str) -> None:
        """Close the turn played just now and go to the next.

        Args:
            decision: what `protocol.decide` made of the reply; `None` for a flat agent, which has no sub-goals.
            observation: what the prompt of that turn showed.
            action: the text that the environment received.
        """
        kept = len(self._history) + 1 - self._history_length
        self._history = (*self._history, (observation, action))[max(0, kept) :]
        if decision is not None:
            self._subgoal = decision.subgoal
        self._turn += 1
