# SPDX-License-Identifier: Apache-2.0
"""GRPO, RLOO and GiGPO against slow references, hand-worked numbers, and what comparing within groups implies."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from recipe.hiper.estimators.gigpo import gigpo_advantages
from recipe.hiper.estimators.group_baselines import group_advantages
from recipe.hiper.estimators.grpo import grpo_advantages
from recipe.hiper.estimators.rloo import rloo_advantages

EPSILON = 1e-6
NAN = math.nan

Entries = list[tuple[float, int]]
Turns = list[tuple[float, int]]

# Few different numbers, so that groups without any difference come up; whole ones, so that others differ by enough.
NUMBERS = st.integers(-4, 4).map(float)
GROUPS = st.integers(-2, 2)
ENTRIES = st.lists(st.tuples(NUMBERS, GROUPS), max_size=12)


def floats(values: list) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def columns(entries: Entries) -> tuple[Tensor, Tensor]:
    """Numbers and groups."""
    return floats([x for x, _ in entries]), torch.tensor([group for _, group in entries], dtype=torch.long)


def centred(x: float, others_and_x: list[float], divide_by_std: bool) -> float:
    if len(set(others_and_x)) == 1:
        return 0.0
    return (x - statistics.mean(others_and_x)) / (statistics.stdev(others_and_x) + EPSILON if divide_by_std else 1.0)


def assert_same(actual: Tensor, expected: Tensor | list) -> None:
    """Rounding, 1e-15, may be all that a group differs by, and is divided by 1e-6: hence the tolerance."""
    expected = expected if isinstance(expected, Tensor) else floats(expected)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-7)


# ---------------------------------------------------------------------------------------------------------------------
# Groups. GRPO is nothing else.


@pytest.mark.parametrize("estimator", [group_advantages, grpo_advantages])
def test_grpo_by_hand(estimator):
    # Group 5: 0, 10, 2 with mean 4 and unbiased variance (16 + 36 + 4) / 2 = 28. Group -2: 1, 3 with mean 2 and
    # unbiased variance (1 + 1) / 1 = 2. Group 0: one entry.
    returns, group = floats([0, 1, 10, 8, 3, 2]), torch.tensor([5, -2, 5, 0, -2, 5])
    three, two = math.sqrt(28) + 1e-6, math.sqrt(2) + 1e-6
    assert_same(estimator(returns, group, divide_by_std=False), [-4, -1, 6, 0, 1, -2])
    assert_same(
        estimator(returns, group, divide_by_std=True), [-4 / three, -1 / two, 6 / three, 0, 1 / two, -2 / three]
    )


def test_grpo_divides_by_default():
    returns, group = floats([0, 4]), torch.tensor([1, 1])
    assert torch.equal(grpo_advantages(returns, group), grpo_advantages(returns, group, divide_by_std=True))


@pytest.mark.parametrize("estimator", [group_advantages, grpo_advantages])
@given(entries=st.lists(st.tuples(NUMBERS | st.floats(-100, 100, width=32), GROUPS), max_size=12), divide=st.booleans())
def test_grpo_equals_the_slow_reference(estimator, entries, divide):
    expected = [centred(x, [y for y, other in entries if other == group], divide) for x, group in entries]
    assert_same(estimator(*columns(entries), divide_by_std=divide), expected)


@given(ENTRIES, st.booleans(), st.lists(st.floats(-50, 50), min_size=5, max_size=5))
def test_adding_a_constant_to_a_group_changes_nothing(entries, divide, constants):
    x, group = columns(entries)
    result = group_advantages(x, group, divide_by_std=divide)
    moved = group_advantages(x + floats(constants)[group + 2], group, divide_by_std=divide)
    assert_same(moved, result)


SCALES = st.lists(st.floats(0.1, 50), min_size=5, max_size=5)


@given(ENTRIES, SCALES)
def test_scaling_a_group_scales_its_advantages(entries, scales):
    x, group = columns(entries)
    scale = floats(scales)[group + 2]
    result = group_advantages(x, group, divide_by_std=False)
    assert_same(group_advantages(scale * x, group, divide_by_std=False), scale * result)


@given(ENTRIES, SCALES)
def test_scaling_a_group_changes_nothing_after_division(entries, scales):
    """Whole numbers that differ have a deviation above 0.28 in 12 entries, so 1e-6 matters by less than 1e-4."""
    x, group = columns(entries)
    result = group_advantages(x, group, divide_by_std=True)
    scaled = group_advantages(floats(scales)[group + 2] * x, group, divide_by_std=True)
    torch.testing.assert_close(scaled, result, rtol=1e-4, atol=1e-9)


@given(ENTRIES, st.randoms(use_true_random=False))
def test_a_permutation_of_entries_permutes_the_result(entries, random):
    order = list(range(len(entries)))
    random.shuffle(order)
    (x, group), index = columns(entries), torch.tensor(order, dtype=torch.long)
    for divide in (True, False):
        result = group_advantages(x, group, divide_by_std=divide)
        assert_same(group_advantages(x[index], group[index], divide_by_std=divide), result[index])
    assert_same(rloo_advantages(x[index], group[index]), rloo_advantages(x, group)[index])


@given(ENTRIES, st.permutations([-7, 0, 3, 10**12, -(10**12)]))
def test_what_a_group_is_called_does_not_matter(entries, names):
    x, group = columns(entries)
    renamed = torch.tensor(names)[group + 2]
    assert_same(grpo_advantages(x, renamed), grpo_advantages(x, group))
    assert_same(rloo_advantages(x, renamed), rloo_advantages(x, group))


@given(st.lists(GROUPS, max_size=12), st.floats(-1e6, 1e6), st.sampled_from([torch.float32, torch.float64]))
def test_equal_returns_are_exactly_zero(groups, reward, dtype):
    """Not only nearly: what rounding leaves of a difference would be divided by its own size."""
    returns, group = torch.full((len(groups),), reward, dtype=dtype), torch.tensor(groups, dtype=torch.long)
    for divide in (True, False):
        assert (group_advantages(returns, group, divide_by_std=divide) == 0).all()
        assert (grpo_advantages(returns, group, divide_by_std=divide) == 0).all()
    assert (rloo_advantages(returns, group) == 0).all()


@given(st.lists(st.floats(-1e6, 1e6), max_size=8), st.booleans())
def test_a_group_of_one_is_zero(returns, divide):
    x, group = floats(returns), torch.arange(len(returns))
    assert (grpo_advantages(x, group, divide_by_std=divide) == 0).all()
    assert (rloo_advantages(x, group) == 0).all()


def test_statistics_are_taken_in_float64():
    """These are neighbours in float32, which has no number for the mean between them."""
    x, group = torch.tensor([2.0**20, 2.0**20 + 0.125]), torch.tensor([0, 0])
    half = math.sqrt(0.5)
    assert group_advantages(x, group, divide_by_std=False).tolist() == [-0.0625, 0.0625]
    torch.testing.assert_close(group_advantages(x, group, divide_by_std=True), torch.tensor([-half, half]))


def test_an_empty_batch_of_episodes_is_empty():
    empty, group = torch.zeros(0), torch.zeros(0, dtype=torch.long)
    for result in (grpo_advantages(empty, group), rloo_advantages(empty, group)):
        assert result.shape == (0,)


@pytest.mark.parametrize("shapes", [((3,), (2,)), ((2, 2), (2, 2)), ((2, 1), (2,)), ((), ())])
def test_shapes_that_differ_or_are_no_rows_are_refused(shapes):
    returns, group = torch.zeros(shapes[0]), torch.zeros(shapes[1], dtype=torch.long)
    for estimator in (grpo_advantages, rloo_advantages):
        with pytest.raises(ValueError, match=r"expected \[entries\]"):
            estimator(returns, group)
    with pytest.raises(ValueError, match=r"expected \[entries\]"):
        group_advantages(returns, group, divide_by_std=False)


# ---------------------------------------------------------------------------------------------------------------------
# RLOO.


def test_rloo_by_hand():
    # Group 5: 0 - (10 + 2) / 2, 10 - (0 + 2) / 2, 2 - (0 + 10) / 2. Group -2: 1 - 3, 3 - 1. Group 0: no other.
    returns, group = floats([0, 1, 10, 8, 3, 2]), torch.tensor([5, -2, 5, 0, -2, 5])
    assert_same(rloo_advantages(returns, group), [-6, -2, 9, 0, 2, -3])


@given(st.lists(st.tuples(NUMBERS | st.floats(-100, 100, width=32), GROUPS), max_size=12))
def test_rloo_is_the_return_minus_the_mean_of_the_others(entries):
    expected = []
    for i, (x, group) in enumerate(entries):
        others = [y for j, (y, other) in enumerate(entries) if other == group and j != i]
        expected.append(x - statistics.mean(others) if others else 0.0)
    assert_same(rloo_advantages(*columns(entries)), expected)


@given(ENTRIES)
def test_rloo_sums_to_zero_in_a_group(entries):
    result, (_, group) = rloo_advantages(*columns(entries)), columns(entries)
    for name in group.unique():
        assert float(result[group == name].sum()) == pytest.approx(0.0, abs=1e-9)


# ---------------------------------------------------------------------------------------------------------------------
# GiGPO. An episode is a list of (reward, anchor).

Episodes = list[tuple[Turns, int]]

EPISODES = st.lists(
    st.tuples(st.lists(st.tuples(NUMBERS, st.integers(-1, 2)), min_size=1, max_size=6), st.integers(0, 2)),
    min_size=1,
    max_size=6,
)
GAMMAS = st.sampled_from([0.0, 0.5, 0.9, 1.0])
WEIGHTS = st.sampled_from([0.0, 0.3, 1.0, 2.0])


def grids(episodes: Episodes, *, wider: int = 0, reward: float = NAN, anchor: int = 0) -> tuple[Tensor, ...]:
    """Rewards, valid, anchors and groups; NaN, and an anchor that others have, outside valid turns."""
    width = max(len(turns) for turns, _ in episodes) + wider
    rows = [(turns, [(reward, anchor)] * (width - len(turns))) for turns, _ in episodes]
    return (
        floats([[r for r, _ in turns + padding] for turns, padding in rows]),
        torch.tensor([[True] * len(turns) + [False] * len(padding) for turns, padding in rows]),
        torch.tensor([[a for _, a in turns + padding] for turns, padding in rows]),
        torch.tensor([group for _, group in episodes]),
    )


def gigpo_reference(episodes: Episodes, gamma: float, weight: float, divide: bool) -> list[list[float]]:
    totals: dict[int, list[float]] = {}
    states: dict[tuple[int, int], list[float]] = {}
    earned = []
    for turns, group in episodes:
        rewards = [r for r, _ in turns]
        totals.setdefault(group, []).append(sum(rewards))
        earned.append([sum(gamma**k * r for k, r in enumerate(rewards[t:])) for t in range(len(rewards))])
        for (_, anchor), from_here in zip(turns, earned[-1], strict=True):
            states.setdefault((group, anchor), []).append(from_here)
    return [
        [
            centred(sum(r for r, _ in turns), totals[group], divide)
            + weight * centred(from_here, states[group, anchor], divide)
            for (_, anchor), from_here in zip(turns, returns, strict=True)
        ]
        for (turns, group), returns in zip(episodes, earned, strict=True)
    ]


# Group 4 plays A and B, group 9 plays C. gamma 0.5.
# A: anchors 7 8 7, rewards 1 0 4: sum 5; from turn 2 on 4, from turn 1 0 + 4/2 = 2, from turn 0 1 + 2/2 = 2.
# B: anchors 7 6, rewards 0 2: sum 2; from turn 1 on 2, from turn 0 0 + 2/2 = 1.
# C: anchor 7, reward 3: alone in its group, whatever its anchor.
HAND: Episodes = [([(1.0, 7), (0.0, 8), (4.0, 7)], 4), ([(3.0, 7)], 9), ([(0.0, 7), (2.0, 6)], 4)]
# Sums 5 and 2: mean 3.5, unbiased variance 2 1.5^2 / 1 = 4.5.
# Anchor 7 in group 4: 2 and 4 (both visits of A) and 1: mean 7/3, unbiased variance (1 + 25 + 16) / 9 / 2 = 7/3.


def test_gigpo_by_hand_without_division():
    result = gigpo_advantages(*grids(HAND), gamma=0.5, divide_by_std=False)
    assert_same(result, [[1.5 - 1 / 3, 1.5, 1.5 + 5 / 3], [0, 0, 0], [-1.5 - 4 / 3, -1.5, 0]])


def test_gigpo_by_hand_with_division_and_a_weight():
    episode = 1.5 / (math.sqrt(4.5) + 1e-6)
    low, high, other = (2 * x / (math.sqrt(7 / 3) + 1e-6) for x in (-1 / 3, 5 / 3, -4 / 3))
    result = gigpo_advantages(*grids(HAND), gamma=0.5, step_weight=2.0)
    assert_same(result, [[episode + low, episode, episode + high], [0, 0, 0], [-episode + other, -episode, 0]])


@given(EPISODES, GAMMAS, WEIGHTS, st.booleans())
def test_gigpo_equals_the_slow_reference(episodes, gamma, weight, divide):
    arguments = grids(episodes)
    result = gigpo_advantages(*arguments, gamma=gamma, step_weight=weight, divide_by_std=divide)
    expected = gigpo_reference(episodes, gamma, weight, divide)
    assert_same(result[arguments[1]], [x for row in expected for x in row])
    assert (result[~arguments[1]] == 0).all()


@given(EPISODES, GAMMAS, st.booleans())
def test_gigpo_without_its_second_part_is_grpo(episodes, gamma, divide):
    rewards, valid, anchors, group = grids(episodes)
    grpo = grpo_advantages(rewards.nan_to_num().sum(1), group, divide_by_std=divide)[:, None] * valid
    options = {"gamma": gamma, "divide_by_std": divide}
    assert_same(gigpo_advantages(rewards, valid, anchors, group, step_weight=0.0, **options), grpo)
    distinct = torch.arange(anchors.numel()).view(anchors.shape)
    assert_same(gigpo_advantages(rewards, valid, distinct, group, step_weight=1.0, **options), grpo)


@given(EPISODES, EPISODES, GAMMAS, st.booleans())
def test_gigpo_never_compares_across_groups(ours, theirs, gamma, divide):
    """Episodes of other groups, with the same anchors, might as well not be there."""
    theirs = [(turns, group + 10) for turns, group in theirs]
    options = {"gamma": gamma, "divide_by_std": divide}
    alone, together = grids(ours), grids(ours + theirs)
    result = gigpo_advantages(*together, **options)[: len(ours)]
    assert_same(result[together[1][: len(ours)]], gigpo_advantages(*alone, **options)[alone[1]])


def test_gigpo_counts_both_visits_of_a_state():
    # From turn 0 on 0 + 2 = 2, from turn 1 on 2, from turn 2 on 0 + 0 = 0; the state of turns 0 and 2 has mean 1.
    once = gigpo_advantages(*grids([([(0.0, 5), (2.0, 6), (0.0, 5)], 1)]), gamma=1.0, divide_by_std=False)
    assert once.tolist() == [[1.0, 0.0, -1.0]]
    # Another episode gets 5 from there: mean (2 + 0 + 5) / 3. The episodes earned 2 and 5: mean 3.5.
    twice = grids([([(0.0, 5), (2.0, 6), (0.0, 5)], 1), ([(5.0, 5)], 1)])
    expected = [[-1.5 + 2 - 7 / 3, -1.5, -1.5 - 7 / 3], [1.5 + 5 - 7 / 3, 0, 0]]
    assert_same(gigpo_advantages(*twice, gamma=1.0, divide_by_std=False), expected)


@given(EPISODES, GAMMAS, st.booleans(), st.integers(0, 3), st.sampled_from([NAN, math.inf, 1e6]), st.integers(-1, 2))
def test_gigpo_padding_has_no_influence(episodes, gamma, divide, wider, reward, anchor):
    plain = grids(episodes, reward=0.0, anchor=99)
    padded = grids(episodes, wider=wider, reward=reward, anchor=anchor)
    result = gigpo_advantages(*padded, gamma=gamma, divide_by_std=divide)
    expected = gigpo_advantages(*plain, gamma=gamma, divide_by_std=divide)
    assert torch.equal(result[padded[1]], expected[plain[1]])
    assert (result[~padded[1]] == 0).all()


@given(EPISODES, GAMMAS, st.booleans(), st.randoms(use_true_random=False))
def test_gigpo_a_permutation_of_episodes_permutes_the_result(episodes, gamma, divide, random):
    order = list(range(len(episodes)))
    random.shuffle(order)
    arguments = grids(episodes)
    result = gigpo_advantages(*arguments, gamma=gamma, divide_by_std=divide)
    permuted = gigpo_advantages(*(x[order] for x in arguments), gamma=gamma, divide_by_std=divide)
    assert_same(permuted, result[order])


@given(EPISODES, GAMMAS, st.booleans())
def test_gigpo_no_reward_is_exactly_zero(episodes, gamma, divide):
    arguments = grids([([(0.0, anchor) for _, anchor in turns], group) for turns, group in episodes])
    assert (gigpo_advantages(*arguments, gamma=gamma, divide_by_std=divide) == 0).all()


@given(EPISODES, st.floats(-100, 100), st.booleans())
def test_gigpo_where_all_earn_the_same_is_exactly_zero(episodes, reward, divide):
    """The same reward at the end of every episode, and no discount: the same from every state on."""
    same = [([*((0.0, anchor) for _, anchor in turns[1:]), (reward, turns[0][1])], group) for turns, group in episodes]
    assert (gigpo_advantages(*grids(same), gamma=1.0, divide_by_std=divide) == 0).all()


@given(st.integers(1, 5), st.lists(st.integers(0, 1), min_size=1, max_size=5), st.floats(-100, 100), GAMMAS)
def test_gigpo_a_constant_reward_in_episodes_in_step_is_exactly_zero(length, groups, reward, gamma):
    arguments = grids([([(reward, turn) for turn in range(length)], group) for group in groups])
    assert (gigpo_advantages(*arguments, gamma=gamma) == 0).all()


@given(st.lists(st.permutations([10.0, -0.1, -0.1, -0.1, -0.3, 0.0]), min_size=2, max_size=4))
def test_gigpo_the_order_of_the_same_rewards_does_not_tell_episodes_apart(orders):
    """In float32 their sums differ in the last bit, which is as large as the 1e-6 it would be divided by."""
    # All start in the same state and then see states of their own.
    episodes = [([(r, 10 * i + t if t else -1) for t, r in enumerate(order)], 0) for i, order in enumerate(orders)]
    rewards, valid, anchors, group = grids(episodes)
    result = gigpo_advantages(rewards.float(), valid, anchors, group, gamma=1.0)
    assert result.dtype == torch.float32 and (result == 0).all()


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (2, 0)])
def test_gigpo_an_empty_batch_is_empty(shape):
    empty, group = torch.zeros(shape), torch.zeros(shape[0], dtype=torch.long)
    assert gigpo_advantages(empty, empty.bool(), empty.long(), group, gamma=0.9).shape == shape


@pytest.mark.parametrize("wrong", range(4))
@pytest.mark.parametrize("shape", [(2, 4), (3, 3), (3,), (2, 1)])
def test_gigpo_shapes_that_differ_are_refused(wrong, shape):
    arguments = [torch.ones(2, 3), torch.ones(2, 3).bool(), torch.ones(2, 3).long(), torch.ones(2).long()]
    arguments[wrong] = torch.ones(shape).to(arguments[wrong].dtype)
    with pytest.raises(ValueError, match=r"\[episodes, turns\] alike|expected \[entries\]"):
        gigpo_advantages(*arguments, gamma=1.0)


def test_gigpo_one_dimensional_rewards_are_refused():
    ones = torch.ones(3)
    with pytest.raises(ValueError, match=r"\[episodes, turns\] alike"):
        gigpo_advantages(ones, ones.bool(), ones.long(), ones.long(), gamma=1.0)


def test_gigpo_turns_with_gaps_are_refused():
    valid = torch.tensor([[True, False, True]])
    with pytest.raises(ValueError, match="right-padded"):
        gigpo_advantages(torch.ones(1, 3), valid, torch.ones(1, 3).long(), torch.zeros(1).long(), gamma=1.0)
