# SPDX-License-Identifier: Apache-2.0
"""An entry of the table of estimators: what everything outside this folder knows about an estimator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from recipe.hiper.estimators.config import EstimatorConfig
from recipe.hiper.estimators.grids import TurnAdvantages, TurnGrids
from recipe.hiper.estimators.shaping import ShapedRewards

EstimatorFunction = Callable[[TurnGrids, ShapedRewards, EstimatorConfig], TurnAdvantages]
"""Turns, their shaped rewards and the settings -> advantages before whitening, and value targets."""

NORM_ADV = "algorithm.hae.norm_adv"
BOOTSTRAP_TRUNCATED = "algorithm.hae.bootstrap_truncated"
VALUE_TARGETS = "critic.targets"
DIVIDE_BY_STD = "algorithm.norm_adv_by_std_in_grpo"

SHARED_KEYS = frozenset({"algorithm.hae.random_signs"})
"""Keys that the trainer reads for every estimator but verl's own."""


@dataclass(frozen=True)
class Estimator:
    """One estimator.

    Attributes:
        name: `algorithm.adv_estimator`.
        function: the estimator; None for one of verl's own, to which verl's trainer is left.
        critic_heads: numbers of value heads it can be run with, the default first; empty without a critic. With one
            head the value of a turn is in `ValueSlot.HIGH`.
        needs_groups: compares the episodes of a task with each other, so `env.rollout.n` is at least 2.
        uses_bootstrap: reads values of the states after truncated episodes where
            `algorithm.hae.bootstrap_truncated=true`.
        is_hierarchical: switch, sub-goal and action have advantages of their own. Otherwise every token of a reply gets
            the advantage of its turn, and nothing is charged for keeping or switching.
        rewards_in_float64: shape and compare rewards in float64, for an estimator that divides by how much they differ.
        keys: dotted configuration keys that it reads, of those that not all estimators read. Its advantages are
            whitened where `algorithm.hae.norm_adv` is among them, and its value targets may be replaced where
            `critic.targets` is.

    Raises:
        ValueError: the attributes contradict each other.
    """

    name: str
    function: EstimatorFunction | None
    critic_heads: tuple[int, ...] = ()
    needs_groups: bool = False
    uses_bootstrap: bool = False
    is_hierarchical: bool = False
    rewards_in_float64: bool = False
    keys: frozenset[str] = SHARED_KEYS

    def __post_init__(self) -> None:
        if not set(self.critic_heads) <= {1, 2, 3} or len(set(self.critic_heads)) != len(self.critic_heads):
            raise ValueError(
                f"estimator {self.name}: critic_heads={self.critic_heads} are not different ones of 1, 2, 3"
            )
        if self.uses_bootstrap and not self.critic_heads:
            raise ValueError(f"estimator {self.name}: uses_bootstrap=True needs a critic. Try: critic_heads=(1,)")
        if self.uses_bootstrap is not (BOOTSTRAP_TRUNCATED in self.keys):
            raise ValueError(
                f"estimator {self.name}: uses_bootstrap={self.uses_bootstrap} means that {BOOTSTRAP_TRUNCATED} is "
                f"{'one' if self.uses_bootstrap else 'none'} of its keys, got keys={sorted(self.keys)}"
            )

    @property
    def is_verls_own(self) -> bool:
        """Whether verl's trainer estimates the advantages."""
        return self.function is None

    @property
    def has_critic(self) -> bool:
        """Whether it reads values."""
        return bool(self.critic_heads)

    @property
    def has_turn_values(self) -> bool:
        """Whether it reads values of turns, of our critic. verl's own estimators read one for each token."""
        return self.has_critic and not self.is_verls_own

    @property
    def chooses_heads(self) -> bool:
        """Whether `critic.use_{two,three}_heads_critic` choose its number of value heads."""
        return len(self.critic_heads) > 1

    @property
    def default_heads(self) -> int:
        """Value heads of the critic unless another number is chosen; 0 without a critic."""
        return self.critic_heads[0] if self.critic_heads else 0

    @property
    def divides_by_std(self) -> bool:
        """Whether its advantages may be in standard deviations of a group instead of units of the reward."""
        return DIVIDE_BY_STD in self.keys
