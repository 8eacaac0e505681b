# SPDX-License-Identifier: Apache-2.0
"""Every rule of WebShop's score, with numbers worked out by hand; the quirks of the released simulator included."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_products import MUG, goal, product

from agent_system.environments.webshop.goals import Split
from agent_system.environments.webshop.reward import (
    COLORS,
    count_options_met,
    first_color,
    has_attribute,
    score_purchase,
    title_score,
    token_set_ratio,
    type_factor,
)

NOUNS = ["brava", "stoneware", "coffee", "mug"]


def scored(wanted, chosen=None, bought=MUG, price=14.5, split=Split.FIXED, nouns=NOUNS):
    return score_purchase(bought, chosen or {}, price, wanted, nouns, NOUNS, split)


def test_everything_right_is_exactly_one():
    wanted = goal({"color": "green2", "size": "large"}, ("long lasting", "lead free"))
    score = scored(wanted, {"size": "large", "color": "green2"})
    assert score.total == 1.0
    assert (score.type, score.attributes, score.options, score.price) == (1.0, 1.0, 1.0, True)
    assert (score.attributes_weight, score.options_weight, score.price_weight) == (2 / 5, 2 / 5, 1 / 5)


def test_parts_are_counted_together():
    """Two attributes of which one is found, two options of which one is met, and too high a price: 2 of 5."""
    wanted = goal({"color": "green2", "size": "large"}, ("long lasting", "gluten free"), price_upper=10.0)
    score = scored(wanted, {"color": "green2", "size": "x-large"})
    assert score.total == pytest.approx(2 / 5)
    assert (score.attributes, score.options, score.price) == (0.5, 0.5, False)


def test_a_price_at_the_bound_is_within_it():
    assert scored(goal(price_upper=14.5)).price and not scored(goal(price_upper=14.49)).price


def test_nothing_asked_for_has_no_share():
    score = scored(goal(attributes=()))
    assert (score.total, score.attributes, score.options) == (1.0, None, None)


def test_the_type_multiplies_the_sum():
    """Other query, one part of the category path in common, a fifth of the nouns: half of (1 attribute + price) / 2."""
    other = product(query="tea pots", product_category="Home & Kitchen › Tea › Pots", attributes=("long lasting",))
    score = scored(goal(), bought=other, nouns=["mug"])  # 1 of 4 nouns is more than 0.2
    assert (score.title_score, score.type, score.total) == (0.25, 1.0, 1.0)
    score = score_purchase(other, {}, 14.5, goal(), ["mug"], [*NOUNS, "cup"], Split.FIXED)  # 1 of 5 is not
    assert (score.title_score, score.type, score.total) == (0.2, 0.5, 0.5)


@pytest.mark.parametrize(
    ("query", "category", "title", "factor"),
    [
        (True, False, 0.15, 1.0),
        (False, True, 0.15, 1.0),
        (False, False, 0.21, 1.0),
        (False, False, 0.2, 0.5),
        (False, False, 0.1, 0.5),
        (False, False, 0.09, 0.1),
        (True, True, 0.09, 0.1),  # a title with little in common overrides both matches
        (True, True, 0.0, 0.0),  # and one with nothing in common makes the purchase worthless
    ],
)
def test_type_factor(query, category, title, factor):
    assert type_factor(query, category, title) == factor


def test_two_parts_of_the_category_path_in_any_order_match():
    moved = product(query="other", product_category="Mugs › Home & Kitchen", attributes=("long lasting",))
    assert scored(goal(), bought=moved).category_match
    moved = product(query="other", product_category="Mugs › Garden", attributes=("long lasting",))
    assert not scored(goal(), bought=moved).category_match


def test_title_score_counts_repeats_of_the_goal_only():
    assert title_score(["mug", "mug"], ["mug", "coffee", "mug", "mug"]) == 1 / 4
    assert title_score(["tea"], []) == 0.2


@pytest.mark.parametrize(
    "attribute",
    [
        "lasting long",  # the same words in another order
        "long lastings",  # 96: nearly the same
        "dishwasher safe",  # in the description, whatever its case
        "12 ounces",  # in a bullet
        "ounces lead",  # the bullets are joined before they are searched
        "stoneware coffee",  # in the title
    ],
)
def test_attributes_that_are_found(attribute):
    assert has_attribute(MUG, attribute)


def test_attributes_that_are_not_found():
    assert not has_attribute(MUG, "gluten free") and not has_attribute(MUG, "Dishwasher Safe cups")


def test_the_first_colour_in_the_list_is_what_a_phrase_stands_for():
    assert first_color("green-charcoal") == "charcoal"
    assert first_color("dash kit") == "ash"
    assert first_color("3-9x40mm bdc predator") == "red"
    assert first_color("size 12") == "size 12"
    assert list(COLORS) == sorted(COLORS) and len(set(COLORS)) == 102


# ---------------------------------------------------------------- options of synthetic goals


def test_fixed_options_are_exact():
    wanted = {"size": "x-large"}
    assert scored(goal(wanted), {"size": "x-large"}).options == 1.0
    assert scored(goal(wanted), {"size": "large"}).options == 0.0
    assert scored(goal(wanted), {"fit": "x-large"}).options == 0.0
    assert scored(goal({"color": "green2"}), {"color": "green2"}).options == 1.0


def test_legacy_options_are_the_released_simulators():
    def met(chosen, wanted):
        return count_options_met(chosen, wanted)

    assert met(["x-large"], {"size": "x-large"}) == 1
    assert met(["large"], {"size": "x-large"}) == 1  # its words are part of the goal's
    assert met(["large"], {"fit": "large"}) == 1  # the group does not count
    assert met(["green2"], {"color": "green2"}) == 0  # "green" is compared with "color green2"
    assert met(["black"], {"color": "plain black"}) == 1
    assert met(["blue"], {"color": "blue"}) == 1  # an element that is a colour stands for it
    assert met(["small"], {"color": "red", "size": "small"}) == 1
    assert met(["small"], {"size": "small", "inseam": "small"}) == 2  # one choice may serve several wishes
    assert met(["small", "x-small"], {"size": "small"}) == 1  # one wish counts once
    assert met([], {"size": "small"}) == 0


def test_legacy_goals_that_cannot_be_met():
    wanted = goal({"color": "green2"})
    assert scored(wanted, {"color": "green2"}, split=Split.LEGACY).total == pytest.approx(2 / 3)
    assert scored(wanted, {"color": "green2"}, split=Split.FIXED).total == 1.0


# ---------------------------------------------------------------- options of human goals


@pytest.mark.parametrize("split", Split)
def test_human_options_are_phrases_under_both_splits(split):
    assert scored(goal(("green2",)), {"color": "green2"}, split=split).options == 1.0
    assert scored(goal(("dark green",)), {"color": "light dark"}, split=split).options == 1.0  # both stand for "dark"
    assert scored(goal(("120 ml",)), {"size": "240 ml"}, split=split).options == 0.0  # 83


# ---------------------------------------------------------------- similarity of phrases


@pytest.mark.parametrize(
    ("first", "second", "ratio"),
    [
        ("small", "small", 100),
        ("small", "('size', 'small')", 100),
        ("new york mets", "mets new york", 100),
        ("abc", "abd", 67),  # 2 of 3 letters twice over 6
        ("", "small", 0),
        ("!?", "!?", 0),  # nothing is left of it
        ("café", "caf", 100),  # letters of the Latin-1 supplement are dropped
        ("black_style", "black style", 91),  # "_" is part of a word: 10 of 11 letters match
    ],
)
def test_token_set_ratio(first, second, ratio):
    assert token_set_ratio(first, second) == ratio


@given(st.text(max_size=30), st.text(max_size=30))
def test_token_set_ratio_is_a_percentage_and_words_of_a_subset_are_enough(first, second):
    ratio = token_set_ratio(first, second)
    assert 0 <= ratio <= 100
    if token_set_ratio(first, first):
        assert token_set_ratio(first, f"{first} {second}") == 100


# ---------------------------------------------------------------- bounds


@given(
    chosen=st.dictionaries(st.sampled_from(["color", "size"]), st.sampled_from(["green2", "large", "x-large", "zzz"])),
    wanted=st.dictionaries(st.sampled_from(["color", "size"]), st.sampled_from(["green2", "large", "x-large"])),
    attributes=st.lists(st.sampled_from(["long lasting", "gluten free", "lead free"]), unique=True).map(tuple),
    price=st.floats(1, 100),
    split=st.sampled_from(Split),
)
def test_a_score_is_between_zero_and_one(chosen, wanted, attributes, price, split):
    score = scored(goal(wanted, attributes), chosen, price=price, split=split)
    assert 0.0 <= score.total <= 1.0
    everything = all(part in (None, 1.0) for part in (score.attributes, score.options)) and score.price
    assert (score.total == 1.0) == everything  # the type is right here
