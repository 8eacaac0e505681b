# SPDX-License-Identifier: Apache-2.0
"""HAE against the exact policy gradient of a small plan-execute process (the paper's theorem and its two claims).

All draws are seeded: a test that passes once passes always. "On average right" means that the exact gradient is not
further from the mean estimate than randomness puts it in 99 of 100 cases (Hotelling's test with the covariance of the
episodes, chi-squared for so many).
"""

from __future__ import annotations

from functools import cache
from itertools import product

import pytest
import torch

from recipe.hiper.estimators.hae import HAEConfig
from recipe.hiper.toy.oracle import (
    TabularPolicy,
    disturbed,
    episode_gradients,
    exact_gradient,
    exact_values,
    hae_advantages,
    make_policy,
    make_task,
    mismatch,
    sample,
    token_advantages,
    turn_advantages,
)

EPISODES = 15_000
SEEDS = (0, 1, 2)


def likelihood(policy: TabularPolicy, task, path) -> torch.Tensor:
    """Probability of the decisions and states of a path [(state, opens, subgoal, action), ...]."""
    beta, pi_o, pi_a = policy.switch.sigmoid(), policy.subgoal.softmax(-1), policy.action.softmax(-1)
    probability, kept = task.start[path[0][0]], 0
    for turn, (state, opens, subgoal, action) in enumerate(path):
        if turn > 0:
            probability = probability * (beta[state, kept] if opens else 1 - beta[state, kept])
        if opens:
            probability = probability * pi_o[state, subgoal]
        probability = probability * pi_a[state, subgoal, action]
        if turn + 1 < len(path):
            probability = probability * task.transition[state, action, path[turn + 1][0]]
        kept = subgoal
    return probability


def paths(states: int, horizon: int):
    """Every path that the rules allow: turn 0 opens, and a turn that does not open keeps its sub-goal."""
    turns = list(product(range(states), (True, False), range(2), range(2)))
    for path in product(turns, repeat=horizon):
        keeps = all(opens or path[t - 1][2] == subgoal for t, (_, opens, subgoal, _) in enumerate(path) if t > 0)
        if path[0][1] and keeps:
            yield path


@pytest.mark.parametrize("gamma", [1.0, 0.8])
def test_values_and_gradient_are_those_of_an_enumeration(gamma):
    """Every path of two turns, one by one: expected return, and its gradient by differentiating the likelihoods."""
    task, policy = make_task(5, states=2, horizon=2, gamma=gamma), make_policy(6, states=2)
    free = TabularPolicy(*(table.clone().requires_grad_() for table in policy.parameters()))
    total, probabilities = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for path in paths(states=2, horizon=2):
        earned = sum(gamma**turn * task.reward[state, action] for turn, (state, _, _, action) in enumerate(path))
        probability = likelihood(free, task, path)
        total, probabilities = total + probability * earned, probabilities + probability
    assert probabilities.item() == pytest.approx(1.0)
    assert float((task.start * exact_values(task, policy).high[0]).sum()) == pytest.approx(total.item())
    gradient = torch.cat([part.flatten() for part in torch.autograd.grad(total, free.parameters())])
    torch.testing.assert_close(exact_gradient(task, policy), gradient)


@cache
def episodes_of(seed: int, gamma: float):
    """Task, policy and episodes of a seed."""
    task, policy = make_task(seed, gamma=gamma), make_policy(seed + 100)
    return task, policy, sample(task, policy, EPISODES, seed + 300)


@cache
def estimates(seed: int, estimator: str, *, wrong: float = 0.0, lam: float = 1.0, gamma: float = 1.0):
    """(each episode's gradient, the exact one) of an estimator on the task and policy of a seed."""
    task, policy, played = episodes_of(seed, gamma)
    values = disturbed(exact_values(task, policy), wrong, seed + 200)
    if estimator == "turn":
        advantages = turn_advantages(task, played, values, lam)
    elif estimator == "token":
        advantages = token_advantages(task, played, values, lam)
    else:
        switch = "termination" if estimator == "hae-paper" else "segment_return"
        config = HAEConfig(gamma, lam, lam, switch, lam_boundary=lam if estimator == "hae-past" else 0.0)
        advantages = hae_advantages(task, policy, played, values, config)
    return episode_gradients(policy, played, advantages, gamma), exact_gradient(task, policy)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("estimator", ["hae", "hae-paper", "hae-past", "turn", "token"])
def test_with_exact_values_and_lambda_1_every_estimator_is_right_on_average(estimator, gamma, seed):
    result = mismatch(*estimates(seed, estimator, gamma=gamma))
    assert result.p_value > 0.01 and result.dimensions == 15


@pytest.mark.parametrize("estimator", ["hae", "hae-paper", "hae-past", "turn", "token"])
def test_with_exact_values_any_lambda_is_right_on_average(estimator):
    assert mismatch(*estimates(0, estimator, lam=0.5)).p_value > 0.01


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("estimator", ["hae", "hae-paper"])
def test_hae_varies_less_than_flat_estimators_at_lambda_1(estimator, seed):
    """The paper's claim. Each ratio is below 1 by more than two of its standard errors."""
    ours, _ = estimates(seed, estimator)
    for flat in ("turn", "token"):
        theirs, _ = estimates(seed, flat)
        squares = [((sample - sample.mean(0)) ** 2).sum(1) for sample in (ours, theirs)]
        ratio = squares[0].mean() / squares[1].mean()
        error = (squares[0] - ratio * squares[1]).std() / squares[1].mean() / EPISODES**0.5  # delta method
        assert ratio + 2 * error < 0.9


def test_wrong_values_bias_hae_and_leave_monte_carlo_right():
    """HAE puts V_hi in the place of what comes after a segment, whatever lambda: an error in it stays.

    Not with lam_boundary = 1, which makes all of it Monte Carlo.
    """
    for right in ("turn", "token", "hae-past"):
        assert mismatch(*estimates(1, right, wrong=2.0)).p_value > 0.01
    for hierarchical in ("hae", "hae-paper"):
        assert mismatch(*estimates(1, hierarchical, wrong=2.0)).p_value < 1e-4


@pytest.mark.parametrize("estimator", ["turn", "token", "hae", "hae-paper", "hae-past"])
def test_a_smaller_lambda_varies_less_and_with_wrong_values_is_more_biased(estimator):
    exact, wrong = (
        [mismatch(*estimates(1, estimator, wrong=error, lam=lam)) for lam in (1.0, 0.5, 0.0)] for error in (0.0, 1.0)
    )
    assert exact[0].variance > exact[1].variance > exact[2].variance
    assert wrong[0].relative_bias < wrong[1].relative_bias < wrong[2].relative_bias


def test_without_gamma_to_the_t_it_is_the_gradient_of_something_else():
    """Which is what every PPO with gamma < 1 does."""
    task, policy, played = episodes_of(0, 0.8)
    advantages = hae_advantages(task, policy, played, exact_values(task, policy), HAEConfig(0.8, 1.0, 1.0))
    exact = exact_gradient(task, policy)
    assert mismatch(episode_gradients(policy, played, advantages, 0.8), exact).p_value > 0.01
    assert mismatch(episode_gradients(policy, played, advantages), exact).p_value < 1e-6
