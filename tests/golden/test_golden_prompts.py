# SPDX-License-Identifier: Apache-2.0
"""The prompts of both environments in every style, with and without a budget, to the character."""

from __future__ import annotations

from difflib import unified_diff

import adapter
import golden_files as files
import golden_values as values
import pytest

RECORDED = files.read(files.PROMPTS)
BATCHES = files.read(files.EPISODES)


def test_every_style_is_recorded_for_both_environments():
    expected = {f"{environment}.{style}" for environment in values.ENVIRONMENTS for style in adapter.styles()}
    assert set(RECORDED["cases"]) == expected
    assert {path.stem for path in files.PROMPT_TEXTS.glob("*.txt")} == expected


def test_environments_have_the_recorded_sentences_and_styles():
    assert adapter.styles_of_environments() == RECORDED["styles"]


@pytest.mark.parametrize("name", RECORDED["cases"])
def test_prompts(name):
    environment, style = name.split(".")
    episode = values.transcript(RECORDED, BATCHES, environment, style)
    recorded = (files.PROMPT_TEXTS / f"{name}.txt").read_text(encoding="utf-8")
    actual = values.prompt_text(style, environment, episode, RECORDED["cases"][name])
    if actual != recorded:
        lines = unified_diff(recorded.splitlines(), actual.splitlines(), "recorded", "now", lineterm="", n=1)
        pytest.fail(f"the prompts {name} changed\n" + "\n".join(list(lines)[:60]), pytrace=False)


@pytest.mark.parametrize("name", RECORDED["cases"])
def test_budgets_take_every_kind_of_thing_away(name):
    """Nothing, a turn, a part of the observation, and more than there is."""
    recorded = (files.PROMPT_TEXTS / f"{name}.txt").read_text(encoding="utf-8")
    for loss in (
        "dropped_turns 0, observation_cut False",
        "dropped_turns 1, observation_cut False",
        "dropped_turns 2, observation_cut True",
        "needed ",
    ):
        assert f": {loss}" in recorded or f", {loss}" in recorded, loss
