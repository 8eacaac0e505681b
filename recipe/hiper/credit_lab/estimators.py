# SPDX-License-Identifier: Apache-2.0
"""Every estimator on the same recorded episodes. For the credit lab.

All but one go through `estimators.registry`, as in training. `gae` is verl's own, over tokens, of which the files have
no values; at lambda 1 its advantage at the first token of a reply follows from the file:

    A(t) = R + p_t - V_hi(t),   R the environment's return of the *whole* episode, p_t the penalties of this turn

verl gives every reply of an episode the whole return, so R also holds what was earned before turn t, and the penalties
of later turns are in none. verl's lambda and gamma count in tokens, so only the row for 1 and 1 can be computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import IntEnum

import torch
from torch import Tensor

from agent_system.errors import ConfigError
from recipe.hiper.credit_lab.episodes import Episodes
from recipe.hiper.estimators.hae import HAEConfig
from recipe.hiper.estimators.registry import (
    ESTIMATORS,
    Estimator,
    EstimatorConfig,
    UnknownEstimator,
    estimate_advantages,
    find_estimator,
)
from recipe.hiper.estimators.rloo import rloo_advantages
from recipe.hiper.estimators.shaping import ShapingConfig
from recipe.hiper.estimators.values import ValueSlot


class Decision(IntEnum):
    """What a turn decides, as indices into the last dimension of `[episodes, turns, 3]`."""

    SWITCH = 0
    SUBGOAL = 1
    ACTION = 2

    @property
    def text(self) -> str:
        """The field's word."""
        return ("switch", "sub-goal", "action")[self]


@dataclass(frozen=True)
class LabConfig:
    """What is compared.

    Attributes:
        estimators: names in the table of estimators, or "module:NAME" for one's own, in the order of the rows.
        gamma: discount per turn, of the return-to-go and of the estimators that have one.
        lam, lam_seg: lambdas of `hae`, over the turns of a segment and over segments.
        turn_lams: lambdas of `turn_gae`, a row each.

    Raises:
        ConfigError: a value is out of range; the message names the option.
    """

    estimators: tuple[str, ...] = ESTIMATORS
    gamma: float = 1.0
    lam: float = 1.0
    lam_seg: float = 0.95
    turn_lams: tuple[float, ...] = (0.0, 0.95, 1.0)

    def __post_init__(self) -> None:
        numbers = [("--gamma", self.gamma), ("--lam", self.lam), ("--lam-seg", self.lam_seg)]
        for option, value in (*numbers, *(("--turn-lam", lam) for lam in self.turn_lams)):
            if not 0.0 <= value <= 1.0:  # NaN too
                raise ConfigError(f"{option} {value:g} is not in [0, 1]. Try: {option} 0.95")
        for name in self.estimators:
            try:
                find_estimator(name)
            except UnknownEstimator as error:
                raise ConfigError(
                    f"--estimators {name} is not one of {', '.join(ESTIMATORS)}, nor a module:NAME that can be "
                    f"imported. Try: --estimators {ESTIMATORS[0]}"
                ) from error


@dataclass(frozen=True)
class VariantAdvantages:
    """An estimator with one choice of its settings on the recorded episodes: one row of the table.

    Attributes:
        label: name of the row.
        estimator: name of the estimator.
        advantages: `[episodes, turns, 3]` by `Decision`, before whitening.
        baseline: what each advantage was taken against, the same shape. Where the whole return of an episode is
            compared, what it had earned before the turn is a part of it: that was settled before the decision.
        in_reward_units: False for advantages in standard deviations of a group.
    """

    label: str
    estimator: str
    advantages: Tensor
    baseline: Tensor
    in_reward_units: bool = True


@dataclass(frozen=True)
class SkippedEstimator:
    """An estimator, or one of its variants, that the files do not allow, and why."""

    name: str
    reason: str


def decision_masks(episodes: Episodes) -> Tensor:
    """Turns that carry each decision, bool `[episodes, turns, 3]`.

    On turn 0 there is nothing to keep or to switch from. A flat agent decides on actions only.
    """
    valid = episodes.turns.valid
    later = valid.clone()
    later[:, 0] = False
    plans = torch.tensor(episodes.is_hierarchical)
    return torch.stack([later & plans, episodes.turns.opens & plans, valid], dim=-1)


def run_estimators(episodes: Episodes, config: LabConfig) -> tuple[list[VariantAdvantages], list[SkippedEstimator]]:
    """All estimators that the files allow, and the others.

    Raises:
        ConfigError: the files allow none of them.
    """
    variants: list[VariantAdvantages] = []
    skipped: list[SkippedEstimator] = []
    for name in config.estimators:
        if reason := _obstacle(find_estimator(name), episodes, config):
            skipped.append(SkippedEstimator(name, reason))
            continue
        for result in _variants(name, episodes, config):
            if isinstance(result, SkippedEstimator):
                skipped.append(result)
            else:
                variants.append(result)
    if not variants:
        reasons = "\n".join(f"  {names}: {reason}" for names, reason in by_reason(skipped))
        raise ConfigError(f"None of the estimators can be run on these episodes.\n{reasons}")
    return variants, skipped


def by_reason(skipped: list[SkippedEstimator]) -> list[tuple[str, str]]:
    """Names and reason, one entry for each reason."""
    names: dict[str, list[str]] = {}
    for estimator in skipped:
        names.setdefault(estimator.reason, []).append(estimator.name)
    return [(", ".join(estimators), reason) for reason, estimators in names.items()]


def mean_of_others(episodes: Episodes, returns_E: Tensor) -> Tensor:
    """Mean of the other episodes of the group; of all other episodes where a group is of one. `[episodes]`.

    No decision of an episode has a part in it, so it is a baseline that moves no expectation. One episode alone: 0.
    """
    everyone = torch.zeros_like(episodes.turns.group)
    of_group, of_all = (returns_E - rloo_advantages(returns_E, group) for group in (episodes.turns.group, everyone))
    alone = torch.bincount(episodes.turns.group)[episodes.turns.group] == 1
    if len(returns_E) == 1:
        return torch.zeros_like(returns_E)
    return torch.where(alone, of_all, of_group)


def _obstacle(entry: Estimator, episodes: Episodes, config: LabConfig) -> str:
    """Why an estimator cannot be run; "" if it can."""
    if entry.is_hierarchical and not episodes.is_hierarchical:
        return "the agent is flat: there are no switch and sub-goal decisions"
    if entry.has_critic and episodes.without_values:
        return episodes.without_values
    if entry.is_verls_own and config.gamma < 1.0:
        return "it discounts by the token, and episode files do not hold the number of tokens. Try: --gamma 1"
    if entry.is_hierarchical and episodes.has_one_head:
        return (
            "the values come from a critic with one head (high and term are equal everywhere), which never learned "
            "what a state is worth under a sub-goal. Try: record with algorithm.adv_estimator=hae"
        )
    if entry.needs_groups and max(episodes.group_sizes) == 1:
        return (
            "every group is of one episode, and there is nothing to compare it with. Try: record with env.rollout.n=8"
        )
    return ""


Variants = Iterator[VariantAdvantages | SkippedEstimator]


def _variants(name: str, episodes: Episodes, config: LabConfig) -> Variants:
    hae = HAEConfig(gamma=config.gamma, lam_turn=config.lam, lam_seg=config.lam_seg)
    base = EstimatorConfig(name, hae, ShapingConfig())
    if name in _VARIANTS:
        return _VARIANTS[name](episodes, config, base)
    return _group_variants(episodes, base) if find_estimator(name).needs_groups else _only_variant(episodes, base)


def _hae_variants(episodes: Episodes, config: LabConfig, base: EstimatorConfig) -> Variants:
    values = episodes.turns.required_values
    own = torch.stack([values[..., slot] for slot in (ValueSlot.TERM, ValueSlot.HIGH, ValueSlot.LOW)], dim=-1)
    yield _run("hae (segment return)", episodes, base, own)
    past = replace(base.hae, lam_boundary=config.lam_seg)
    yield _run(f"hae (past segments, lambda {config.lam_seg:g})", episodes, replace(base, hae=past), own)
    if episodes.without_probability:
        yield SkippedEstimator("hae (termination)", episodes.without_probability)
        return
    # q V_hi + (1 - q) V_lo(o_{t-1}) less its mean under the policy, so that is the baseline.
    beta = episodes.turns.switch_probability
    own = own.clone()
    own[..., 0] = beta * values[..., ValueSlot.HIGH] + (1.0 - beta) * values[..., ValueSlot.TERM]
    termination = replace(base.hae, switch_advantage="termination")
    yield _run("hae (termination)", episodes, replace(base, hae=termination), own)


def _turn_gae_variants(episodes: Episodes, config: LabConfig, base: EstimatorConfig) -> Variants:
    for lam in dict.fromkeys(config.turn_lams):
        settings = replace(base, hae=replace(base.hae, lam_turn=lam))
        yield _run(f"turn_gae, lambda {lam:g}", episodes, settings, _high(episodes))


def _verl_gae_variants(episodes: Episodes, config: LabConfig, base: EstimatorConfig) -> Variants:
    penalties = episodes.turns.rewards - episodes.environment_rewards
    returns = episodes.environment_rewards.sum(dim=1, keepdim=True) + penalties
    baseline = _high(episodes)
    earned = _earned_before(episodes.environment_rewards)[..., None]
    yield VariantAdvantages("gae (verl), lambda 1", base.name, returns[..., None] - baseline, baseline - earned)


def _group_variants(episodes: Episodes, base: EstimatorConfig) -> Variants:
    others = mean_of_others(episodes, episodes.turns.rewards.sum(dim=1))
    own = (others[:, None] - _earned_before(episodes.turns.rewards))[..., None].expand(-1, -1, len(Decision))
    divides = find_estimator(base.name).divides_by_std
    yield _run(base.name, episodes, base, own, in_reward_units=not divides)
    if divides:
        yield _run(f"{base.name}, no std", episodes, replace(base, divide_by_std=False), own)


def _only_variant(episodes: Episodes, base: EstimatorConfig) -> Variants:
    """An estimator that the lab knows nothing about but its entry."""
    if episodes.turns.values is None:
        baseline = torch.zeros(*episodes.turns.valid.shape, len(Decision), dtype=torch.float64)
    else:
        baseline = _high(episodes)
    yield _run(base.name, episodes, base, baseline)


_VARIANTS: dict[str, Callable[[Episodes, LabConfig, EstimatorConfig], Variants]] = {
    "hae": _hae_variants,
    "turn_gae": _turn_gae_variants,
    "gae": _verl_gae_variants,
}
"""Estimators of which several settings are compared, or that are not run through the registry."""


def _run(
    label: str, episodes: Episodes, config: EstimatorConfig, baseline: Tensor, in_reward_units: bool = True
) -> VariantAdvantages:
    result = estimate_advantages(episodes.turns, config)
    advantages = torch.stack([result.switch, result.subgoal, result.action], dim=-1)
    return VariantAdvantages(label, config.name, advantages, baseline, in_reward_units)


def _high(episodes: Episodes) -> Tensor:
    high = episodes.turns.required_values[..., ValueSlot.HIGH, None]
    return high.expand(*episodes.turns.valid.shape, len(Decision))


def _earned_before(rewards: Tensor) -> Tensor:
    """Sum of the rewards of the turns before each, `[episodes, turns]`."""
    return rewards.cumsum(dim=1) - rewards
