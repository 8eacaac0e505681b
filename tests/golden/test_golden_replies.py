# SPDX-License-Identifier: Apache-2.0
"""Replies are read as they were recorded: decisions, problems and token spans."""

from __future__ import annotations

import golden_files as files
import golden_values as values
import pytest
from golden_cases import REPLIES

RECORDED = files.read(files.REPLIES)
BATCHES = files.read(files.EPISODES)


def differences(recorded: dict, actual: dict) -> list[str]:
    """A line for each entry that differs."""
    return [
        f"{key}: recorded {recorded.get(key)!r}, now {actual.get(key)!r}"
        for key in recorded | actual
        if recorded.get(key) != actual.get(key)
    ]


def test_the_single_replies_are_those_of_the_cases():
    assert ["".join(reply["pieces"]) for reply in RECORDED] == list(REPLIES)


@pytest.mark.parametrize("number", range(len(RECORDED)))
def test_single_replies(number):
    recorded = RECORDED[number]
    (actual,) = values.replies([recorded["pieces"]])
    lines = [
        f"{name}: {line}"
        for name in recorded["read"]
        for line in differences(recorded["read"][name], actual["read"].get(name, {}))
    ]
    if lines:
        pytest.fail("\n".join(["".join(recorded["pieces"]), *lines]), pytrace=False)
    assert actual == recorded


@pytest.mark.parametrize("name", BATCHES)
def test_replies_of_recorded_episodes(name):
    batch = BATCHES[name]
    lines = []
    for episode in batch["episodes"]:
        for number, actual in enumerate(values.episode_replies(batch["format"], episode)):
            turn = episode["turns"][number]
            flat = {"action sent": turn["action"], "admissible": turn["admissible"], **turn["reply"]}
            now = {"action sent": actual["action"], "admissible": actual["admissible"], **actual["reply"]}
            lines += [f"{episode['name']} turn {number}: {line}" for line in differences(flat, now)]
    assert not lines, "\n".join(lines[:20])


def test_the_recorded_episodes_are_varied():
    """What the other golden tests rely on: lengths, outcomes, problems."""
    turns = [turn for batch in BATCHES.values() for episode in batch["episodes"] for turn in episode["turns"]]
    lengths = {len(episode["turns"]) for batch in BATCHES.values() for episode in batch["episodes"]}
    assert lengths >= {1, 2, 3, 4, 5, 6, 8, 9, 11, 12}
    assert {turn["stop"] for turn in turns} == {"", "won", "failed", "step_limit"}
    assert {problem for turn in turns for problem in turn["reply"]["problems"]} == {
        "missing_switch",
        "unknown_switch",
        "missing_subgoal",
        "empty_subgoal",
        "missing_think",
        "missing_action",
        "empty_action",
        "unclosed_block",
        "duplicate_block",
        "wrong_order",
        "nested_tag",
        "text_outside",
        "cjk_character",
    }
    kept = [turn["reply"] for turn in turns if not turn["reply"]["boundary"]]
    assert {(reply["copied_exactly"], reply["comparable"]) for reply in kept} == {
        (copied, comparable) for copied in (True, False) for comparable in (True, False)
    }
    assert any(reply["switch"] == "SWITCH" for reply in kept), "a SWITCH without sub-goal"
    assert {turn["admissible"] for turn in turns} == {True, False}
    assert all(any(row["padding"] for row in batch["rows"]) for batch in BATCHES.values())
    assert all(any(episode["after"] for episode in batch["episodes"]) for batch in BATCHES.values())
