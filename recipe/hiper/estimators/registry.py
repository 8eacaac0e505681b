# SPDX-License-Identifier: Apache-2.0
"""The table of estimators, and the one way to run them: grids in, advantages of the three decisions out.

Trainer, validation, credit lab and errand game read this table. Each entry stands in the estimator's own file:

    name       compares                            with                                 critic
    hae        switch, sub-goal and action, each   the values before and after it       2 or 3 heads
    turn_gae   a turn (lambda-return)              its value                            1 head
    gae        a token (verl's own)                its value                            1 head
    grpo       an episode                          its group, in standard deviations    none
    rloo       an episode                          the others of its group              none
    gigpo      an episode, and a turn              its group, turns in the same state   none

An estimator of your own is one module with one entry, chosen with `algorithm.adv_estimator=my_module:MY_ESTIMATOR`.
Its folder must be on PYTHONPATH, so that the Ray processes find it too:

    from recipe.hiper.estimators.registry import SHARED_KEYS, Estimator, TurnAdvantages

    def excess_return(turns, shaped, config):
        rest = shaped.rewards.flip(1).cumsum(1).flip(1)  # return from each turn on
        advantage = (rest - turns.required_values[..., 0]) * turns.valid
        return TurnAdvantages.of_turns(turns, shaped, advantage, targets=rest)

    MY_ESTIMATOR = Estimator("my_module:MY_ESTIMATOR", excess_return, critic_heads=(1,))
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import torch
from torch import Tensor

from recipe.hiper.estimators import gigpo, grpo, hae, rloo, turn_gae, verl_gae
from recipe.hiper.estimators.config import EstimatorConfig, HAEConfig
from recipe.hiper.estimators.entry import NORM_ADV, SHARED_KEYS, VALUE_TARGETS, Estimator
from recipe.hiper.estimators.grids import TurnAdvantages, TurnGrids
from recipe.hiper.estimators.shaping import shaped_rewards
from recipe.hiper.estimators.values import ValueSlot
from recipe.hiper.estimators.whitening import whiten

__all__ = [
    "ESTIMATORS",
    "OF_GROUPS",
    "SHARED_KEYS",
    "WITH_CRITIC",
    "Estimator",
    "EstimatorConfig",
    "TurnAdvantages",
    "TurnGrids",
    "UnknownEstimator",
    "estimate_advantages",
    "find_estimator",
    "register",
    "whiten_advantages",
]

_TABLE: dict[str, Estimator] = {}


class UnknownEstimator(ValueError):
    """`algorithm.adv_estimator` names no estimator."""


def register(entry: Estimator) -> Estimator:
    """Add an entry to the table of this process, and return it.

    `module:NAME` needs no registration: every process that reads the name imports the module itself.

    Raises:
        ValueError: another estimator has this name.
    """
    if _TABLE.setdefault(entry.name, entry) != entry:
        raise ValueError(f"there is another estimator of the name {entry.name}")
    return entry


for _module in (hae, turn_gae, verl_gae, grpo, rloo, gigpo):
    register(_module.ESTIMATOR)

ESTIMATORS = tuple(_TABLE)
"""Names of the estimators of this repository."""
WITH_CRITIC = tuple(name for name, entry in _TABLE.items() if entry.has_critic)
OF_GROUPS = tuple(name for name, entry in _TABLE.items() if entry.needs_groups)


def find_estimator(name: str) -> Estimator:
    """The entry of a registered name, or the `Estimator` that "module:NAME" names.

    Raises:
        UnknownEstimator: there is none; the message is for the user.
    """
    if name in _TABLE:
        return _TABLE[name]
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise UnknownEstimator(
            f"algorithm.adv_estimator={name} is not one of {', '.join(_TABLE)}, nor module:NAME for an Estimator of "
            f"your own. Try: algorithm.adv_estimator={ESTIMATORS[0]}"
        )
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise UnknownEstimator(
            f"algorithm.adv_estimator={name}: the module {module_name} cannot be imported ({error}); PYTHONPATH must "
            f"hold its folder. Try: PYTHONPATH=<folder of {module_name}>, or algorithm.adv_estimator={ESTIMATORS[0]}"
        ) from error
    entry = getattr(module, attribute, None)
    if not isinstance(entry, Estimator):
        raise UnknownEstimator(
            f"algorithm.adv_estimator={name}: the module {module_name} has no Estimator {attribute!r}. "
            f"Try: algorithm.adv_estimator={module_name}:<NAME>, or algorithm.adv_estimator={ESTIMATORS[0]}"
        )
    return entry


def estimate_advantages(turns: TurnGrids, config: EstimatorConfig) -> TurnAdvantages:
    """Shape the rewards and estimate the advantages.

    Raises:
        ValueError: shapes differ, the estimator needs values and there are none, or it is verl's own or unknown.
    """
    entry = find_estimator(config.name)
    if entry.function is None:
        raise ValueError(f"{config.name} is verl's own and is not estimated from turns")
    if entry.has_critic and turns.values is None:
        raise ValueError(f"{config.name} estimates advantages from values, and there are none")
    # In float64 rewards and penalties that add up to the same in another order do not differ.
    rewards = turns.rewards.double() if entry.rewards_in_float64 else turns.rewards
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
    advantages = entry.function(turns, shaped, config)
    if config.value_targets == "monte_carlo" and VALUE_TARGETS in entry.keys:
        return replace(advantages, targets=monte_carlo_targets(turns, advantages, config.hae))
    return advantages


def monte_carlo_targets(turns: TurnGrids, advantages: TurnAdvantages, config: HAEConfig) -> Tensor:
    """`sum_k gamma^k r(t+k)` until the end of the episode, at every turn that has a target, `[episodes, turns, 3]`.

    The same for the three values of a turn, so that what they learn differs only in what they see. Targets of the
    estimator bootstrap from the values themselves: while these are still learned, the end of a segment looks good or
    bad only because the high and the low value lag behind each other. A lambda of 1 for the
    critic beside another for the policy is the decoupled GAE of Yuan et al., "What's Behind PPO's Collapse in
    Long-CoT?", arXiv 2503.01491.
    """
    bootstrap = None
    if config.bootstrap_truncated and turns.bootstrap is not None:
        bootstrap = turns.bootstrap[:, ValueSlot.HIGH]
    rewards = advantages.shaped.rewards
    returns = turn_gae.turn_gae(
        rewards,
        torch.zeros_like(rewards),
        turns.valid,
        turns.terminated,
        gamma=config.gamma,
        lam=1.0,
        bootstrap=bootstrap,
    ).targets
    return returns[..., None].expand(-1, -1, len(ValueSlot)).masked_fill(~advantages.has_target, 0.0)


def whiten_advantages(
    turns: TurnGrids, advantages: TurnAdvantages, config: EstimatorConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """The advantages of switch, sub-goal and action as the policy loss gets them.

    Whitened where `algorithm.hae.norm_adv` says so and the estimator reads it: those of `hae` by decision, others by
    turn. Estimators of groups have compared within their groups already.
    """
    entry = find_estimator(config.name)
    if not config.whiten or NORM_ADV not in entry.keys:
        return advantages.switch, advantages.subgoal, advantages.action
    if entry.is_hierarchical:
        return (
            whiten(advantages.switch, turns.valid),
            whiten(advantages.subgoal, turns.opens),
            whiten(advantages.action, turns.valid),
        )
    advantage = whiten(advantages.action, turns.valid)
    return advantage, advantage * turns.opens, advantage
