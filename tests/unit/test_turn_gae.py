# SPDX-License-Identifier: Apache-2.0
"""Turn-level GAE against a slow reference, hand-worked numbers, its limits in lambda, and HAE that always switches."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from recipe.hiper.estimators.hae import HAEConfig, hierarchical_advantages
from recipe.hiper.estimators.turn_gae import AdvantagesAndTargets, turn_gae


@dataclasses.dataclass
class Batch:
    """Float64 arguments of `turn_gae`; garbage, NaN included, wherever it must not matter."""

    rewards: Tensor
    values: Tensor
    valid: Tensor
    terminated: Tensor
    bootstrap: Tensor

    def estimate(self, gamma: float, lam: float, *, bootstrap: bool) -> AdvantagesAndTargets:
        grids = (self.rewards, self.values, self.valid, self.terminated)
        return turn_gae(*grids, gamma=gamma, lam=lam, bootstrap=self.bootstrap if bootstrap else None)

    def episodes(self, *, bootstrap: bool) -> list[tuple[list[float], list[float], float]]:
        """Rewards, values and what the state after the end counts, of each episode."""
        result = []
        for row, marks in enumerate(self.valid.tolist()):
            length = sum(marks)
            cut = length > 0 and not self.terminated[row, length - 1]
            after = float(self.bootstrap[row]) if cut and bootstrap else 0.0
            result.append((self.rewards[row, :length].tolist(), self.values[row, :length].tolist(), after))
        return result


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    lengths = torch.tensor(draw(st.lists(st.integers(0, 10), min_size=1, max_size=5)))
    width = int(lengths.max()) + draw(st.integers(0, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    episodes, turn = len(lengths), torch.arange(width)
    valid = turn < lengths[:, None]
    wins = torch.rand(episodes, generator=generator) < 0.5
    return Batch(
        rewards=normal(episodes, width).where(valid, torch.nan),
        values=normal(episodes, width).where(valid, torch.nan),
        valid=valid,
        # Marks on padding are garbage too.
        terminated=((turn == lengths[:, None] - 1) & wins[:, None]) | ~valid,
        # After a terminated episode there is no state that could have a value.
        bootstrap=normal(episodes).where(~wins & (lengths > 0), torch.nan),
    )


UNIT = st.sampled_from([0.0, 0.5, 0.9, 1.0]) | st.floats(0.0, 1.0)


def on_grid(rows: list[list[float]], width: int) -> Tensor:
    return torch.tensor([[*row, *[0.0] * (width - len(row))] for row in rows], dtype=torch.float64)


def assert_same(actual: Tensor, expected: Tensor) -> None:
    assert actual.dtype == torch.float64
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-11)


# ---------------------------------------------------------------------------------------------------------------------
# Hand-worked: three turns that end with a win, and two turns that the step limit cut. gamma 0.9, lambda 0.8.

NAN = math.nan


def hand_worked(bootstrap: list[float] | None) -> AdvantagesAndTargets:
    return turn_gae(
        torch.tensor([[1.0, 0.0, 10.0, NAN], [0.0, 2.0, NAN, NAN]], dtype=torch.float64),
        torch.tensor([[3.0, 4.0, 7.0, NAN], [5.0, 6.0, NAN, NAN]], dtype=torch.float64),
        torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]]),
        torch.tensor([[0, 0, 1, 0], [0, 0, 1, 1]]),
        gamma=0.9,
        lam=0.8,
        bootstrap=None if bootstrap is None else torch.tensor(bootstrap, dtype=torch.float64),
    )


# delta_2 = 10 - 7 = 3, delta_1 = 0.9 7 - 4 = 2.3, delta_0 = 1 + 0.9 4 - 3 = 1.6; gamma lambda = 0.72.
# A_2 = 3, A_1 = 2.3 + 0.72 3 = 4.46, A_0 = 1.6 + 0.72 4.46 = 4.8112; the target is A + V.
WON = [4.8112, 4.46, 3.0, 0.0]
WON_TARGETS = [7.8112, 8.46, 10.0, 0.0]


def test_hand_worked_step_limit_without_bootstrap():
    # delta_1 = 2 - 6 = -4, delta_0 = 0.9 6 - 5 = 0.4; A_1 = -4, A_0 = 0.4 - 0.72 4 = -2.48.
    result = hand_worked(bootstrap=None)
    assert_same(result.advantages, torch.tensor([WON, [-2.48, -4.0, 0.0, 0.0]], dtype=torch.float64))
    assert_same(result.targets, torch.tensor([WON_TARGETS, [2.52, 2.0, 0.0, 0.0]], dtype=torch.float64))


@pytest.mark.parametrize("after_the_win", [1000.0, NAN])
def test_hand_worked_step_limit_with_bootstrap_and_a_win_that_takes_none(after_the_win):
    # delta_1 = 2 + 0.9 20 - 6 = 14, delta_0 = 0.4 as before; A_1 = 14, A_0 = 0.4 + 0.72 14 = 10.48.
    result = hand_worked(bootstrap=[after_the_win, 20.0])
    assert_same(result.advantages, torch.tensor([WON, [10.48, 14.0, 0.0, 0.0]], dtype=torch.float64))
    assert_same(result.targets, torch.tensor([WON_TARGETS, [15.48, 20.0, 0.0, 0.0]], dtype=torch.float64))


def test_an_episode_that_fills_the_grid_ends_there():
    ones = torch.ones(1, 2)
    for terminated, expected in ((True, [[1.0, 0.0]]), (False, [[6.0, 5.0]])):
        ends = torch.tensor([[False, terminated]])
        result = turn_gae(ones, ones, ones, ends, gamma=1.0, lam=1.0, bootstrap=torch.tensor([5.0]))
        assert result.advantages.tolist() == expected


def test_nothing_flows_back_over_a_termination():
    """It is the last valid turn of every episode that is played; a mark before that, too, would end what came before.

    delta_0 = 1 - 2 = -1 and no more; delta_2 = 3 - 8 = -5, delta_1 = 2 + 8 - 4 = 6, A_1 = 6 - 5 = 1.
    """
    rewards, values = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[2.0, 4.0, 8.0]])
    result = turn_gae(rewards, values, torch.ones(1, 3), torch.tensor([[1, 0, 1]]), gamma=1.0, lam=1.0)
    assert result.advantages.tolist() == [[-1.0, 1.0, -5.0]]


# ---------------------------------------------------------------------------------------------------------------------
# The reference: A(t) = sum_k (gamma lambda)^k delta(t+k), one episode at a time, Python floats.


def reference(r: list[float], v: list[float], after: float, gamma: float, lam: float) -> list[float]:
    v_next = [*v, after][1:]
    deltas = [r_t + gamma * next_t - v_t for r_t, v_t, next_t in zip(r, v, v_next, strict=True)]
    return [math.fsum((gamma * lam) ** k * d for k, d in enumerate(deltas[t:])) for t in range(len(r))]


@given(batches(), UNIT, UNIT, st.booleans())
def test_equals_the_slow_reference(batch, gamma, lam, bootstrap):
    result = batch.estimate(gamma, lam, bootstrap=bootstrap)
    expected = [reference(r, v, after, gamma, lam) for r, v, after in batch.episodes(bootstrap=bootstrap)]
    advantages = on_grid(expected, batch.valid.shape[1])
    assert_same(result.advantages, advantages)
    assert_same(result.targets, torch.where(batch.valid, advantages + batch.values, 0.0))
    assert (result.advantages[~batch.valid] == 0).all() and (result.targets[~batch.valid] == 0).all()


@given(batches(), UNIT, UNIT, st.booleans(), st.integers(1, 4))
def test_padding_has_no_influence(batch, gamma, lam, bootstrap, more):
    result = batch.estimate(gamma, lam, bootstrap=bootstrap)
    wider = Batch(
        *(
            torch.cat([grid.where(batch.valid, junk), torch.full((len(grid), more), junk)], dim=1).to(grid.dtype)
            for grid, junk in ((batch.rewards, 1e6), (batch.values, -1e6), (batch.valid, 0), (batch.terminated, 0))
        ),
        bootstrap=batch.bootstrap,
    ).estimate(gamma, lam, bootstrap=bootstrap)
    for name in ("advantages", "targets"):
        assert torch.equal(getattr(wider, name)[:, :-more], getattr(result, name))
        assert (getattr(wider, name)[:, -more:] == 0).all()


@given(batches(), UNIT, UNIT, st.booleans(), st.randoms(use_true_random=False))
def test_episodes_do_not_influence_each_other(batch, gamma, lam, bootstrap, random):
    order = list(range(len(batch.valid)))
    random.shuffle(order)
    permuted = Batch(*(getattr(batch, field.name)[order] for field in dataclasses.fields(Batch)))
    result = batch.estimate(gamma, lam, bootstrap=bootstrap)
    assert torch.equal(permuted.estimate(gamma, lam, bootstrap=bootstrap).advantages, result.advantages[order])


# ---------------------------------------------------------------------------------------------------------------------
# Limits.


@given(batches(), UNIT, st.booleans())
def test_lambda_0_is_one_step_td(batch, gamma, bootstrap):
    expected = [
        [r[t] + gamma * (v[t + 1] if t + 1 < len(r) else after) - v[t] for t in range(len(r))]
        for r, v, after in batch.episodes(bootstrap=bootstrap)
    ]
    result = batch.estimate(gamma, 0.0, bootstrap=bootstrap)
    assert_same(result.advantages, on_grid(expected, batch.valid.shape[1]))


@given(batches(), UNIT, st.booleans())
def test_lambda_1_is_monte_carlo_minus_the_value(batch, gamma, bootstrap):
    """All values but the one subtracted and the one behind the last turn cancel."""
    returns = [
        [sum(gamma**k * x for k, x in enumerate([*r[t:], after])) for t in range(len(r))]
        for r, _, after in batch.episodes(bootstrap=bootstrap)
    ]
    result = batch.estimate(gamma, 1.0, bootstrap=bootstrap)
    return_ET = on_grid(returns, batch.valid.shape[1])
    assert_same(result.targets, return_ET)
    assert_same(result.advantages, torch.where(batch.valid, return_ET - batch.values, 0.0))


@given(batches(), UNIT, UNIT, UNIT, st.booleans())
def test_is_hae_where_every_turn_switches_and_one_head_plays_all_roles(batch, gamma, lam, lam_turn, bootstrap):
    hae = hierarchical_advantages(
        batch.rewards,
        batch.values,
        batch.values,
        batch.values,
        torch.ones_like(batch.valid),
        batch.valid,
        batch.terminated,
        HAEConfig(gamma, lam_turn=lam_turn, lam_seg=lam, bootstrap_truncated=bootstrap),
        bootstrap_low=batch.bootstrap,
        bootstrap_high=batch.bootstrap,
    )
    result = batch.estimate(gamma, lam, bootstrap=bootstrap)
    assert_same(hae.adv_high, result.advantages)
    assert_same(hae.target_high, result.targets)
    # A segment of one turn has nothing inside: the other two decisions get one-step TD.
    one_step = batch.estimate(gamma, 0.0, bootstrap=bootstrap)
    assert_same(hae.adv_low, one_step.advantages)
    assert_same(hae.adv_switch, one_step.advantages)


@given(batches(), UNIT, UNIT)
def test_no_rewards_and_no_values_are_zero(batch, gamma, lam):
    batch.rewards, batch.values = torch.zeros_like(batch.rewards), torch.zeros_like(batch.values)
    result = batch.estimate(gamma, lam, bootstrap=False)
    assert (result.advantages == 0).all() and (result.targets == 0).all()


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (2, 0)])
def test_an_empty_batch_is_empty(shape):
    empty = torch.zeros(shape)
    result = turn_gae(empty, empty, empty, empty, gamma=0.9, lam=0.9, bootstrap=empty.new_zeros(shape[0]))
    assert result.advantages.shape == result.targets.shape == shape


# ---------------------------------------------------------------------------------------------------------------------
# Errors.


@pytest.mark.parametrize("wrong", range(4))
@pytest.mark.parametrize("shape", [(2, 4), (3, 3), (2,)])
def test_grids_of_different_shapes_are_refused(wrong, shape):
    grids = [torch.ones(2, 3)] * 4
    grids[wrong] = torch.ones(shape)
    with pytest.raises(ValueError, match=r"\[episodes, turns\]"):
        turn_gae(*grids, gamma=1.0, lam=1.0)


def test_one_dimensional_grids_are_refused():
    with pytest.raises(ValueError, match=r"\[episodes, turns\]"):
        turn_gae(*[torch.ones(3)] * 4, gamma=1.0, lam=1.0)


@pytest.mark.parametrize("shape", [(3,), (2, 1), ()])
def test_a_bootstrap_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"bootstrap \[episodes\]"):
        turn_gae(*[torch.ones(2, 3)] * 4, gamma=1.0, lam=1.0, bootstrap=torch.ones(shape))


@pytest.mark.parametrize("marks", [[0, 1, 1], [1, 0, 1], [0, 0, 1]])
def test_valid_must_be_right_padded(marks):
    ones = torch.ones(2, 3)
    with pytest.raises(ValueError, match="right-padded"):
        turn_gae(ones, ones, torch.tensor([[1, 1, 0], marks]), ones, gamma=1.0, lam=1.0)


@pytest.mark.parametrize("name", ["gamma", "lam"])
@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan])
def test_settings_outside_their_range(name, value):
    with pytest.raises(ValueError, match=f"{name}={value}"):
        turn_gae(*[torch.ones(2, 3)] * 4, **({"gamma": 1.0, "lam": 1.0} | {name: value}))
