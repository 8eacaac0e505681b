# SPDX-License-Identifier: Apache-2.0
"""Advantages of the three decisions of every turn, by any estimator: grids in, grids out.

The trainer, the credit lab and the tiny game all come through here. What an estimator does stands in a file of its own:

    name       compares                            with                                 critic
    hae        switch, sub-goal and action, each   the values before and after it       2 or 3 heads
    turn_gae   a turn (lambda-return)              its value                            1 head
    grpo       an episode                          its group, in standard deviations    none
    rloo       an episode                          the others of its group              none
    gigpo      an episode, and a turn              its group, turns in the same state   none

`gae` is verl's own, over the tokens of a reply (`verl.trainer.ppo.core_algos`), and does not come through here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recipe.hiper.estimators.gigpo import gigpo_advantages
from recipe.hiper.estimators.grpo import grpo_advantages
from recipe.hiper.estimators.hae import HAEConfig, hierarchical_advantages
from recipe.hiper.estimators.rloo import rloo_advantages
from recipe.hiper.estimators.shaping import ShapedRewards, ShapingConfig, shaped_rewards
from recipe.hiper.estimators.turn_gae import turn_gae
from recipe.hiper.estimators.values import Head
from recipe.hiper.estimators.whitening import whiten

WITH_CRITIC = ("hae", "turn_gae", "gae")
OF_GROUPS = ("grpo", "rloo", "gigpo")
ESTIMATORS = (*WITH_CRITIC, *OF_GROUPS)


@dataclass(frozen=True)
class EstimatorConfig:
    """Which estimator, and how.

    Attributes:
        name: `algorithm.adv_estimator`.
        hae: discount, lambdas and the variants of `hae`; `turn_gae` and `gigpo` read the discount, `turn_gae`
            `lam_turn` and `bootstrap_truncated` as well.
        shaping: penalties added to the environment's rewards.
        whiten: whiten the advantages of `hae` (each of the three by itself) and `turn_gae`. Those of groups are
            normalised in their groups already.
        divide_by_std: of `grpo` and `gigpo`.
        step_weight: of `gigpo`.
    """

    name: str
    hae: HAEConfig
    shaping: ShapingConfig
    whiten: bool = True
    divide_by_std: bool = True
    step_weight: float = 1.0

    @property
    def is_hierarchical(self) -> bool:
        """Whether the three decisions of a turn have advantages of their own."""
        return self.name == "hae"


@dataclass(frozen=True)
class TurnGrids:
    """The turns of a batch of episodes, `[episodes, turns]`, right-padded, unless said otherwise.

    Attributes:
        rewards: the environment's.
        valid: marks real turns.
        boundary, copied_exactly, comparable: `protocol.Decision`.
        well_formed, admissible: whether the reply keeps to the format, and the action was offered.
        terminated: whether the environment terminated on that turn.
        anchor: equal integers for equal observations.
        group: task and seed of an episode, any integers, `[episodes]`.
        switch_probability: P(SWITCH | s_t, o_{t-1}) under the policy that sampled.
        values: `[episodes, turns, 3]` by `credit.Head`; None without a critic.
        bootstrap: the same for the state after the last turn, `[episodes, 3]`; None where it counts as 0.
    """

    rewards: Tensor
    valid: Tensor
    boundary: Tensor
    copied_exactly: Tensor
    comparable: Tensor
    well_formed: Tensor
    admissible: Tensor
    terminated: Tensor
    anchor: Tensor
    group: Tensor
    switch_probability: Tensor
    values: Tensor | None = None
    bootstrap: Tensor | None = None

    @property
    def opens(self) -> Tensor:
        """Turns that open a segment."""
        return self.boundary.bool() & self.valid.bool()

    @property
    def longest(self) -> int:
        """Turns of the longest episode."""
        return self.valid.shape[1]


@dataclass(frozen=True)
class Estimate:
    """Advantages before whitening, `[episodes, turns]`, and what the critic is to learn.

    Attributes:
        shaped: shaped rewards and their parts.
        switch, subgoal, action: advantage of each decision; `subgoal` is zero off the turns that open a segment. An
            estimator without hierarchy gives all three the same.
        targets: value targets `[episodes, turns, 3]` by `credit.Head`, zero where there is none.
        has_target: which of them there are, bool.
    """

    shaped: ShapedRewards
    switch: Tensor
    subgoal: Tensor
    action: Tensor
    targets: Tensor
    has_target: Tensor


def estimate(turns: TurnGrids, config: EstimatorConfig) -> Estimate:
    """Shape the rewards and estimate the advantages.

    Raises:
        ValueError: shapes differ, the estimator needs values and there are none, or it is not one of these.
    """
    # Groups in float64: rewards and penalties that add up to the same in another order must not differ, for a group is
    # divided by how much it differs.
    rewards = turns.rewards.double() if config.name in OF_GROUPS else turns.rewards
    shaped = shaped_rewards(
        rewards=rewards,
        boundary=turns.boundary,
        valid=turns.valid,
        well_formed=turns.well_formed,
        admissible=turns.admissible,
        copied_exactly=turns.copied_exactly,
        comparable=turns.comparable,
        config=config.shaping,
    )
    if config.name in ("hae", "turn_gae"):
        if turns.values is None:
            raise ValueError(f"{config.name} estimates advantages from values, and there are none")
        return _hae(turns, shaped, config) if config.is_hierarchical else _turn_gae(turns, shaped, config)
    if config.name == "gigpo":
        advantage = gigpo_advantages(
            shaped.rewards,
            turns.valid,
            turns.anchor,
            turns.group,
            gamma=config.hae.gamma,
            step_weight=config.step_weight,
            divide_by_std=config.divide_by_std,
        )
    elif config.name in ("grpo", "rloo"):
        returns_E = shaped.rewards.sum(dim=1)
        if config.name == "grpo":
            advantage_E = grpo_advantages(returns_E, turns.group, divide_by_std=config.divide_by_std)
        else:
            advantage_E = rloo_advantages(returns_E, turns.group)
        advantage = advantage_E[:, None] * turns.valid.bool()
    else:
        raise ValueError(f"{config.name} is not one of hae, turn_gae, {', '.join(OF_GROUPS)}")
    advantage = advantage.to(torch.promote_types(turns.rewards.dtype, torch.float32))
    nothing = torch.zeros(*turns.valid.shape, len(Head), dtype=advantage.dtype)
    return Estimate(shaped, advantage, advantage * turns.opens, advantage, nothing, nothing.bool())


def whitened(turns: TurnGrids, found: Estimate, config: EstimatorConfig) -> tuple[Tensor, Tensor, Tensor]:
    """The advantages of switch, sub-goal and action as the policy loss gets them."""
    if not config.whiten or config.name in OF_GROUPS:
        return found.switch, found.subgoal, found.action
    if config.is_hierarchical:
        return (
            whiten(found.switch, turns.valid),
            whiten(found.subgoal, turns.opens),
            whiten(found.action, turns.valid),
        )
    advantage = whiten(found.action, turns.valid)
    return advantage, advantage * turns.opens, advantage


def _hae(turns: TurnGrids, shaped: ShapedRewards, config: EstimatorConfig) -> Estimate:
    assert turns.values is not None  # hae has a critic
    high, low, before_switch = turns.values.unbind(dim=-1)
    # On turn 0 there is no sub-goal to keep: with the planner's own value in its place the advantage is zero.
    low_before = torch.cat([high[:, :1], before_switch[:, 1:]], dim=1)
    bootstrap = turns.bootstrap if config.hae.bootstrap_truncated else None
    raw = hierarchical_advantages(
        shaped.rewards,
        low,
        high,
        before_switch,
        turns.boundary,
        turns.valid,
        turns.terminated,
        config.hae,
        # The prompt after the last turn shows the sub-goal in force, and nothing is written yet: the value before the
        # switch decision is the executor's there.
        bootstrap_low=None if bootstrap is None else bootstrap[:, Head.TERM],
        bootstrap_high=None if bootstrap is None else bootstrap[:, Head.HIGH],
        switch_prob=turns.switch_probability,
        values_low_prev=low_before,
    )
    valid, opens = turns.valid.bool(), turns.opens
    # The value before the switch decision learns the return within the segment. For "termination" it stands for
    # V_lo(s_t, o_{t-1}), and turns on which o_{t-1} was kept say what that is worth.
    if config.hae.switch_advantage == "segment_return":
        term_target, term_mask = raw.target_term, valid
    else:
        term_target, term_mask = raw.target_low, valid & ~opens
    pairs = {
        Head.HIGH: (raw.target_high, opens),
        Head.LOW: (raw.target_low, valid),
        Head.TERM: (term_target, term_mask),
    }
    return Estimate(
        shaped=shaped,
        switch=raw.adv_switch + switch_charge(turns, shaped, config.shaping),
        subgoal=raw.adv_high,
        action=raw.adv_low,
        targets=torch.stack([pairs[slot][0].masked_fill(~pairs[slot][1], 0.0) for slot in Head], dim=-1),
        has_target=torch.stack([pairs[slot][1] for slot in Head], dim=-1),
    )


def switch_charge(turns: TurnGrids, shaped: ShapedRewards, config: ShapingConfig) -> Tensor:
    """What is charged to the switch decision alone, `[episodes, turns]`; zero on turn 0, where there is no decision.

    `switch_cost` is a deliberation cost (Harb et al., "When Waiting Is Not an Option", arXiv 1709.04571): a price of
    SWITCH, taken off less its expectation, so that KEEP gains what SWITCH is likely to cost: -(q - beta) cost. With
    `penalty_credit` "switch" the price of KEEP and of a wrong copy stand here instead of in the rewards.
    """
    later = turns.valid.bool().clone()
    later[:, :1] = False
    surprise = turns.boundary.to(shaped.rewards.dtype) - turns.switch_probability.to(shaped.rewards.dtype)
    charge = -config.switch_cost * surprise
    if config.penalty_credit == "switch":
        charge = charge + shaped.keep_penalty + shaped.consistency_penalty
    return torch.where(later, charge, torch.zeros((), dtype=charge.dtype))


def _turn_gae(turns: TurnGrids, shaped: ShapedRewards, config: EstimatorConfig) -> Estimate:
    assert turns.values is not None  # turn_gae has a critic
    bootstrap = turns.bootstrap if config.hae.bootstrap_truncated else None
    found = turn_gae(
        shaped.rewards,
        turns.values[..., Head.HIGH],
        turns.valid,
        turns.terminated,
        gamma=config.hae.gamma,
        lam=config.hae.lam_turn,
        bootstrap=None if bootstrap is None else bootstrap[:, Head.HIGH],
    )
    targets = torch.zeros(*turns.valid.shape, len(Head), dtype=found.targets.dtype)
    targets[..., Head.HIGH] = found.targets
    has_target = torch.zeros_like(targets, dtype=torch.bool)
    has_target[..., Head.HIGH] = turns.valid.bool()
    advantage = found.advantages
    return Estimate(shaped, advantage, advantage * turns.opens, advantage, targets, has_target)
