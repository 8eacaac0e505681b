# SPDX-License-Identifier: Apache-2.0
"""A prompt within a budget, for any history and observation: what is left out, what is whole, what is an error."""

from __future__ import annotations

import math
import re
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_system.plan_execute.prompts import (
    CUT_MARK,
    PromptOverBudget,
    PromptParts,
    PromptStyle,
    fit_prompt,
    render_prompt,
)
from agent_system.plan_execute.turn import EpisodeAgent

TEMPLATE_TOKENS = 19


def pieces(text: str) -> int:
    """Like a tokenizer with a chat template: long words have several tokens, characters of other scripts one each."""
    words = re.findall(r"[\x00-\x7f]+|.", text, re.DOTALL)
    return TEMPLATE_TOKENS + sum(math.ceil(len(part) / 4) for word in words for part in word.split())


def words(text: str) -> int:
    return len(text.split())


COUNTERS = st.sampled_from([pieces, words, len])
WORD = st.one_of(
    st.sampled_from(["mug", "drawer", "12,", "'", "</action>", "<|im_end|>", "\u676f\u5b50", "x" * 90]),
    st.text(min_size=1, max_size=5),
)
TEXT = st.one_of(
    st.text(max_size=30),
    st.lists(st.tuples(WORD, st.sampled_from([" ", "\n", "\n\n", "  ", "\t", "\u2003"])), max_size=25).map(
        lambda pairs: "".join(word + gap for word, gap in pairs)
    ),
)
LINE = st.lists(WORD, min_size=1, max_size=4).map(lambda line: " ".join(" ".join(line).split())).filter(bool)


@st.composite
def any_parts(draw: st.DrawFn) -> PromptParts:
    history = tuple(draw(st.lists(st.tuples(st.none() | TEXT, TEXT), max_size=5)))
    return PromptParts(
        task=draw(LINE),
        history=history,
        turn=len(history) + draw(st.integers(0, 2)),
        observation=draw(TEXT),
        subgoal=draw(st.just("") | LINE),
        admissible_actions=tuple(draw(st.lists(LINE, min_size=1, max_size=5))),
    )


def cut_observations(observation: str) -> list[str]:
    """What may be shown of an observation: all of it, or whole words from its beginning and the mark."""
    ends = [match.end() for match in re.finditer(r"\S+", observation)]
    return [observation, *((observation[:end] + CUT_MARK).lstrip() for end in [0, *ends][:-1] if ends)]


@given(st.sampled_from(list(PromptStyle)), any_parts(), COUNTERS, st.data())
def test_all_but_old_turns_and_the_end_of_the_observation_is_whole(
    style: PromptStyle, parts: PromptParts, count: Callable[[str], int], data: st.DataObject
) -> None:
    full = count(render_prompt(style, parts))
    shortest = min(
        count(render_prompt(style, replace(parts, history=(), observation=shown)))
        for shown in cut_observations(parts.observation)
    )
    budget = data.draw(st.integers(max(1, min(shortest, full) - 3), full + 1))
    if budget < min(shortest, full):
        with pytest.raises(PromptOverBudget) as caught:
            fit_prompt(style, parts, count, budget)
        assert caught.value.full == full and caught.value.needed > budget
        return
    fitted = fit_prompt(style, parts, count, budget)
    assert fitted.tokens == count(fitted.text) <= budget
    # The prompt is that of the same parts with fewer turns and words, so everything else in it is whole.
    shown = replace(parts, history=parts.history[fitted.dropped_turns :])
    candidates = cut_observations(parts.observation) if fitted.observation_cut else [parts.observation]
    assert fitted.text in {render_prompt(style, replace(shown, observation=text)) for text in candidates}
    assert " ".join(parts.task.split()) in " ".join(fitted.text.split())
    listing = " | " if style.is_compact else "'\n'"
    assert listing.join(parts.admissible_actions) in fitted.text
    if style.has_subgoal and parts.subgoal:
        assert parts.subgoal in fitted.text
    assert not fitted.observation_cut or fitted.dropped_turns == len(parts.history)
    assert fitted.text == render_prompt(style, parts) or full > budget


PARTS = PromptParts("put a mug in shelf", (("A desk.", "look"),) * 3, 3, "A shelf.", "find mug", ("look", "inventory"))


@pytest.mark.parametrize("style", PromptStyle)
@pytest.mark.parametrize(
    "long",
    ["word " * 20_000, "x" * 100_000, "\u676f" * 20_000, "\n" * 100_000 + "a b"],
    ids=lambda t: repr(t[:2]),
)
def test_an_observation_of_any_length_and_form_is_never_an_error(style, long):
    calls = []

    def count(text: str) -> int:
        calls.append(text)
        return pieces(text)

    budget = pieces(render_prompt(style, replace(PARTS, history=(), observation="a b c ...")))
    fitted = fit_prompt(style, replace(PARTS, observation=long, history=((long, "look"),) * 3), count, budget)
    assert fitted.tokens <= budget and fitted.dropped_turns == 3 and len(calls) < 30
    assert PARTS.task in fitted.text and all(action in fitted.text for action in PARTS.admissible_actions)


def test_a_long_observation_needs_no_more_than_a_few_copies_of_it():
    """All its cuts at once were 60 MB for these 5,000 words, and more than most machines have for 100,000."""
    long = "word " * 5000
    tracemalloc.start()
    try:
        fitted = fit_prompt(PromptStyle.FLAT_COMPACT, replace(PARTS, observation=long), words, 200)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert fitted.observation_cut and fitted.tokens == 200
    assert peak < 60 * len(long)


@pytest.mark.parametrize(
    "change",
    [
        {"task": "find " * 300},
        {"subgoal": "find " * 300},
        {"admissible_actions": tuple(f"click[option {number}]" for number in range(300))},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_task_a_sub_goal_or_actions_over_budget_are_an_error_on_the_turn_that_shows_them(change):
    style = PromptStyle.PLAN_EXECUTE
    budget = words(render_prompt(style, PARTS)) + 100
    assert fit_prompt(style, PARTS, words, budget).tokens <= budget
    with pytest.raises(PromptOverBudget) as caught:
        fit_prompt(style, replace(PARTS, **change), words, budget)
    assert caught.value.needed > budget
    assert fit_prompt(style, replace(PARTS, **change), words, caught.value.needed).tokens == caught.value.needed


def test_a_policy_can_write_a_sub_goal_that_no_later_prompt_has_room_for():
    """The sub-goal has no limit but the length of a reply, so a budget must have room for `needed` plus one reply."""
    agent = EpisodeAgent(PromptStyle.PLAN_EXECUTE, history_length=2)
    agent.observe("A shelf.", ["look"], "put a mug in shelf")
    budget = agent.prompt(words, 10_000).tokens + 30
    agent.take(f"<switch>SWITCH</switch><subgoal>{'find ' * 200}</subgoal><action>look</action>")
    agent.observe("A shelf.", ["look"], "put a mug in shelf")
    with pytest.raises(PromptOverBudget):
        agent.prompt(words, budget)
