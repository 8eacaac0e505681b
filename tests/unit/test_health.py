# SPDX-License-Identifier: Apache-2.0
"""The alarm about the hierarchy, on histories written by hand."""

from __future__ import annotations

import re

import pytest
from made_config import check, composed

from recipe.hiper.configuration.overrides import check_overrides
from recipe.hiper.run_dir.hierarchy_monitor import (
    ALARM_STEPS,
    ALWAYS_SWITCH,
    NEVER_SWITCH,
    REMEDIES,
    Degeneration,
    HierarchyAlarm,
    hierarchy_alarm,
    hierarchy_alarms,
)

ALWAYS, NEVER = Degeneration.ALWAYS_SWITCH, Degeneration.NEVER_SWITCH


def history(*rates, first: int = 1, **more) -> list[dict]:
    """Rows of metrics.jsonl, one a step."""
    return [{"step": first + index, "rollout/switch_rate": rate, **more} for index, rate in enumerate(rates)]


@pytest.mark.parametrize(
    ("rates", "alarm"),
    [
        ((0.5, 0.97, 0.99, 1.0), HierarchyAlarm(ALWAYS, since=2, until=4)),
        ((0.95, 0.95, 0.95), HierarchyAlarm(ALWAYS, since=1, until=3)),
        ((0.3, 0.02, 0.0, 0.01, 0.0), HierarchyAlarm(NEVER, since=2, until=5)),
        ((0.3, 0.5, 0.7), None),
        ((0.96, 0.97), None),  # two steps may be chance
        ((0.96, 0.94, 0.97, 0.98), None),  # not in a row
        ((0.0, 0.03, 0.0, 0.0), None),
        ((1.0, 1.0, 0.0, 0.0), None),  # extreme, but not the same extreme
        ((1.0, 1.0, 1.0, 0.5), None),  # it is over
        ((1.0, 1.0, 1.0, 0.0, 0.0, 0.0), HierarchyAlarm(NEVER, since=4, until=6)),
        ((), None),
    ],
)
def test_several_steps_in_a_row_must_look_the_same(rates, alarm):
    assert hierarchy_alarm(history(*rates)) == alarm


def test_all_alarms_of_a_run_are_known_later():
    rates = [0.2, 1.0, 1.0, 1.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.3, 1.0]
    assert hierarchy_alarms(history(*rates)) == [HierarchyAlarm(ALWAYS, 2, 4), HierarchyAlarm(NEVER, 6, 9)]


@pytest.mark.parametrize("empty", [{"val/success_rate": 0.5}, {"rollout/switch_rate": None}])
def test_rows_without_a_switch_rate_are_passed_over(empty):
    """A resumed run evaluates on a step of its own; an episode of one turn has no decision."""
    rows = [{"step": 0, **empty}, *history(1.0, 1.0), {"step": 3, **empty}, *history(1.0, first=4)]
    assert hierarchy_alarm([*rows, {"step": 5, **empty}]) == HierarchyAlarm(ALWAYS, since=1, until=4)


def test_a_flat_agent_raises_no_alarm():
    assert hierarchy_alarm([{"step": step, "rollout/success_rate": 0.5} for step in range(9)]) is None


@pytest.mark.parametrize(
    ("episode_length", "segment_length", "alarm"),
    [
        (3.6, 3.5, True),
        (50.0, 45.0, True),  # one episode in nine changes its sub-goal
        (50.0, 25.0, False),  # every episode does, once in its 50 turns
        (50.0, 33.4, True),  # just below one in two
        (50.0, 33.3, False),
    ],
)
def test_in_long_episodes_few_switches_are_a_plan(episode_length, segment_length, alarm):
    lengths = {"rollout/episode_length": episode_length, "hierarchy/segment_length": segment_length}
    assert (hierarchy_alarm(history(0.02, 0.02, 0.02, **lengths)) is not None) is alarm
    # Lengths do not excuse the other extreme: with a SWITCH on every turn they follow from it.
    assert hierarchy_alarm(history(1.0, 1.0, 1.0, **lengths)) is not None


def test_the_text_stays_while_the_alarm_lasts():
    """A caller that prints it when it changes prints it once."""
    rates = [1.0] * ALARM_STEPS
    texts = {hierarchy_alarm(history(0.5, *rates, *more)).text for more in ([], [0.96], [0.99, 1.0])}
    (text,) = texts
    assert "\n" not in text and len(text) < 360
    assert "since step 2" in text and f"{ALWAYS_SWITCH:.0%}" in text and "Try: under hae algorithm/hae=living" in text
    never = hierarchy_alarm(history(0.0, 0.0, 0.0)).text
    assert "since step 1" in never and f"{NEVER_SWITCH:.0%}" in never and "entropy_coeff" in never


@pytest.mark.parametrize("kind", Degeneration)
def test_what_the_alarm_advises_can_be_typed(kind):
    """Every override names a key that exists and a value that the checks of a run accept."""
    overrides = re.findall(r"[\w/.]+=[-\w.]*\w", REMEDIES[kind])
    assert len(overrides) >= 4
    check_overrides(["profile=cpu", *overrides])
    for override in overrides:
        if "/" not in override:  # a preset, which `check_overrides` has looked at
            check(composed(override))


def test_the_advice_spells_the_preset_out():
    """What the preset sets and the shipped configuration does not, word for word."""
    preset = composed(preset="living")
    spelled_out = REMEDIES[ALWAYS].split(", that is ")[1].split(";")[0].split()
    assert preset.algorithm.hae == composed(*spelled_out).algorithm.hae


def test_the_two_advices_are_not_mixed_up():
    """The price of KEEP pushes towards SWITCH, the price of SWITCH away from it."""
    assert "switch_cost=0.3" in REMEDIES[ALWAYS] and "keep_penalty=0 " in REMEDIES[ALWAYS]
    assert "switch_cost=0," in REMEDIES[NEVER] and "keep_penalty=-" in REMEDIES[NEVER]
