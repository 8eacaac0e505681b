# SPDX-License-Identifier: Apache-2.0
"""The styles of a prompt: how it is worded, in which order it is written, and so which reply format it requires."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class PromptLayout(str, Enum):
    """Where the rules of the reply format stand in the full styles (`env.prompt_layout`)."""

    RULES_FIRST = "rules_first"
    """Rules, task, history, observation, turn number, sub-goal, admissible actions: what is constant comes first. All
    prompts begin with the same rules and those of an episode with the same task, which vLLM's prefix cache reuses."""
    RULES_LAST = "rules_last"
    """Task, number of turns, history, observation, sub-goal, admissible actions, rules: what is asked comes last."""


class PromptStyle(str, Enum):
    """How a prompt is worded, and so which reply format it requires.

    The compact styles have no rules, and what is constant comes first in them, so they have one layout.
    """

    PLAN_EXECUTE = "plan_execute"
    """Full instructions for an instruction-tuned model; replies in the three blocks of `protocol.parse_reply`."""
    PLAN_EXECUTE_COMPACT = "plan_execute_compact"
    """No instructions, a few labelled lines, for a small model that was taught the three blocks by demonstrations."""
    PLAN_EXECUTE_SHORT = "plan_execute_short"
    """As plan_execute, but without the sub-goal block after KEEP (`protocol.parse_reply(short_keep=True)`)."""
    PLAN_EXECUTE_COMPACT_SHORT = "plan_execute_compact_short"
    """As plan_execute_compact, for a small model that was shown replies without the sub-goal block after KEEP."""
    FLAT = "flat"
    """Full instructions without sub-goals; replies `<think>..</think><action>..</action>`."""
    FLAT_NOTHINK = "flat_nothink"
    """Full instructions without sub-goals; replies with the action block alone."""
    FLAT_COMPACT = "flat_compact"
    """The compact lines without the sub-goal, for a small model that replies with the action block alone."""
    PLAN_EXECUTE_RULES_FIRST = "plan_execute_rules_first"
    """As plan_execute, in the layout `PromptLayout.RULES_FIRST`; so are those below."""
    PLAN_EXECUTE_SHORT_RULES_FIRST = "plan_execute_short_rules_first"
    FLAT_RULES_FIRST = "flat_rules_first"
    FLAT_NOTHINK_RULES_FIRST = "flat_nothink_rules_first"

    @property
    def has_subgoal(self) -> bool:
        """Whether the prompt shows the current sub-goal and requires the three blocks."""
        return self.value.startswith("plan_execute")

    @property
    def has_short_keep(self) -> bool:
        """Whether a reply that keeps the sub-goal leaves its block out."""
        return self in _SHORT.values()

    @property
    def with_short_keep(self) -> PromptStyle:
        """The same with the sub-goal block left out after KEEP; a flat style itself."""
        return _SHORT.get(self, self)

    @property
    def is_compact(self) -> bool:
        """Whether the prompt is a few labelled lines without instructions."""
        return "compact" in self.value

    @property
    def asks_for_thoughts(self) -> bool:
        """Whether the reply must hold a think block (`protocol.parse_flat(require_think=...)`)."""
        return self in (PromptStyle.FLAT, PromptStyle.FLAT_RULES_FIRST)

    @property
    def has_rules_first(self) -> bool:
        """Whether the rules of the reply format stand before everything that changes."""
        return self in _RULES_FIRST.values()

    def in_layout(self, layout: PromptLayout | str) -> PromptStyle:
        """The same style in a layout; a compact style itself.

        Raises:
            ValueError: no such layout.
        """
        if PromptLayout(layout) is PromptLayout.RULES_FIRST:
            return _RULES_FIRST.get(self, self)
        return next((style for style, first in _RULES_FIRST.items() if first is self), self)


_SHORT = {
    PromptStyle.PLAN_EXECUTE: PromptStyle.PLAN_EXECUTE_SHORT,
    PromptStyle.PLAN_EXECUTE_COMPACT: PromptStyle.PLAN_EXECUTE_COMPACT_SHORT,
    PromptStyle.PLAN_EXECUTE_RULES_FIRST: PromptStyle.PLAN_EXECUTE_SHORT_RULES_FIRST,
}
_RULES_FIRST = {
    PromptStyle.PLAN_EXECUTE: PromptStyle.PLAN_EXECUTE_RULES_FIRST,
    PromptStyle.PLAN_EXECUTE_SHORT: PromptStyle.PLAN_EXECUTE_SHORT_RULES_FIRST,
    PromptStyle.FLAT: PromptStyle.FLAT_RULES_FIRST,
    PromptStyle.FLAT_NOTHINK: PromptStyle.FLAT_NOTHINK_RULES_FIRST,
}


@dataclass(frozen=True)
class PromptParts:
    """Everything a prompt may show.

    Attributes:
        task: the task in words.
        history: (observation, action) of the turns just before this one, oldest first. An observation that is None is
            not shown.
        turn: index of the current turn, from 0; at least `len(history)`.
        observation: what the environment shows now.
        subgoal: sub-goal in force; "" when there is none yet.
        admissible_actions: what the environment would understand now, in its own order.
    """

    task: str
    history: tuple[tuple[str | None, str], ...]
    turn: int
    observation: str
    subgoal: str
    admissible_actions: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.turn < len(self.history):
            raise ValueError(f"turn {self.turn} cannot have {len(self.history)} earlier turns in its history")
