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

from agent_system.plan_execute.prompt_styles import PromptLayout, PromptParts, PromptStyle

__all__ = [
    "ALFRED",
    "BLANK",
    "WEBSHOP",
    "FittedPrompt",
    "PromptLayout",
    "PromptOverBudget",
    "PromptParts",
    "PromptStyle",
    "fit_prompt",
    "render_prompt",
]

ALFRED = "the ALFRED household environment"
WEBSHOP = "the WebShop online store"
CUT_MARK = " ..."
ONE_ACTION = "exactly one of the admissible actions, without the quotes"
OWN_WORDS = "with your own words in place of what stands between < and >"
BLANK = re.compile(r"<your [^<>]+>")
"""In an admissible action: what the agent writes in its own words, as in "search[<your query>]"."""


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

    def cut(step: int) -> str:
        # Made when it is tried: all of them together have the square of the observation's length.
        return (parts.observation[: word_ends[-1 - step]] + CUT_MARK).lstrip()

    shorter = _first_fitting(lambda step: attempt(turns, cut(step)), len(word_ends), budget)
    if shorter is not None:
        return shorter
    shortest = attempt(turns, cut(len(word_ends) - 1) if word_ends else parts.observation)
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
    turns = [
        f"> {_flatten(action)}" if observation is None else f"{_flatten(observation)} > {_flatten(action)}"
        for observation, action in parts.history
    ]
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
    role = f"You act in {environment}. Each turn you read what happened and reply; your action is then carried out."
    task = f"Your task: {parts.task}"
    subgoal = [f"Your current sub-goal: {parts.subgoal or 'none yet'}"] if style.has_subgoal else []
    listed = "\n".join(f"'{action}'" for action in parts.admissible_actions)
    blanks = any(BLANK.search(action) for action in parts.admissible_actions)
    if style.has_rules_first:
        sections = [role, _constant_rules(style), task]
        if parts.history:
            sections.append("\n".join(["The latest turns, oldest first:", *_history_lines(parts)]))
        sections += [f"What you observe now:\n{parts.observation}", f"This is turn {parts.turn + 1}.", *subgoal]
        sections.append(f"The admissible actions now{f' ({OWN_WORDS})' if blanks else ''}:\n{listed}")
    else:
        sections = [role, task]
        if parts.turn > 0:
            sections.append(_history_section(parts))
        sections += [f"What you observe now, on turn {parts.turn + 1}:\n{parts.observation}", *subgoal]
        sections += [f"The admissible actions now:\n{listed}", _rules_of_turn(style, parts, blanks)]
    return "\n\n".join(sections) + "\n"


def _history_section(parts: PromptParts) -> str:
    turns_so_far = f"You have taken {parts.turn} {'turn' if parts.turn == 1 else 'turns'} so far."
    if not parts.history:
        return turns_so_far
    return "\n".join([f"{turns_so_far} The latest, oldest first:", *_history_lines(parts)])


def _history_lines(parts: PromptParts) -> list[str]:
    first = parts.turn - len(parts.history) + 1
    return [
        f"Turn {number}. "
        + (f"Observation: '{observation}' " if observation is not None else "")
        + f"Action: '{action}'"
        for number, (observation, action) in enumerate(parts.history, start=first)
    ]


def _constant_rules(style: PromptStyle) -> str:
    """The format rules, in the same words on every turn of every episode."""
    if not style.has_subgoal:
        return _flat_rules(style, ONE_ACTION)
    kept = "leave the sub-goal block out" if style.has_short_keep else "copy it unchanged into the sub-goal block"
    choice = f"While there is no sub-goal yet, write SWITCH and set your first sub-goal. {_keep_or_switch(kept)}"
    return _plan_rules(choice, ONE_ACTION, may_leave_out=style.has_short_keep)


def _rules_of_turn(style: PromptStyle, parts: PromptParts, blanks: bool) -> str:
    """The format rules as far as they concern this turn."""
    action = f"{ONE_ACTION}, {OWN_WORDS}" if blanks else ONE_ACTION
    if not style.has_subgoal:
        return _flat_rules(style, action)
    may_leave_out = style.has_short_keep and bool(parts.subgoal)
    if parts.subgoal:
        kept = "leave the sub-goal block out" if may_leave_out else "copy it unchanged into the sub-goal block"
        choice = _keep_or_switch(kept)
    else:
        choice = "There is no sub-goal to keep yet: write SWITCH and set your first sub-goal."
    return _plan_rules(choice, action, may_leave_out=may_leave_out)


def _keep_or_switch(kept: str) -> str:
    return (
        f"Write KEEP while the current sub-goal is not reached and still makes sense, and then {kept}. Write SWITCH "
        "when it is reached, has become impossible or no longer serves the task, and then give the new sub-goal."
    )


def _plan_rules(choice: str, action: str, *, may_leave_out: bool) -> str:
    return "\n".join(
        [
            f"Reply with these {'' if may_leave_out else 'three '}blocks, in this order, once each, and nothing else:",
            "<switch>KEEP or SWITCH</switch>",
            "<subgoal>the sub-goal to follow now</subgoal>" + (" (only after SWITCH)" if may_leave_out else ""),
            "<action>one admissible action</action>",
            "",
            "What they mean:",
            f"- <switch> says whether you continue with the current sub-goal or set a new one. {choice}",
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
