# SPDX-License-Identifier: Apache-2.0
"""One turn, the same for training, evaluation and demonstrations:

    prompt -> reply -> parse -> decision -> action as listed -> admissible? -> memory

The player of an episode holds an `EpisodeAgent` and an environment:

    agent.observe(observation, admissible_actions, task)
    prompt = agent.prompt(count_tokens, budget)
    turn = agent.take(reply_text)
    observation, reward, terminated, truncated, info = env.step(turn.action)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent_system.plan_execute.admissible import as_listed, is_admissible
from agent_system.plan_execute.cjk import shown_cjk
from agent_system.plan_execute.memory import EpisodeMemory
from agent_system.plan_execute.prompts import ALFRED, FittedPrompt, PromptParts, PromptStyle, fit_prompt, render_prompt
from agent_system.plan_execute.protocol import Decision, Reply, decide, parse_flat, parse_reply


@dataclass(frozen=True)
class Turn:
    """One reply and its effect.

    Attributes:
        index: index of the turn in its episode, from 0.
        observation: what the prompt of this turn showed.
        reply: the parsed reply.
        decision: its effect on the sub-goal; None for a flat style, which has no sub-goals.
        action: what the environment is to do; the text of an admissible action where the reply means one.
        admissible: whether `action` is one of the admissible actions.
    """

    index: int
    observation: str
    reply: Reply
    decision: Decision | None
    action: str
    admissible: bool

    @property
    def opens_segment(self) -> bool:
        """Whether the turn opens a segment. Every turn of a flat style is a separate segment."""
        return self.decision is None or self.decision.boundary


class EpisodeAgent:
    """The agent's side of one episode: what it sees, and what its replies do.

    Args:
        style: prompt style, and with it the reply format.
        history_length, history_observations: see `EpisodeMemory`.
        environment: completes "You act in ..." in the full styles.
        reply_style: format in which replies are read; by default that of `style`. A demonstrator decides in all three
            blocks, whatever the style of the prompts that are written down.
    """

    def __init__(
        self,
        style: PromptStyle,
        history_length: int,
        environment: str = ALFRED,
        *,
        history_observations: int | None = None,
        reply_style: PromptStyle | None = None,
    ) -> None:
        self._style = style
        self._reply_style = reply_style or style
        self._environment = environment
        self._memory = EpisodeMemory(history_length, history_observations)
        self._view: PromptParts | None = None
        self._shown_cjk: frozenset[str] = frozenset()
        """Of the whole episode, so that a sub-goal that was copied from an earlier page can be kept."""

    @property
    def style(self) -> PromptStyle:
        """Style of the prompts."""
        return self._style

    @property
    def turn(self) -> int:
        """Index of the turn to be played now, from 0."""
        return self._memory.turn

    @property
    def subgoal(self) -> str:
        """Sub-goal in force before the turn to be played now; "" when there is none."""
        return self._memory.subgoal

    def observe(self, observation: str, admissible: Sequence[str], task: str) -> None:
        """Take in what the environment shows before the turn to be played now."""
        self._view = self._memory.parts(observation, admissible, task)
        self._shown_cjk |= shown_cjk((task, observation, *admissible))

    def prompt(self, count_tokens: Callable[[str], int], budget: int) -> FittedPrompt:
        """The prompt of this turn within a budget of tokens; see `prompts.fit_prompt`.

        Raises:
            PromptOverBudget: what a prompt may never lose is longer than the budget.
        """
        return fit_prompt(self._style, self._observed(), count_tokens, budget, environment=self._environment)

    def whole_prompt(self) -> str:
        """The prompt of this turn with nothing left out."""
        return render_prompt(self._style, self._observed(), environment=self._environment)

    def take(self, text: str, *, action: str | None = None) -> Turn:
        """Read a reply and play it: the sub-goal in force and the history change, and the next turn starts.

        Args:
            text: the reply, which may be malformed.
            action: what is done instead of the reply's action, word for word (a demonstrator's slip).
        """
        view = self._observed()
        reply, decision = self._read(text)
        if action is None:
            action = as_listed(reply.action, view.admissible_actions)
        turn = Turn(
            index=view.turn,
            observation=view.observation,
            reply=reply,
            decision=decision,
            action=action,
            admissible=is_admissible(action, view.admissible_actions),
        )
        self._memory.record(decision, view.observation, action)
        self._view = None
        return turn

    def _observed(self) -> PromptParts:
        if self._view is None:
            raise RuntimeError(f"turn {self.turn}: `observe` comes before `prompt` and `take`")
        return self._view

    def _read(self, text: str) -> tuple[Reply, Decision | None]:
        style = self._reply_style
        if not style.has_subgoal:
            return parse_flat(text, require_think=style.asks_for_thoughts, shown=self._shown_cjk), None
        short_keep = style.has_short_keep and bool(self.subgoal)
        reply = parse_reply(text, short_keep=short_keep, shown=self._shown_cjk)
        return reply, decide(reply, self.turn, self.subgoal)
