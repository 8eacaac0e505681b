# SPDX-License-Identifier: Apache-2.0
"""HAE against a slow reference, a hand-worked example, and the estimators it must turn into at its limits."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from recipe.hiper.estimators.hae import HAEConfig, HierarchicalAdvantages, hierarchical_advantages

FIELDS = tuple(field.name for field in dataclasses.fields(HierarchicalAdvantages))


# ---------------------------------------------------------------------------------------------------------------------
# The reference: segments as lists, sums as sums, one episode at a time, Python floats (float64).


def reference_episode(
    r: list[float],
    v_lo: list[float],
    v_hi: list[float],
    v_term: list[float],
    boundary: list[bool],
    terminated: bool,
    config: HAEConfig,
    boot_lo: float,
    boot_hi: float,
    beta: list[float],
    v_lo_prev: list[float],
) -> dict[str, list[float]]:
    length = len(r)
    gamma = config.gamma
    starts = [t for t in range(length) if t == 0 or boundary[t]]
    ends = [*starts, length][1:]
    bootstrapped = config.bootstrap_truncated and not terminated
    after_low = boot_lo if bootstrapped else 0.0
    after_high = boot_hi if bootstrapped else 0.0
    follows = dict(zip(starts, [*starts[1:], None], strict=False))

    def lambda_return(start: int) -> float:
        """What the planner expects from a boundary on: rewards of the segment, then value or more of the same."""
        end = follows[start]
        rewards = sum(gamma**i * reward for i, reward in enumerate(r[start:end]))
        if end is None:
            return rewards + gamma ** (length - start) * after_high
        return rewards + gamma ** (end - start) * (
            (1 - config.lam_seg) * v_hi[end] + config.lam_seg * lambda_return(end)
        )

    def beyond(end: int) -> float:
        """What executor and switch expect after the end of a segment: the planner's value, or part of its return."""
        return (1 - config.lam_boundary) * v_hi[end] + config.lam_boundary * lambda_return(end)

    out = {name: [0.0] * length for name in FIELDS}

    for start, end in zip(starts, ends, strict=True):
        deltas = []
        for t in range(start, end):
            if t + 1 < end:
                v_next = v_lo[t + 1]
            else:
                v_next = beyond(end) if end < length else after_low
            deltas.append(r[t] + gamma * v_next - v_lo[t])
        for t in range(start, end):
            out["adv_low"][t] = sum((gamma * config.lam_turn) ** i * d for i, d in enumerate(deltas[t - start :]))
            out["target_low"][t] = out["adv_low"][t] + v_lo[t]

    segment_deltas, segment_discounts = [], []
    for start, end in zip(starts, ends, strict=True):
        n = end - start
        segment_reward = sum(gamma**i * r[start + i] for i in range(n))
        v_after = v_hi[end] if end < length else after_high
        segment_deltas.append(segment_reward + gamma**n * v_after - v_hi[start])
        segment_discounts.append(gamma**n * config.lam_seg)
    for k, start in enumerate(starts):
        out["adv_high"][start] = sum(
            math.prod(segment_discounts[k:j]) * segment_deltas[j] for j in range(k, len(starts))
        )
        out["target_high"][start] = out["adv_high"][start] + v_hi[start]

    if config.switch_advantage == "termination":
        for t in range(length):
            q = 1.0 if t in starts else 0.0
            out["adv_switch"][t] = (q - beta[t]) * (v_hi[t] - v_lo_prev[t])
    else:
        for start, end in zip(starts, ends, strict=True):
            v_after = beyond(end) if end < length else after_high
            for t in range(start, end):
                segment_return = sum(gamma ** (i - t) * r[i] for i in range(t, end)) + gamma ** (end - t) * v_after
                out["adv_switch"][t] = segment_return - v_term[t]
                out["target_term"][t] = segment_return
    return out


@dataclasses.dataclass
class Batch:
    """Float64 arguments of `hierarchical_advantages`; garbage, NaN included, wherever it must not matter."""

    rewards: Tensor
    values_low: Tensor
    values_high: Tensor
    values_term: Tensor
    boundary: Tensor
    valid: Tensor
    terminated: Tensor
    bootstrap_low: Tensor
    bootstrap_high: Tensor
    switch_prob: Tensor
    values_low_prev: Tensor

    def estimate(self, config: HAEConfig, **changes: Tensor | None) -> HierarchicalAdvantages:
        arguments = vars(self) | changes
        return hierarchical_advantages(config=config, **arguments)


def random_batch(seed: int, lengths: list[int], width: int, switch_rate: float) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), width)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    length = torch.tensor(lengths)[:, None]
    turn = torch.arange(width)[None, :]
    valid = turn < length
    ends_by_itself = torch.rand(len(lengths), 1, generator=generator) < 0.5

    def padded(grid: Tensor) -> Tensor:
        return torch.where(valid, grid, torch.nan)

    return Batch(
        rewards=padded(normal(*shape)),
        values_low=padded(normal(*shape)),
        values_high=padded(normal(*shape)),
        values_term=padded(normal(*shape)),
        # Marks on padding are garbage too.
        boundary=(torch.rand(shape, generator=generator) < switch_rate) | ~valid,
        valid=valid,
        terminated=((turn == length - 1) & ends_by_itself) | ~valid,
        bootstrap_low=normal(len(lengths)),
        bootstrap_high=normal(len(lengths)),
        switch_prob=padded(torch.rand(shape, generator=generator, dtype=torch.float64)),
        values_low_prev=padded(normal(*shape)),
    )


UNIT = st.sampled_from([0.0, 0.5, 0.9, 1.0])
CONFIGS = st.builds(
    HAEConfig,
    gamma=UNIT,
    lam_turn=UNIT,
    lam_seg=UNIT,
    switch_advantage=st.sampled_from(["segment_return", "termination"]),
    bootstrap_truncated=st.booleans(),
    lam_boundary=UNIT,
)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    lengths = draw(st.lists(st.integers(0, 12), min_size=1, max_size=5))
    width = max(1, max(lengths) + draw(st.integers(0, 3)))
    return random_batch(draw(st.integers(0, 2**31)), lengths, width, draw(st.sampled_from([0.0, 0.3, 0.7, 1.0])))


@given(batches(), CONFIGS)
def test_equals_the_slow_reference(batch, config):
    result = batch.estimate(config)
    for row in range(len(batch.valid)):
        length = int(batch.valid[row].sum())
        expected = reference_episode(
            *(
                getattr(batch, name)[row, :length].tolist()
                for name in ("rewards", "values_low", "values_high", "values_term", "boundary")
            ),
            terminated=length > 0 and bool(batch.terminated[row, length - 1]),
            config=config,
            boot_lo=float(batch.bootstrap_low[row]),
            boot_hi=float(batch.bootstrap_high[row]),
            beta=batch.switch_prob[row, :length].tolist(),
            v_lo_prev=batch.values_low_prev[row, :length].tolist(),
        )
        for name in FIELDS:
            actual = getattr(result, name)
            assert actual.dtype == torch.float64
            torch.testing.assert_close(
                actual[row, :length], torch.tensor(expected[name], dtype=torch.float64), rtol=1e-12, atol=1e-12
            )
            assert (actual[row, length:] == 0).all()


# ---------------------------------------------------------------------------------------------------------------------
# A hand-worked example: five turns, segments {0, 1, 2} and {3, 4}, won on turn 4.

G, L, S = 0.9, 0.8, 0.7
HAND_CONFIG = HAEConfig(gamma=G, lam_turn=L, lam_seg=S)


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def hand_worked(config: HAEConfig, terminated_at_end: bool = True, **extras: Tensor) -> HierarchicalAdvantages:
    return hierarchical_advantages(
        rewards=row(1, 0, 2, 0, 10),
        values_low=row(3, 4, 5, 6, 7),
        values_high=row(2, 99, 99, 8, 99),
        values_term=row(1, 1, 1, 1, 1),
        boundary=row(1, 0, 0, 1, 0),
        valid=row(1, 1, 1, 1, 1),
        terminated=row(0, 0, 0, 0, terminated_at_end),
        config=config,
        **extras,
    )


def test_hand_worked_example():
    result = hand_worked(HAND_CONFIG)

    # delta_t = r_t + gamma v_next - V_lo; turn 2 ends its segment and looks at V_hi(3) = 8, turn 4 wins.
    d0, d1, d2 = 1 + G * 4 - 3, 0 + G * 5 - 4, 2 + G * 8 - 5
    d3, d4 = 0 + G * 7 - 6, 10 + 0 - 7
    adv_low = row(d0 + G * L * d1 + G * L * G * L * d2, d1 + G * L * d2, d2, d3 + G * L * d4, d4)
    torch.testing.assert_close(result.adv_low, adv_low)
    torch.testing.assert_close(result.target_low, adv_low + row(3, 4, 5, 6, 7))

    # R_0 = 1 + gamma 0 + gamma^2 2 over n_0 = 3 turns; R_1 = 0 + gamma 10 and nothing after it.
    adv_high_1 = G * 10 - 8
    adv_high_0 = (1 + G * G * 2) + G * G * G * 8 - 2 + G * G * G * S * adv_high_1
    torch.testing.assert_close(result.adv_high, row(adv_high_0, 0, 0, adv_high_1, 0))
    torch.testing.assert_close(result.target_high, row(adv_high_0 + 2, 0, 0, G * 10, 0))

    # G_t runs to the segment's end and takes V_hi(3) = 8 there; V_term is 1 everywhere.
    segment_return = row(1 + G * 0 + G * G * 2 + G * G * G * 8, 0 + G * 2 + G * G * 8, 2 + G * 8, 0 + G * 10, 10)
    torch.testing.assert_close(result.target_term, segment_return)
    torch.testing.assert_close(result.adv_switch, segment_return - 1)


def test_hand_worked_past_the_end_of_a_segment():
    """Half of the way from V_hi(3) = 8 to the planner's return there, which is 0 + gamma 10."""
    result = hand_worked(dataclasses.replace(HAND_CONFIG, lam_boundary=0.5))
    beyond = (8 + G * 10) / 2
    d0, d1, d2 = 1 + G * 4 - 3, 0 + G * 5 - 4, 2 + G * beyond - 5
    torch.testing.assert_close(result.adv_low[:, :3], row(d0 + G * L * d1 + G * L * G * L * d2, d1 + G * L * d2, d2))
    segment_return = row(1 + G * G * 2 + G * G * G * beyond, G * 2 + G * G * beyond, 2 + G * beyond)
    torch.testing.assert_close(result.target_term[:, :3], segment_return)
    # The last segment and the planner are what they were.
    published = hand_worked(HAND_CONFIG)
    torch.testing.assert_close(result.adv_low[:, 3:], published.adv_low[:, 3:])
    torch.testing.assert_close(result.adv_high, published.adv_high)


def test_hand_worked_step_limit():
    config = dataclasses.replace(HAND_CONFIG, bootstrap_truncated=True)
    boots = {"bootstrap_low": row(20)[0], "bootstrap_high": row(30)[0]}
    result = hand_worked(config, terminated_at_end=False, **boots)
    d3, d4 = 0 + G * 7 - 6, 10 + G * 20 - 7
    torch.testing.assert_close(result.adv_low[:, 3:], row(d3 + G * L * d4, d4))
    torch.testing.assert_close(result.adv_high[:, 3:], row(G * 10 + G * G * 30 - 8, 0))
    torch.testing.assert_close(result.target_term[:, 3:], row(G * 10 + G * G * 30, 10 + G * 30))

    # A terminated episode takes no bootstrap, and without the option nobody does.
    for unused in (hand_worked(config, **boots), hand_worked(HAND_CONFIG, terminated_at_end=False, **boots)):
        for name in FIELDS:
            torch.testing.assert_close(getattr(unused, name), getattr(hand_worked(HAND_CONFIG), name))


def test_hand_worked_termination_advantage():
    config = dataclasses.replace(HAND_CONFIG, switch_advantage="termination")
    result = hierarchical_advantages(
        rewards=row(1, 2, 10),
        values_low=row(3, 4, 5),
        values_high=row(2, 6, 7),
        values_term=row(1, 1, 1),
        boundary=row(1, 0, 1),
        valid=row(1, 1, 1),
        terminated=row(0, 0, 1),
        config=config,
        switch_prob=row(0.9, 0.2, 0.3),
        values_low_prev=row(1, 2, 4),
    )
    torch.testing.assert_close(result.adv_switch, row((1 - 0.9) * (2 - 1), (0 - 0.2) * (6 - 2), (1 - 0.3) * (7 - 4)))
    assert (result.target_term == 0).all()


# ---------------------------------------------------------------------------------------------------------------------
# Limits.


def discounted_rewards(batch: Batch, gamma: float, after: Tensor) -> Tensor:
    """Turn-level Monte Carlo: the discounted sum of rewards to the episode's end, plus what comes after it."""
    out = torch.zeros_like(batch.rewards)
    for episode in range(len(batch.valid)):
        total = float(after[episode])
        for t in reversed(range(int(batch.valid[episode].sum()))):
            total = float(batch.rewards[episode, t]) + gamma * total
            out[episode, t] = total
    return out


def truncated_rows(batch: Batch) -> Tensor:
    last = batch.valid.sum(1) - 1
    return (last >= 0) & ~batch.terminated[torch.arange(len(last)), last.clamp(min=0)]


@given(batches(), UNIT, st.booleans())
def test_never_switch_with_lam_turn_1_is_monte_carlo_minus_the_executors_value(batch, gamma, bootstrap):
    batch.boundary = torch.zeros_like(batch.valid)
    result = batch.estimate(HAEConfig(gamma, lam_turn=1.0, lam_seg=0.9, bootstrap_truncated=bootstrap))
    after = batch.bootstrap_low * truncated_rows(batch) * bootstrap
    expected = discounted_rewards(batch, gamma, after) - batch.values_low.nan_to_num()
    torch.testing.assert_close(result.adv_low, expected)


def turn_gae(batch: Batch, values: Tensor, gamma: float, lam: float) -> Tensor:
    """Plain GAE over turns, terminated and cut episodes alike without a value after the end."""
    out = torch.zeros_like(batch.rewards)
    for episode in range(len(batch.valid)):
        length = int(batch.valid[episode].sum())
        carry = 0.0
        for t in reversed(range(length)):
            v_next = float(values[episode, t + 1]) if t + 1 < length else 0.0
            carry = float(batch.rewards[episode, t]) + gamma * v_next - float(values[episode, t]) + gamma * lam * carry
            out[episode, t] = carry
    return out


@given(batches(), UNIT, UNIT, UNIT)
def test_always_switch_is_one_step_td_and_turn_level_gae(batch, gamma, lam_turn, lam_seg):
    batch.boundary = torch.ones_like(batch.valid)
    result = batch.estimate(HAEConfig(gamma, lam_turn, lam_seg))
    torch.testing.assert_close(result.adv_high, turn_gae(batch, batch.values_high, gamma, lam_seg))

    followed = torch.cat([batch.valid[:, 1:], torch.zeros_like(batch.valid[:, :1])], 1)
    v_hi_next = torch.cat([batch.values_high[:, 1:], torch.zeros_like(batch.values_high[:, :1])], 1)
    td = batch.rewards + gamma * torch.where(followed, v_hi_next, 0.0) - batch.values_low
    torch.testing.assert_close(result.adv_low, torch.where(batch.valid, td, 0.0))


@given(batches(), UNIT, UNIT)
def test_one_head_for_all_roles_and_always_switch_is_turn_level_gae(batch, gamma, lam):
    batch.boundary = torch.ones_like(batch.valid)
    batch.values_high = batch.values_term = batch.values_low
    result = batch.estimate(HAEConfig(gamma, lam_turn=0.5, lam_seg=lam))
    torch.testing.assert_close(result.adv_high, turn_gae(batch, batch.values_low, gamma, lam))
    one_step = turn_gae(batch, batch.values_low, gamma, 0.0)
    torch.testing.assert_close(result.adv_low, one_step)
    torch.testing.assert_close(result.adv_switch, one_step)


@given(batches(), UNIT)
def test_lambda_1_telescopes_to_returns(batch, gamma):
    """With lambda = 1 nothing but rewards and the value behind the last turn is left of a target."""
    result = batch.estimate(HAEConfig(gamma, lam_turn=1.0, lam_seg=1.0))
    returns = discounted_rewards(batch, gamma, torch.zeros(len(batch.valid)))
    opens = (batch.boundary | (torch.arange(batch.valid.shape[1]) == 0)) & batch.valid
    torch.testing.assert_close(result.target_high, torch.where(opens, returns, 0.0))


@given(batches(), UNIT)
def test_all_lambdas_1_telescope_to_returns(batch, gamma):
    """Also past the end of a segment: no value but the decision's own baseline is left in any advantage."""
    result = batch.estimate(HAEConfig(gamma, lam_turn=1.0, lam_seg=1.0, lam_boundary=1.0))
    returns = discounted_rewards(batch, gamma, torch.zeros(len(batch.valid)))
    torch.testing.assert_close(result.target_low, returns)
    torch.testing.assert_close(result.target_term, returns)


@given(batches(), UNIT, UNIT)
def test_one_head_and_always_switch_past_the_end_is_turn_level_gae_for_everyone(batch, gamma, lam):
    """Where every turn is a segment, nothing is left of the hierarchy but GAE over turns; in the paper one-step TD."""
    batch.boundary = torch.ones_like(batch.valid)
    batch.values_high = batch.values_term = batch.values_low
    result = batch.estimate(HAEConfig(gamma, lam_turn=0.5, lam_seg=lam, lam_boundary=lam))
    expected = turn_gae(batch, batch.values_low, gamma, lam)
    for found in (result.adv_low, result.adv_high, result.adv_switch):
        torch.testing.assert_close(found, expected)


# ---------------------------------------------------------------------------------------------------------------------
# Invariances.


@given(batches(), CONFIGS, st.integers(0, 2), st.integers(0, 3))
def test_padding_changes_nothing(batch, config, more_rows, more_turns):
    wider = {}
    for name, value in vars(batch).items():
        fill = False if name == "valid" else True if value.dtype == torch.bool else torch.nan
        padding = (0, more_turns, 0, more_rows) if value.dim() == 2 else (0, more_rows)
        wider[name] = torch.nn.functional.pad(value, padding, value=fill)
    expected, actual = batch.estimate(config), batch.estimate(config, **wider)
    rows, turns = batch.valid.shape
    for name in FIELDS:
        assert torch.equal(getattr(actual, name)[:rows, :turns], getattr(expected, name))
        assert (getattr(actual, name)[rows:] == 0).all() and (getattr(actual, name)[:, turns:] == 0).all()


@given(batches(), CONFIGS, st.randoms(use_true_random=False))
def test_the_order_of_episodes_does_not_matter(batch, config, random):
    order = list(range(len(batch.valid)))
    random.shuffle(order)
    expected = batch.estimate(config)
    actual = batch.estimate(config, **{name: value[order] for name, value in vars(batch).items()})
    for name in FIELDS:
        assert torch.equal(getattr(actual, name), getattr(expected, name)[order])


@given(batches(), CONFIGS)
def test_zero_rewards_and_values_give_zero(batch, config):
    zero = {
        name: torch.zeros_like(value)
        for name, value in vars(batch).items()
        if name.startswith(("rewards", "values", "bootstrap"))
    }
    result = batch.estimate(config, **zero)
    for name in FIELDS:
        assert (getattr(result, name) == 0).all()


@given(batches(), CONFIGS)
def test_episodes_do_not_see_each_other(batch, config):
    together = batch.estimate(config)
    for episode in range(len(batch.valid)):
        alone = batch.estimate(config, **{name: value[episode : episode + 1] for name, value in vars(batch).items()})
        for name in FIELDS:
            assert torch.equal(getattr(alone, name)[0], getattr(together, name)[episode])


@given(batches(), CONFIGS)
def test_values_are_read_only_where_their_head_is_defined(batch, config):
    """V_hi off boundaries is never read by "segment_return", V_term never by "termination"."""
    if config.switch_advantage == "segment_return":
        opens = batch.boundary | (torch.arange(batch.valid.shape[1]) == 0)
        changes = {"values_high": torch.where(opens, batch.values_high, 1e6)}
    else:
        changes = {"values_term": batch.values_term + 1e6}
    expected, actual = batch.estimate(config), batch.estimate(config, **changes)
    for name in FIELDS:
        assert torch.equal(getattr(actual, name), getattr(expected, name))


@pytest.mark.parametrize("reopens", [True, False])
def test_termination_inside_a_row_stops_every_carry(reopens):
    result = hierarchical_advantages(
        rewards=row(1, 2, 4, 8),
        values_low=row(0, 0, 0, 0),
        values_high=row(0, 0, 5, 0),
        values_term=row(0, 0, 0, 0),
        boundary=row(1, 0, reopens, 0),
        valid=row(1, 1, 1, 1),
        terminated=row(0, 1, 0, 1),
        config=HAEConfig(1.0, 1.0, 1.0),
    )
    torch.testing.assert_close(result.adv_low, row(3, 2, 12, 8))
    torch.testing.assert_close(result.adv_high, row(3, 0, (12 - 5) * reopens, 0))
    torch.testing.assert_close(result.adv_switch, row(3, 2, 12, 8))


# ---------------------------------------------------------------------------------------------------------------------
# Types, shapes, errors.


@pytest.mark.parametrize(
    ("given_dtype", "returned"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_computation_is_in_at_least_float32(given_dtype, returned):
    batch = random_batch(0, [5, 3], 6, 0.4)
    config = HAEConfig(0.99, 0.95, 0.9)
    rounded = {name: value.to(given_dtype) for name, value in vars(batch).items() if value.dtype == torch.float64}
    # Rounding the inputs is the only loss: the same numbers given in float64 lead to the same result.
    exact = batch.estimate(config, **{name: value.double() for name, value in rounded.items()})
    result = batch.estimate(config, **rounded)
    for name in FIELDS:
        assert getattr(result, name).dtype == returned
        torch.testing.assert_close(getattr(result, name).double(), getattr(exact, name), rtol=1e-5, atol=1e-5)


def test_marks_may_be_numbers_and_the_result_has_no_gradient():
    batch = random_batch(1, [4, 2], 4, 0.5)
    config = HAEConfig(0.9, 0.8, 0.7)
    as_numbers = {name: getattr(batch, name).float() for name in ("boundary", "valid", "terminated")}
    with_gradient = batch.values_low.clone().requires_grad_()
    result = batch.estimate(config, **as_numbers, values_low=with_gradient)
    for name in FIELDS:
        assert torch.equal(getattr(result, name), getattr(batch.estimate(config), name))
        assert not getattr(result, name).requires_grad


def test_inputs_are_left_alone():
    batch = random_batch(2, [4, 2], 4, 0.5)
    before = {name: value.clone() for name, value in vars(batch).items()}
    batch.estimate(HAEConfig(0.9, 0.8, 0.7, "termination", True))
    for name, value in before.items():
        torch.testing.assert_close(getattr(batch, name), value, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_empty_grids(shape):
    zeros = torch.zeros(shape)
    result = hierarchical_advantages(*[zeros] * 7, config=HAEConfig(1.0, 1.0, 0.95))
    assert all(getattr(result, name).shape == shape for name in FIELDS)


def test_valid_must_be_right_padded():
    batch = random_batch(3, [3, 3], 4, 0.5)
    batch.valid[1, 0] = False
    with pytest.raises(ValueError, match="right-padded"):
        batch.estimate(HAEConfig(1.0, 1.0, 1.0))


@pytest.mark.parametrize("name", sorted(vars(random_batch(0, [1], 1, 0.0)).keys()))
def test_shapes_must_agree(name):
    batch = random_batch(3, [3, 3], 4, 0.5)
    with pytest.raises(ValueError, match="rewards|" + name):
        batch.estimate(HAEConfig(1.0, 1.0, 1.0), **{name: getattr(batch, name)[:1]})


def test_one_dimensional_rewards_are_refused():
    ones = torch.ones(3)
    with pytest.raises(ValueError, match=r"\[episodes, turns\]"):
        hierarchical_advantages(*[ones] * 7, config=HAEConfig(1.0, 1.0, 1.0))


@pytest.mark.parametrize("missing", ["bootstrap_low", "bootstrap_high"])
def test_a_cut_episode_needs_its_bootstrap(missing):
    config = HAEConfig(1.0, 1.0, 1.0, bootstrap_truncated=True)
    batch = random_batch(3, [3, 3], 4, 0.5)
    batch.terminated[0, 2] = False
    with pytest.raises(ValueError, match=f"{missing}.*bootstrap_truncated=False"):
        batch.estimate(config, **{missing: None})
    batch.terminated[:, 2] = True
    batch.estimate(config, **{missing: None})


@pytest.mark.parametrize("missing", ["switch_prob", "values_low_prev"])
def test_termination_needs_its_arguments(missing):
    batch = random_batch(3, [3, 3], 4, 0.5)
    with pytest.raises(ValueError, match=f"{missing}.*switch_advantage=segment_return"):
        batch.estimate(HAEConfig(1.0, 1.0, 1.0, switch_advantage="termination"), **{missing: None})


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"gamma": 1.01}, r"algorithm\.gamma"),
        ({"lam_turn": -0.1}, r"algorithm\.lam"),
        ({"lam_seg": math.nan}, r"algorithm\.hae\.lam_seg"),
        ({"lam_boundary": 1.5}, r"algorithm\.hae\.lam_boundary"),
        ({"switch_advantage": "other"}, r"algorithm\.hae\.switch_advantage"),
    ],
)
def test_settings_outside_their_range(change, key):
    with pytest.raises(ValueError, match=key):
        HAEConfig(**({"gamma": 1.0, "lam_turn": 1.0, "lam_seg": 1.0} | change))
