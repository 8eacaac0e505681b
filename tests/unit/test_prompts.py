# SPDX-License-Identifier: Apache-2.0
"""What prompts show, what they give up over budget, and what they never give up."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace
from itertools import takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_system.plan_execute.memory import EpisodeMemory
from agent_system.plan_execute.prompts import (
    CUT_MARK,
    PromptLayout,
    PromptOverBudget,
    PromptParts,
    PromptStyle,
    fit_prompt,
    render_prompt,
)
from agent_system.plan_execute.protocol import decide, parse_flat, parse_reply

PARTS = PromptParts(
    task="put a clean mug in coffeemachine.",
    history=(("You arrive at shelf 1.\nYou see nothing.", "go to shelf 1"), ("You open drawer 2.", "open drawer 2")),
    turn=5,
    observation="On the countertop 1,\nyou see a mug 1.",
    subgoal="find mug",
    admissible_actions=("take mug 1 from countertop 1", "look"),
)
FIRST = PromptParts(PARTS.task, (), 0, PARTS.observation, "", PARTS.admissible_actions)


def words(text: str) -> int:
    return len(text.split())


def test_compact_prompt():
    assert render_prompt("plan_execute_compact", PARTS) == (
        "task: put a clean mug in coffeemachine.\n"
        "history: You arrive at shelf 1. You see nothing. > go to shelf 1\n"
        "You open drawer 2. > open drawer 2\n"
        "obs: On the countertop 1, you see a mug 1.\n"
        "subgoal: find mug\n"
        "actions: take mug 1 from countertop 1 | look\n"
    )


def test_compact_prompt_of_the_first_turn():
    assert render_prompt("plan_execute_compact", FIRST) == (
        "task: put a clean mug in coffeemachine.\n"
        "history: none\n"
        "obs: On the countertop 1, you see a mug 1.\n"
        "subgoal: none\n"
        "actions: take mug 1 from countertop 1 | look\n"
    )


def test_flat_compact_is_the_compact_prompt_without_the_subgoal():
    expected = render_prompt("plan_execute_compact", PARTS).replace("subgoal: find mug\n", "")
    assert render_prompt("flat_compact", PARTS) == expected


def test_full_prompt_shows_everything_with_turn_numbers_from_one():
    prompt = render_prompt("plan_execute", PARTS)
    for shown in (
        "You act in the ALFRED household environment.",
        "Your task: put a clean mug in coffeemachine.",
        "You have taken 5 turns so far.",
        "Turn 4. Observation: 'You arrive at shelf 1.\nYou see nothing.' Action: 'go to shelf 1'",
        "Turn 5. Observation: 'You open drawer 2.' Action: 'open drawer 2'",
        "on turn 6:\nOn the countertop 1,\nyou see a mug 1.",
        "Your current sub-goal: find mug",
        "'take mug 1 from countertop 1'\n'look'\n",
        "Write KEEP while",
    ):
        assert shown in prompt


def test_full_prompt_of_the_first_turn_has_no_history_and_asks_to_switch():
    prompt = render_prompt("plan_execute", FIRST)
    assert "so far" not in prompt
    assert "Your current sub-goal: none yet" in prompt
    assert "write SWITCH and set your first sub-goal" in prompt
    assert "Write KEEP while" not in prompt


def shared_beginning(*texts: str) -> str:
    return "".join(
        letters[0] for letters in takewhile(lambda letters: len(set(letters)) == 1, zip(*texts, strict=False))
    )


RULES_FIRST = [style for style in PromptStyle if style.has_rules_first]


@pytest.mark.parametrize("style", RULES_FIRST)
def test_rules_first_prompts_of_all_episodes_begin_with_the_rules(style):
    other = PromptParts("find two pens", (), 0, "A desk.", "", ("search[<your query>]",))
    shared = shared_beginning(*(render_prompt(style, parts) for parts in (PARTS, FIRST, other)))
    assert shared.endswith("\n\nYour task: ")
    for rule in ("<action>one admissible action</action>", "exactly one of the admissible actions"):
        assert rule in shared
    if style.has_subgoal:
        assert "While there is no sub-goal yet, write SWITCH" in shared and "Write KEEP while" in shared
        assert ("leave the sub-goal block out" in shared) == style.has_short_keep
        assert ("copy it unchanged" in shared) != style.has_short_keep


@pytest.mark.parametrize("style", RULES_FIRST)
def test_the_history_of_a_rules_first_prompt_grows_at_its_end(style):
    earlier = replace(PARTS, history=PARTS.history[:1], turn=1, observation="You open drawer 2.")
    shared = shared_beginning(render_prompt(style, earlier), render_prompt(style, replace(PARTS, turn=2)))
    assert shared.endswith("Turn 1. Observation: 'You arrive at shelf 1.\nYou see nothing.' Action: 'go to shelf 1'\n")


def test_rules_first_prompt_ends_with_what_changes():
    assert render_prompt("plan_execute_rules_first", PARTS).rpartition("Your task: ")[2] == (
        "put a clean mug in coffeemachine.\n\n"
        "The latest turns, oldest first:\n"
        "Turn 4. Observation: 'You arrive at shelf 1.\nYou see nothing.' Action: 'go to shelf 1'\n"
        "Turn 5. Observation: 'You open drawer 2.' Action: 'open drawer 2'\n\n"
        "What you observe now:\nOn the countertop 1,\nyou see a mug 1.\n\n"
        "This is turn 6.\n\n"
        "Your current sub-goal: find mug\n\n"
        "The admissible actions now:\n'take mug 1 from countertop 1'\n'look'\n"
    )
    shop = replace(FIRST, admissible_actions=("search[<your query>]",))
    assert render_prompt("plan_execute_rules_first", shop).endswith(
        "This is turn 1.\n\nYour current sub-goal: none yet\n\n"
        "The admissible actions now (with your own words in place of what stands between < and >):\n"
        "'search[<your query>]'\n"
    )


@pytest.mark.parametrize("style", PromptStyle)
def test_a_layout_changes_the_order_of_a_style_and_nothing_that_it_requires(style):
    first, last = (style.in_layout(layout) for layout in (PromptLayout.RULES_FIRST, PromptLayout.RULES_LAST))
    assert style in (first, last) and (first is last) == style.is_compact
    assert first.in_layout("rules_last") is last and last.in_layout("rules_first") is first
    assert not last.has_rules_first and first.has_rules_first != style.is_compact
    for attribute in ("has_subgoal", "has_short_keep", "is_compact", "asks_for_thoughts"):
        assert getattr(first, attribute) == getattr(last, attribute)
    assert first.with_short_keep is last.with_short_keep.in_layout("rules_first")
    with pytest.raises(ValueError, match="'rules_middle' is not a valid PromptLayout"):
        style.in_layout("rules_middle")


@pytest.mark.parametrize("style", ["flat", "flat_nothink", "flat_rules_first", "flat_nothink_rules_first"])
def test_flat_prompts_know_no_subgoals(style):
    prompt = render_prompt(style, PARTS)
    assert "sub-goal" not in prompt and "find mug" not in prompt and "<switch>" not in prompt
    assert ("<think>" in prompt) == PromptStyle(style).asks_for_thoughts


def test_each_style_shows_an_example_in_the_format_its_parser_wants():
    example = r"<switch>KEEP or SWITCH</switch>\n<subgoal>.*</subgoal>\n<action>.*</action>"
    shown = re.search(example, render_prompt("plan_execute", PARTS)).group()
    assert parse_reply(shown.replace("KEEP or SWITCH", "KEEP")).valid
    shown = re.search(r"<think>your.*</think>\n<action>.*</action>", render_prompt("flat", PARTS)).group()
    assert parse_flat(shown, PromptStyle.FLAT.asks_for_thoughts).valid
    shown = re.search(r"<action>.*</action>", render_prompt("flat_nothink", PARTS)).group()
    assert parse_flat(shown, PromptStyle.FLAT_NOTHINK.asks_for_thoughts).valid


@pytest.mark.parametrize("style", [PromptStyle.PLAN_EXECUTE, PromptStyle.PLAN_EXECUTE_COMPACT])
def test_short_keep_changes_the_rules_and_nothing_else(style):
    short = style.with_short_keep
    assert short.has_short_keep and short.has_subgoal and short.is_compact == style.is_compact
    assert short.with_short_keep is short and not style.has_short_keep
    assert render_prompt(short, FIRST) == render_prompt(style, FIRST), "there is nothing to keep yet"
    longer, shorter = render_prompt(style, PARTS), render_prompt(short, PARTS)
    if style.is_compact:
        assert shorter == longer
    else:
        assert "leave the sub-goal block out" in shorter and "copy it unchanged" not in shorter
        assert "</subgoal> (only after SWITCH)\n" in shorter


@pytest.mark.parametrize("style", [PromptStyle.FLAT, PromptStyle.FLAT_NOTHINK, PromptStyle.FLAT_COMPACT])
def test_flat_styles_have_no_short_form(style):
    assert style.with_short_keep is style


def test_the_environment_is_named_and_open_actions_are_explained():
    shop = PromptParts("buy a mug", (), 0, "WebShop", "", ("search[<your query>]", "click[search]"))
    prompt = render_prompt("plan_execute", shop, environment="the WebShop online shop")
    assert "You act in the WebShop online shop." in prompt
    assert "'search[<your query>]'\n'click[search]'" in prompt
    assert "your own words in place of what stands between < and >" in prompt
    assert "your own words" not in render_prompt("plan_execute", PARTS)


def test_unknown_style():
    with pytest.raises(ValueError, match="'verbose' is not a valid PromptStyle"):
        render_prompt("verbose", PARTS)


def test_history_longer_than_the_episode_is_refused():
    with pytest.raises(ValueError, match="turn 1 cannot have 2 earlier turns"):
        PromptParts("t", (("o", "a"), ("o", "a")), 1, "o", "", ())


LINE = st.lists(st.sampled_from(["mug", "1", "drawer", "12", "é", "put"]), min_size=1, max_size=6).map(" ".join)
OBSERVATION = st.lists(st.sampled_from(["mug ", "1, ", "drawer\n", "12. ", "\n\n"]), max_size=40).map("".join)


@st.composite
def any_parts(draw: st.DrawFn) -> PromptParts:
    history = tuple(draw(st.lists(st.tuples(st.none() | OBSERVATION, LINE), max_size=6)))
    return PromptParts(
        task="TASK " + draw(LINE),
        history=history,
        turn=len(history) + draw(st.integers(0, 2)),
        observation=draw(OBSERVATION),
        subgoal=draw(st.sampled_from(["", "SUBGOAL find mug"])),
        admissible_actions=tuple(draw(st.lists(LINE, min_size=1, max_size=5))),
    )


STYLES = st.sampled_from(list(PromptStyle))


@given(STYLES, any_parts(), st.integers(1, 400), st.sampled_from([words, len]))
def test_a_fitted_prompt_keeps_the_budget_and_all_that_matters(style, parts, budget, count):
    try:
        fitted = fit_prompt(style, parts, count, budget)
    except PromptOverBudget as error:
        assert error.needed > budget and error.budget == budget
        return
    assert fitted.tokens == count(fitted.text) <= budget
    assert parts.task in fitted.text
    assert all(action in fitted.text for action in parts.admissible_actions)
    if style.has_subgoal:
        assert parts.subgoal in fitted.text
    if not style.is_compact:
        assert fitted.text.endswith(render_prompt(style, parts).rpartition("\n\n")[2])
        assert "<action>one admissible action</action>" in fitted.text
    if not fitted.observation_cut and not fitted.dropped_turns:
        assert fitted.text == render_prompt(style, parts)


@given(STYLES, any_parts(), st.data())
def test_no_more_is_given_up_than_needed(style, parts, data):
    full = words(render_prompt(style, parts))
    budget = data.draw(st.integers(full // 3, full), label="budget")
    try:
        fitted = fit_prompt(style, parts, words, budget)
    except PromptOverBudget:
        return
    if fitted.dropped_turns and not fitted.observation_cut:
        kept = parts.history[fitted.dropped_turns - 1 :]
        one_more_turn = PromptParts(
            parts.task, kept, parts.turn, parts.observation, parts.subgoal, parts.admissible_actions
        )
        assert words(render_prompt(style, one_more_turn)) > budget
    if fitted.observation_cut:
        assert fitted.dropped_turns == len(parts.history)
        # In words, one word of the observation is one unit of the budget.
        assert fitted.tokens == budget


def test_turns_go_before_the_observation_and_words_stay_whole():
    counted = []

    def count(text: str) -> int:
        counted.append(text)
        return len(text)

    observation = "drawer 12 " * 500
    parts = PromptParts("t", (("o", "a"),) * 40, 40, observation.strip(), "s", ("look",))
    whole = render_prompt("plan_execute_compact", PromptParts("t", (), 40, observation.strip(), "s", ("look",)))

    fitted = fit_prompt("plan_execute_compact", parts, count, len(whole) + 30)
    assert 0 < fitted.dropped_turns < 40 and not fitted.observation_cut

    counted.clear()
    fitted = fit_prompt("plan_execute_compact", parts, count, 200)
    assert fitted.dropped_turns == 40 and fitted.observation_cut
    shown = re.search(r"obs: (.*)\n", fitted.text).group(1)
    assert shown.endswith(CUT_MARK) and set(shown[: -len(CUT_MARK)].split()) == {"drawer", "12"}
    assert len(counted) < 20

    # The turn numbers that are left stay right.
    for style in ("plan_execute", "plan_execute_rules_first"):
        fitted = fit_prompt(style, parts, words, words(render_prompt(style, parts)) - 1)
        assert fitted.dropped_turns == 1 and "Turn 2. " in fitted.text and "Turn 1. " not in fitted.text


def test_a_prompt_that_cannot_fit_is_an_error_that_names_the_override():
    with pytest.raises(PromptOverBudget, match=r"data\.max_prompt_length=\d+$") as caught:
        fit_prompt("plan_execute", PARTS, words, 50)
    assert caught.value.budget == 50 < caught.value.needed < caught.value.full
    assert fit_prompt("plan_execute", PARTS, words, caught.value.needed).tokens == caught.value.needed
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.needed) == (str(caught.value), caught.value.needed)


def test_memory_keeps_the_last_turns_and_the_subgoal_in_force():
    memory = EpisodeMemory(history_length=2)
    replies = [("SWITCH", "find mug"), ("KEEP", "find cup"), ("SWITCH", "clean mug")]
    for turn, (switch, subgoal) in enumerate(replies):
        assert memory.turn == turn
        text = f"<switch>{switch}</switch><subgoal>{subgoal}</subgoal><action>act {turn}</action>"
        decision = decide(parse_reply(text), memory.turn, memory.subgoal)
        memory.record(decision, f"observation {turn}", f"act {turn}")
    assert memory.parts("now", ["look"], "task") == PromptParts(
        task="task",
        history=(("observation 1", "act 1"), ("observation 2", "act 2")),
        turn=3,
        observation="now",
        subgoal="clean mug",
        admissible_actions=("look",),
    )


@pytest.mark.parametrize(
    ("observations", "shown"),
    [(None, ["o0", "o1", "o2"]), (9, ["o0", "o1", "o2"]), (1, [None, None, "o2"]), (0, [None, None, None])],
)
def test_memory_shows_the_observations_of_the_latest_turns_only(observations, shown):
    memory = EpisodeMemory(history_length=3, history_observations=observations)
    for turn in range(3):
        memory.record(None, f"o{turn}", f"a{turn}")
    history = memory.parts("now", [], "task").history
    assert history == tuple((seen, f"a{turn}") for turn, seen in enumerate(shown))


@pytest.mark.parametrize(
    ("style", "lines"),
    [
        ("plan_execute_compact", ["history: > search[mug]", "A page. > click[blue]", "obs: now"]),
        ("plan_execute", ["Turn 1. Action: 'search[mug]'", "Turn 2. Observation: 'A page.' Action: 'click[blue]'"]),
        (
            "plan_execute_rules_first",
            ["Turn 1. Action: 'search[mug]'", "Turn 2. Observation: 'A page.' Action: 'click[blue]'"],
        ),
    ],
)
def test_a_turn_whose_observation_is_not_shown_has_its_action_alone(style, lines):
    memory = EpisodeMemory(history_length=2, history_observations=1)
    memory.record(None, "The start.", "search[mug]")
    memory.record(None, "A page.", "click[blue]")
    text = render_prompt(style, memory.parts("now", ["click[buy now]"], "buy a mug"))
    assert "\n".join(lines) in text
    assert "The start." not in text and "None" not in text


def test_memory_carries_a_kept_subgoal_unchanged():
    memory = EpisodeMemory(history_length=1)
    for switch, subgoal in (("SWITCH", "find mug"), ("KEEP", "find cup"), ("SWITCH", "")):
        text = f"<switch>{switch}</switch><subgoal>{subgoal}</subgoal><action>look</action>"
        memory.record(decide(parse_reply(text), memory.turn, memory.subgoal), "o", "look")
        assert memory.subgoal == "find mug"


def test_memory_without_history_and_of_a_flat_agent():
    memory = EpisodeMemory(history_length=0)
    memory.record(None, "o", "look")
    parts = memory.parts("now", [], "task")
    assert (parts.history, parts.turn, parts.subgoal) == ((), 1, "")
    with pytest.raises(ValueError, match=r"env\.history_length=-1 is negative"):
        EpisodeMemory(history_length=-1)
    with pytest.raises(ValueError, match=r"env\.history_observations=-1 is negative"):
        EpisodeMemory(history_length=1, history_observations=-1)
