# SPDX-License-Identifier: Apache-2.0
"""Every estimator through the registry: what it takes, and what it returns for the three decisions of a turn."""

from dataclasses import replace

import pytest
import torch

from recipe.hiper.estimators.hae import HAEConfig
from recipe.hiper.estimators.registry import (
    ESTIMATORS,
    OF_GROUPS,
    EstimatorConfig,
    TurnGrids,
    estimate_advantages,
    whiten_advantages,
)
from recipe.hiper.estimators.shaping import ShapingConfig
from recipe.hiper.estimators.values import ValueSlot
from recipe.hiper.estimators.whitening import whiten

HAE = HAEConfig(gamma=0.5, lam_turn=1.0, lam_seg=0.5)


def config(name: str, **shaping) -> EstimatorConfig:
    return EstimatorConfig(name, HAE, ShapingConfig(**shaping))


def grids(**changes) -> TurnGrids:
    """Two episodes of one task, three turns and two; the second turn of both is a KEEP, and both start alike."""
    valid = torch.tensor([[True, True, True], [True, True, False]])
    usual = TurnGrids(
        rewards=torch.tensor([[0.0, 0.0, 8.0], [0.0, 0.0, 0.0]]),
        valid=valid,
        boundary=torch.tensor([[True, False, True], [True, False, False]]),
        copied_exactly=torch.tensor([[False, True, False], [False, False, False]]),
        comparable=valid,
        well_formed=valid,
        admissible=valid,
        terminated=torch.tensor([[False, False, True], [False, True, False]]),
        anchor=torch.tensor([[0, 1, 2], [0, 3, 0]]),
        group=torch.tensor([0, 0]),
        switch_probability=torch.tensor([[1.0, 0.25, 0.5], [1.0, 0.5, 0.0]]),
        values=torch.ones(2, 3, 3),
    )
    return replace(usual, **changes)


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name not in ("hae", "gae")])
def test_without_hierarchy_the_decisions_of_a_turn_share_one_advantage(name):
    result = estimate_advantages(grids(), config(name))
    assert torch.equal(result.switch, result.action) and result.action.abs().sum() > 0
    assert torch.equal(result.subgoal, result.action * grids().opens)


def test_turn_gae_reads_the_high_value_and_no_other():
    values = torch.stack([torch.full((2, 3), 2.0), torch.full((2, 3), 50.0), torch.full((2, 3), 70.0)], dim=-1)
    result = estimate_advantages(grids(values=values), config("turn_gae"))
    # lambda = 1, gamma = 1/2: the discounted return minus 2
    assert result.action.tolist() == [[0.0, 2.0, 6.0], [-2.0, -2.0, 0.0]]
    assert result.targets[..., ValueSlot.HIGH].tolist() == [[2.0, 4.0, 8.0], [0.0, 0.0, 0.0]]
    assert result.has_target[..., ValueSlot.HIGH].tolist() == grids().valid.tolist()
    assert not result.has_target[..., ValueSlot.LOW :].any()


@pytest.mark.parametrize("name", OF_GROUPS)
def test_estimators_of_groups_need_no_values_and_teach_none(name):
    result = estimate_advantages(grids(values=None), config(name))
    assert not result.has_target.any() and not result.targets.any()
    # The winner's turns are better than the loser's, by the same amount around the mean of the two.
    assert (result.action[0] > 0).all() and (result.action[1, :2] < 0).all() and result.action[1, 2] == 0


@pytest.mark.parametrize("name", OF_GROUPS)
def test_the_turn_of_a_penalty_does_not_tell_episodes_of_a_group_apart(name):
    """Both win and pay once for a malformed reply: in float32 9.9 and 10 - 0.1 differ, and GRPO divided by that."""
    result = estimate_advantages(
        grids(
            values=None,
            rewards=torch.tensor([[0.0, 0.0, 10.0], [0.0, 10.0, 0.0]]),
            well_formed=torch.tensor([[True, True, False], [False, True, True]]),
            anchor=torch.tensor([[0, 1, 2], [3, 4, 0]]),  # no state occurs twice: the first part of gigpo alone
        ),
        config(name, invalid_action_penalty_coef=0.1),
    )
    assert result.action.dtype == torch.float32
    assert result.action.abs().max() < 1e-8


@pytest.mark.parametrize("name", ["hae", "turn_gae"])
def test_a_critic_is_asked_for_by_name(name):
    with pytest.raises(ValueError, match=f"{name} estimates advantages from values"):
        estimate_advantages(grids(values=None), config(name))


def test_an_unknown_estimator_is_refused():
    with pytest.raises(ValueError, match="a2c is not one of"):
        estimate_advantages(grids(), config("a2c"))


def test_the_price_of_a_switch_is_charged_to_the_decision_alone_and_less_its_expectation():
    free, dear = (
        estimate_advantages(grids(), config("hae")),
        estimate_advantages(grids(), config("hae", switch_cost=2.0)),
    )
    # -2 (q - beta) after turn 0: KEEP against 0.25 gains 1/2, SWITCH against 0.5 loses 1, KEEP against 0.5 gains 1
    charge = torch.tensor([[0.0, 0.5, -1.0], [0.0, 1.0, 0.0]])
    torch.testing.assert_close(dear.switch - free.switch, charge)
    for name in ("subgoal", "action", "targets"):
        assert torch.equal(getattr(dear, name), getattr(free, name))


def test_penalties_for_keeping_leave_actions_alone_where_the_switch_decision_pays():
    penalties = {"keep_penalty": -0.5, "keep_consistency_penalty": -0.25}
    free = estimate_advantages(grids(), config("hae"))
    by_turn = estimate_advantages(grids(), config("hae", **penalties))
    by_switch = estimate_advantages(grids(), config("hae", **penalties, penalty_credit="switch"))
    # The second episode's KEEP does not copy: it pays both.
    paid = torch.tensor([[0.0, -0.5, 0.0], [0.0, -0.75, 0.0]])
    torch.testing.assert_close(by_switch.switch - free.switch, paid)
    assert torch.equal(by_switch.action, free.action) and torch.equal(by_switch.shaped.rewards, free.shaped.rewards)
    assert not torch.equal(by_turn.action, free.action) and not torch.equal(by_turn.subgoal, free.subgoal)
    # Both report what was charged.
    assert torch.equal(by_turn.shaped.keep_penalty, by_switch.shaped.keep_penalty)


def test_whitening_is_by_decision_under_hae_and_by_turn_without_hierarchy():
    turns = grids()
    result = estimate_advantages(turns, config("hae"))
    switch, subgoal, action = whiten_advantages(turns, result, config("hae"))
    assert torch.equal(switch, whiten(result.switch, turns.valid))
    assert torch.equal(subgoal, whiten(result.subgoal, turns.opens))
    assert torch.equal(action, whiten(result.action, turns.valid))
    flat = estimate_advantages(turns, config("turn_gae"))
    for advantage in whiten_advantages(turns, flat, config("turn_gae"))[::2]:
        assert torch.equal(advantage, whiten(flat.action, turns.valid))
    left_alone = estimate_advantages(turns, config("grpo"))
    assert torch.equal(whiten_advantages(turns, left_alone, config("grpo"))[2], left_alone.action)


def test_the_step_limit_is_bootstrapped_from_only_when_asked():
    cut = grids(terminated=torch.zeros(2, 3, dtype=torch.bool), bootstrap=torch.full((2, 3), 4.0))
    for name in ("hae", "turn_gae"):
        without = estimate_advantages(cut, config(name)).action
        with_it = estimate_advantages(cut, replace(config(name), hae=replace(HAE, bootstrap_truncated=True))).action
        # gamma times 4 on the last turns
        assert (with_it - without)[0, 2] == 2.0 and (with_it - without)[1, 1] == 2.0


@pytest.mark.parametrize("name", ["hae", "turn_gae"])
def test_monte_carlo_targets_hold_no_values(name):
    """gamma = 1/2 and a reward of 8 at the end: 2, 4, 8; penalties of the turns are part of it."""
    settings = replace(config(name, inadmissible_penalty=-1.0), value_targets="monte_carlo")
    admissible = torch.tensor([[True, False, True], [True, True, False]])
    with_values = [
        estimate_advantages(grids(values=torch.full((2, 3, 3), size), admissible=admissible), settings)
        for size in (0.0, 100.0)
    ]
    assert torch.equal(with_values[0].targets, with_values[1].targets)
    targets, has_target = with_values[0].targets, with_values[0].has_target
    expected = torch.tensor([[1.5, 3.0, 8.0], [0.0, 0.0, 0.0]])
    for slot in ValueSlot:
        mask = has_target[..., slot]
        assert torch.equal(targets[..., slot], torch.where(mask, expected, 0.0))
    assert has_target[..., ValueSlot.HIGH].any()
    usual = estimate_advantages(grids(admissible=admissible), config(name, inadmissible_penalty=-1.0))
    assert torch.equal(usual.has_target, has_target)


def test_monte_carlo_targets_of_an_episode_that_was_cut_end_in_the_value_after_it():
    settings = EstimatorConfig(
        "hae", replace(HAE, bootstrap_truncated=True), ShapingConfig(), value_targets="monte_carlo"
    )
    cut = torch.tensor([[False, False, True], [False, False, False]])
    result = estimate_advantages(grids(terminated=cut, bootstrap=torch.full((2, 3), 4.0)), settings)
    assert result.targets[..., ValueSlot.LOW].tolist() == [[2.0, 4.0, 8.0], [1.0, 2.0, 0.0]]


def test_advantages_are_those_of_the_estimator_whatever_the_values_learn():
    usual, changed = (
        estimate_advantages(grids(), replace(config("hae"), value_targets=targets))
        for targets in ("lambda_return", "monte_carlo")
    )
    for decision in ("switch", "subgoal", "action"):
        assert torch.equal(getattr(usual, decision), getattr(changed, decision))
