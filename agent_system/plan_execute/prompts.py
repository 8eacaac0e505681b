# SPDX-License-Identifier: Apache-2.0
"""Prompts for text environments, and how they are made to fit a token budget.

A prompt is the state `s_t` of the algorithm: the task, the last turns, the current observation, the current sub-goal
(for plan-execute styles) and the admissible actions. Every style is rendered from the same `PromptParts`.

The text is the content of one user message; the caller applies the chat template.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

ALFRED = "the ALFRED household environment"
WEBSHOP = "the WebShop online store"
CUT_MARK = " ..."
BLANK = re.compile(r"<your [^<>]+>")
"""In an admissible action: what the agent writes in its own words, as in "search[<your query>]"."""


class PromptStyle(str, Enum):
    """How a prompt is worded, and so which reply format it requires."""

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

    @property
    def has_subgoal(self) -> bool:
        """Whether the prompt shows the current sub-goal and requires the three blocks."""
        return self in (PromptStyle.PLAN_EXECUTE, PromptStyle.PLAN_EXECUTE_COMPACT) or self.has_short_keep

    @property
    def has_short_keep(self) -> bool:
        """Whether a reply that keeps the sub-goal leaves its block out."""
        return self in (PromptStyle.PLAN_EXECUTE_SHORT, PromptStyle.PLAN_EXECUTE_COMPACT_SHORT)

    @property
    def with_short_keep(self) -> PromptStyle:
        """The same with the sub-goal block left out after KEEP; a flat style itself."""
        short = {
            PromptStyle.PLAN_EXECUTE: PromptStyle.PLAN_EXECUTE_SHORT,
            PromptStyle.PLAN_EXECUTE_COMPACT: PromptStyle.PLAN_EXECUTE_COMPACT_SHORT,
        }
        return short.get(self, self)

    @property
    def is_compact(self) -> bool:
        """Whether the prompt is a few labelled lines without instructions."""
        return self in (
            PromptStyle.PLAN_EXECUTE_COMPACT,
            PromptStyle.PLAN_EXECUTE_COMPACT_SHORT,
            PromptStyle.FLAT_COMPACT,
        )

    @property
    def asks_for_thoughts(self) -> bool:
        """Whether the reply must hold a think block (`protocol.parse_flat(require_think=...)`)."""
        return self is PromptStyle.FLAT


@dataclass(frozen=True)
class PromptParts:
    """Everything a prompt may show.

    Attributes:
        task: the task in words.
        history: (observation, action) of the turns just before this one, oldest first.
        turn: index of the current turn, from 0; at least `len(history)`.
        observation: what the environment shows now.
        subgoal: sub-goal in force; "" when there is none yet.
        admissible_actions: what the environment would understand now, in its own order.
    """

    task: str
    history: tuple[tuple[str, str], ...]
    turn: int
    observation: str
    subgoal: str
    admissible_actions: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.turn < len(self.history):
            raise ValueError(f"turn {self.turn} cannot have {len(self.history)} earlier turns in its history")


@dataclass(frozen=True)
class FittedPrompt:
    """A prompt within its budget.

    Attributes:
        text: the prompt.
        tokens: its length as counted by the caller's tokenizer.
        dropped_turns: how many of the oldest history turns were left out.
        observation_cut: whether the end of the current observation was left out.
    """

    text: str
    tokens: int
    dropped_turns: int
    observation_cut: bool


class PromptOverBudget(ValueError):
    """What a prompt may never lose (task, sub-goal, format rules, admissible actions) is longer than the budget.

    Attributes:
        needed: tokens of the shortest prompt that may be shown.
        full: tokens of the prompt with nothing left out.
        budget: tokens allowed.
    """

    def __init__(self, needed: int, full: int, budget: int) -> None:
        self.needed = needed
        self.full = full
        self.budget = budget
        super().__init__(
            f"a prompt needs {needed} tokens without any history and observation ({full} with them), but "
            f"data.max_prompt_length allows {budget}; the task, the sub-goal, the format rules and the admissible "
            f"actions are never cut. Try: data.max_prompt_length={full}"
        )

    def __reduce__(self) -> tuple[type[PromptOverBudget], tuple[int, int, int]]:
        # The default rebuilds from the message alone, which breaks on its way out of another process.
        return type(self), (self.needed, self.full, self.budget)


def render_prompt(style: PromptStyle | str, parts: PromptParts, *, environment: str = ALFRED) -> str:
    """Write the prompt with nothing left out.

    Args:
        style: a `PromptStyle` or its name.
        parts: what to show.
        environment: completes "You act in ..." in the full styles.

    Raises:
        ValueError: unknown style.
    """
    style = PromptStyle(style)
    return _render_compact(style, parts) if style.is_compact else _render_full(style, parts, environment)


def fit_prompt(
    style: PromptStyle | str,
    parts: PromptParts,
    count_tokens: Callable[[str], int],
    budget: int,
    *,
    environment: str = ALFRED,
) -> FittedPrompt:
    """Write the prompt within a budget of tokens.

    Whole history turns are left out first, the oldest first, only as many as needed; then the observation loses words
    from its end, marked with " ...". The task, the sub-goal, the format rules and the admissible actions always stay
    whole. The number of calls of `count_tokens` grows with the logarithm of the history's and the observation's length.

    Args:
        style: a `PromptStyle` or its name.
        parts: what to show.
        count_tokens: length of a prompt in tokens, including the chat template.
        budget: largest length allowed, in tokens (`data.max_prompt_length`).
        environment: completes "You act in ..." in the full styles.

    Raises:
        PromptOverBudget: even the prompt without history and observation is longer than the budget.
        ValueError: unknown style.
    """

    def attempt(dropped: int, observation: str) -> FittedPrompt:
        shown = replace(parts, history=parts.history[dropped:], observation=observation)
        text = render_prompt(style, shown, environment=environment)
        return FittedPrompt(text, count_tokens(text), dropped, observation != parts.observation)

    turns = len(parts.history)
    full = attempt(0, parts.observation)
    if full.tokens <= budget:
        return full
    fewer_turns = _first_fitting(lambda step: attempt(step + 1, parts.observation), turns, budget)
    if fewer_turns is not None:
        return fewer_turns

    # Cutting inside a word could change "drawer 12" to "drawer 1", so only whole words are removed.
    word_ends = [0, *(match.end() for match in re.finditer(r"\S+", parts.observation))][:-1]
    cut = [(parts.observation[:end] + CUT_MARK).lstrip() for end in reversed(word_ends)]
    shorter = _first_fitting(lambda step: attempt(turns, cut[step]), len(cut), budget)
    if shorter is not None:
        return shorter
    shortest = attempt(turns, cut[-1] if cut else parts.observation)
    raise PromptOverBudget(needed=shortest.tokens, full=full.tokens, budget=budget)


def _first_fitting(attempt: Callable[[int], FittedPrompt], attempts: int, budget: int) -> FittedPrompt | None:
    """The earliest of `attempts` ever shorter prompts that fits, by bisection; `None` when the shortest does not."""
    if attempts == 0:
        return None
    best = attempt(attempts - 1)
    if best.tokens > budget:
        return None
    low, high = 0, attempts - 1
    while low < high:
        middle = (low + high) // 2
        candidate = attempt(middle)
        if candidate.tokens <= budget:
            best, high = candidate, middle
        else:
            low = middle + 1
    return best


def _flatten(text: str) -> str:
    return " ".join(text.split())


def _render_compact(style: PromptStyle, parts: PromptParts) -> str:
    turns = [f"{_flatten(observation)} > {_flatten(action)}" for observation, action in parts.history]
    lines = [
        f"task: {_flatten(parts.task)}",
        "history: " + ("\n".join(turns) or "none"),
        f"obs: {_flatten(parts.observation)}",
    ]
    if style.has_subgoal:
        lines.append(f"subgoal: {_flatten(parts.subgoal) or 'none'}")
    lines.append("actions: " + " | ".join(parts.admissible_actions))
    return "\n".join(lines) + "\n"


def _render_full(style: PromptStyle, parts: PromptParts, environment: str) -> str:
    sections = [
        f"You act in {environment}. Each turn you read what happened and reply; your action is then carried out.",
        f"Your task: {parts.task}",
    ]
    if parts.turn > 0:
        sections.append(_history_section(parts))
    sections.append(f"What you observe now, on turn {parts.turn + 1}:\n{parts.observation}")
    if style.has_subgoal:
        sections.append(f"Your current sub-goal: {parts.subgoal or 'none yet'}")
    listed = "\n".join(f"'{action}'" for action in parts.admissible_actions)
    sections.append(f"The admissible actions now:\n{listed}")
    sections.append(_format_rules(style, parts))
    return "\n\n".join(sections) + "\n"


def _history_section(parts: PromptParts) -> str:
    turns_so_far = f"You have taken {parts.turn} {'turn' if parts.turn == 1 else 'turns'} so far."
    if not parts.history:
        return turns_so_far
    first = parts.turn - len(parts.history) + 1
    lines = [
        f"Turn {number}. Observation: '{observation}' Action: '{action}'"
        for number, (observation, action) in enumerate(parts.history, start=first)
    ]
    return "\n".join([f"{turns_so_far} The latest, oldest first:", *lines])


def _format_rules(style: PromptStyle, parts: PromptParts) -> str:
    action = "exactly one of the admissible actions, without the quotes"
    if any(BLANK.search(admissible) for admissible in parts.admissible_actions):
        action += ", with your own words in place of what stands between < and >"
    if not style.has_subgoal:
        return _flat_rules(style, action)

    may_leave_out = style.has_short_keep and bool(parts.subgoal)
    if parts.subgoal:
        kept = "leave the sub-goal block out" if may_leave_out else "copy it unchanged into the sub-goal block"
        choice = (
            f"Write KEEP while the current sub-goal is not reached and still makes sense, and then {kept}. Write "
            "SWITCH when it is reached, has become impossible or no longer serves the task, and then give the new "
            "sub-goal."
        )
    else:
        choice = "There is no sub-goal to keep yet: write SWITCH and set your first sub-goal."
    return "\n".join(
        [
            f"Reply with these {'' if may_leave_out else 'three '}blocks, in this order, once each, and nothing else:",
            "<switch>KEEP or SWITCH</switch>",
            "<subgoal>the sub-goal to follow now</subgoal>" + (" (only after SWITCH)" if may_leave_out else ""),
            "<action>one admissible action</action>",
            "",
            "What they mean:",
            f"- <switch> says whether you go on with the current sub-goal or set a new one. {choice}",
            "- <subgoal> is a short phrase naming the next intermediate result the task needs; it usually takes "
            "several turns to reach.",
            f"- <action> is the next step towards that sub-goal: {action}.",
        ]
    )


def _flat_rules(style: PromptStyle, action: str) -> str:
    if style.asks_for_thoughts:
        return "\n".join(
            [
                "First reason step by step about the situation inside <think> </think>. Then choose your next step and "
                f"write it inside <action> </action>: {action}. Write nothing outside these two blocks:",
                "<think>your reasoning</think>",
                "<action>one admissible action</action>",
            ]
        )
    return "\n".join(
        [
            f"Choose your next step: {action}. Reply with this one block and nothing else:",
            "<action>one admissible action</action>",
        ]
    )
