# SPDX-License-Identifier: Apache-2.0
"""Goals: their texts, their draws, their order and their splits."""

from __future__ import annotations

import random
from itertools import product as cartesian

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_products import MUG, product

from agent_system.environments.webshop.goals import (
    NO_BOUND,
    Goals,
    Split,
    chosen_options,
    count_combinations,
    draw_price_bound,
    goal_table,
    goal_weights,
    human_goal,
    legacy_overlap,
    legacy_weighted_index,
    require_index,
    split_ranges,
    synthetic_goal,
)
from agent_system.environments.webshop.products import HumanInstruction
from agent_system.errors import ConfigError, TaskError


def test_combinations_are_numbered_like_the_cartesian_product_of_sorted_groups():
    groups = {"size": ("s", "m", "l"), "color": ("red", "blue"), "fit": ("slim",)}
    many = product(options=groups)
    names = sorted(groups)
    expected = [dict(zip(names, values, strict=True)) for values in cartesian(*(groups[name] for name in names))]
    chosen = [chosen_options(many, choice) for choice in range(count_combinations(many))]
    assert chosen == expected and [list(one) for one in chosen] == [names] * 6
    assert count_combinations(product(options={})) == 1 and chosen_options(product(options={}), 0) == {}


def test_instruction_of_a_synthetic_goal():
    goal = synthetic_goal(MUG, 1, 20.0, index=7)
    assert goal.instruction == (
        "Find me a long lasting mug with color: green2, and size: x-large, and price lower than 20.00 dollars"
    )
    assert goal.options == {"color": "green2", "size": "x-large"} and goal.attributes == ("long lasting",)
    assert synthetic_goal(product(options={}), 0, NO_BOUND, 0).instruction == "Find me a long lasting mug"


def test_instruction_of_a_human_goal():
    written = HumanInstruction("i want a green mug.", ("long lasting",), ("green",))
    goal = human_goal(MUG, written, 30.0, index=0)
    assert goal.instruction == "i want a green mug, and price lower than 30.00 dollars"
    assert goal.options == ("green",)


@given(st.floats(0.01, 2000), st.integers(0, 10**6))
def test_a_bound_is_the_larger_of_two_of_the_next_four_on_the_grid(price, seed):
    bound = draw_price_bound(price, random.Random(seed))
    first = 10 * (int(price // 10) + 1)  # the first on the grid above the price
    if first > 980:
        assert bound == NO_BOUND
    else:
        assert bound in [first + 10, first + 20, first + 30] and price < bound <= 990


def test_bounds_use_up_the_generator_as_the_original_does():
    """One `sample` of two from the next four; nothing at all where there is only one left."""
    rng, by_hand = random.Random(3), random.Random(3)
    assert draw_price_bound(14.5, rng) == max(by_hand.sample([20.0, 30.0, 40.0, 50.0], 2))
    assert draw_price_bound(985.0, rng) == NO_BOUND
    assert rng.random() == by_hand.random()


def test_draws_come_in_the_order_of_the_original():
    """One number for nothing, then all product prices (a range costs a draw, a price does not), then one bound per
    product that has goals."""
    prices = [(5.0,), (10.0, 20.0), (7.0,), (30.0, 40.0)]
    table = goal_table(prices, [(0, 2), (3, 3)], Goals.SYNTHETIC, seed=9)
    rng = random.Random(9)
    rng.getrandbits(32)
    asked = [5.0, rng.uniform(10.0, 20.0), 7.0, rng.uniform(30.0, 40.0)]
    bounds = {0: draw_price_bound(asked[0], rng), 3: draw_price_bound(asked[3], rng)}
    assert table.price.tolist() == asked
    assert all(upper == bounds[number] for number, upper in zip(table.product, table.price_upper, strict=True))
    unshuffled = [(0, 0), (0, 1), (3, 0), (3, 1), (3, 2)]
    random.Random(9).shuffle(unshuffled)
    assert list(zip(table.product.tolist(), table.choice.tolist(), strict=True)) == unshuffled


def test_human_goals_draw_a_bound_each():
    table = goal_table([(5.0,)], [(0, 40)], Goals.HUMAN, seed=1)
    assert len(set(table.price_upper.tolist())) == 3


def test_no_goals_at_all():
    assert len(goal_table([(5.0,)], [], Goals.HUMAN, seed=1)) == 0


@given(st.integers(9, 20_000))
def test_fixed_splits_are_disjoint_and_whole(goals):
    ranges = split_ranges(goals, Split.FIXED)
    assert sorted([*ranges["test"], *ranges["eval"], *ranges["train"]]) == list(range(goals))
    assert all(len(part) for part in ranges.values())
    if goals >= 4500:
        assert (len(ranges["test"]), len(ranges["eval"])) == (500, 1000)


def test_legacy_splits_and_too_few_goals():
    ranges = split_ranges(6910, Split.LEGACY)
    assert ranges == {"test": range(500), "eval": range(500), "train": range(500, 6910)}
    with pytest.raises(ConfigError, match="env.webshop.split=fixed"):
        split_ranges(500, Split.LEGACY)
    with pytest.raises(ConfigError, match="at least 9"):
        split_ranges(8, Split.FIXED)


def test_legacy_overlap_grows_with_the_workers():
    def table(seed):
        return goal_table([(5.0,)] * 1500, [(number, 1) for number in range(1500)], Goals.SYNTHETIC, seed)

    shares = list(legacy_overlap(table, train_seeds=[1, 2, 3], test_seed=1001))
    # Of 1500 goals a worker trains on 1000: a goal is missed by k workers with probability 3^-k.
    assert shares == pytest.approx([2 / 3, 8 / 9, 26 / 27], abs=0.06) and shares == sorted(shares)


def test_legacy_weights_and_the_draw_that_is_one_too_high():
    weights = goal_weights([("soft", "red"), ("soft",), ()])
    assert weights == [(1 / 2 + 1) / 2, 1 / 2, 0.0]
    weights = [1.0, 2.0, 1.0]
    drawn = [legacy_weighted_index(weights, lambda low, high, at=at: at) for at in (0.0, 0.5, 1.0, 2.9, 3.0, 4.0)]
    assert drawn == [1, 1, 2, 2, 2, 2]


@pytest.mark.parametrize("index", [-1, 5, 1.0, "1", None, True])
def test_an_index_out_of_range_is_refused(index):
    with pytest.raises(TaskError, match="the index is 0 to 4"):
        require_index(index, 5)


def test_indices_from_numpy_are_accepted():
    assert require_index(np.int64(4), 5) == 4
