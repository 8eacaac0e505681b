# SPDX-License-Identifier: Apache-2.0
"""Which actions count as admissible."""

from __future__ import annotations

import pytest

from agent_system.plan_execute.admissible import as_listed, is_admissible

SHOP = ["search[<your query>]", "click[< prev]", "click[next >]", "click[<b>]"]


@pytest.mark.parametrize(
    ("action", "admissible"),
    [
        ("search[red tea]", True),
        (" Search[Red Tea] ", True),
        ("search[]", False),
        ("search[<your query>]", False),  # nothing is filled in
        ("search[tea", False),
        ("click[< prev]", True),
        ("click[next >]", True),
        ("click[<b>]", True),
        ("click[<i>]", False),
        ("click[tea]", False),
        ("", False),
    ],
)
def test_a_blank_is_filled_in_and_everything_else_is_taken_literally(action, admissible):
    assert is_admissible(action, SHOP) == admissible


@pytest.mark.parametrize(
    ("action", "meant"),
    [
        ("click[wine light blue]", "click[wine  light blue]"),  # a reply loses the second space
        ("click[wine  light blue]", "click[wine  light blue]"),
        ("click[light blue]", "click[light blue]"),
        ("click[wine]", "click[wine]"),
        ("search[two  words]", "search[two  words]"),
    ],
)
def test_an_action_is_found_in_the_list_in_spite_of_runs_of_spaces(action, meant):
    assert as_listed(action, ["search[<your query>]", "click[light blue]", "click[wine  light blue]"]) == meant


@pytest.mark.parametrize("typed", ["Go North", "go north", "GO NORTH"])
def test_capital_letters_in_the_list_of_an_environment_count_for_nothing(typed):
    assert is_admissible(typed, ["Go North", "Say <your Word>"])
    assert as_listed(typed, ["Go North"]) == "Go North"
    assert is_admissible("say hello", ["Go North", "Say <your Word>"])
    assert not is_admissible("Say <your Word>", ["Go North", "Say <your Word>"])
    assert as_listed("Say Hello", ["Say <your Word>"]) == "Say Hello"
