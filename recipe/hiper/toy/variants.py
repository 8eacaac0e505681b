# SPDX-License-Identifier: Apache-2.0
"""The estimators that are compared: settings, and the critic each needs.

`MAIN` is the comparison, `WHY` takes the difference between HAE and turn-level GAE apart, `LIVING` looks for settings
whose hierarchy stays alive, between the two policies whose switches are forced (`always`, `never`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from recipe.hiper.estimators.config import SwitchAdvantage
from recipe.hiper.estimators.hae import HAEConfig
from recipe.hiper.estimators.registry import EstimatorConfig, find_estimator
from recipe.hiper.estimators.shaping import ShapingConfig

GAMMA = 0.95
"""Of the estimators that discount turns; verl's `gae`, `grpo` and `rloo` do not."""


@dataclass(frozen=True)
class Variant:
    """One estimator with its settings.

    Attributes:
        estimator: its settings; verl's own `gae` is not run through the registry.
        heads: value heads of the critic; 0 without one.
        plans: plan-execute replies, or flat ones.
        forced: True or False makes every turn but the first a SWITCH or a KEEP; None leaves it to the policy.
        critic_epochs: passes of the critic over each batch.
    """

    estimator: EstimatorConfig
    heads: int
    plans: bool = True
    forced: bool | None = None
    critic_epochs: int = 2


def hae(
    *,
    heads: int = 3,
    lam: float = 1.0,
    lam_seg: float = 0.95,
    lam_boundary: float = 0.0,
    switch: SwitchAdvantage = "segment_return",
    whiten: bool = True,
    forced: bool | None = None,
    **shaping,
) -> Variant:
    """HAE; the defaults are those of the released code without its penalties."""
    settings = HAEConfig(GAMMA, lam, lam_seg, switch, lam_boundary=lam_boundary)
    return Variant(EstimatorConfig("hae", settings, ShapingConfig(**shaping), whiten=whiten), heads, forced=forced)


def other(name: str, lam: float = 1.0) -> Variant:
    """An estimator without hierarchy."""
    estimator = EstimatorConfig(name, HAEConfig(GAMMA, lam, 1.0), ShapingConfig())
    return Variant(estimator, find_estimator(name).default_heads)


def costs(cost: float, **settings) -> Variant:
    """HAE with a price of SWITCH that is charged to the switch decision alone, without penalties for KEEP."""
    return hae(penalty_credit="switch", switch_cost=cost, **settings)


PUBLISHED: dict[str, Any] = {"keep_penalty": -0.3, "keep_consistency_penalty": -0.3}

_PLANS = {
    "hae_released": hae(**PUBLISHED),
    "hae_paper": hae(heads=2, switch="termination", **PUBLISHED),
    "hae_normalized": hae(**PUBLISHED, keep_penalty_mode="normalized"),
    "hae_free": hae(),
    "hae_past": hae(lam_boundary=0.95),
    "hae_cost": costs(0.3),
    "hae_living": costs(0.3, lam_boundary=0.95),
    "turn_gae_0": other("turn_gae", 0.0),
    "turn_gae_0.95": other("turn_gae", 0.95),
    "turn_gae_1": other("turn_gae", 1.0),
    "gae": other("gae"),
    "grpo": other("grpo"),
    "rloo": other("rloo"),
    "gigpo": other("gigpo"),
}
MAIN = _PLANS | {
    f"flat_{name}": replace(_PLANS[name], plans=False) for name in ("turn_gae_0.95", "gae", "grpo", "gigpo")
}
WHY = {
    "hae_lam_0.95": hae(lam=0.95),
    "hae_lam_0": hae(lam=0.0),
    "hae_seg_1": hae(lam_seg=1.0),
    "hae_seg_0": hae(lam_seg=0.0),
    "hae_two_heads": hae(heads=2),
    "hae_past_1": hae(lam_boundary=1.0),
    "hae_past_all_0.95": hae(lam=0.95, lam_boundary=0.95),
    "hae_past_released": hae(lam_boundary=0.95, **PUBLISHED),
    "hae_one_head": hae(heads=1),
    "hae_termination": hae(heads=2, switch="termination"),
    "hae_critic_8": replace(hae(), critic_epochs=8),
    "turn_gae_critic_8": replace(other("turn_gae", 0.95), critic_epochs=8),
    "hae_unwhitened": hae(whiten=False),
    "turn_gae_unwhitened": replace(
        other("turn_gae", 0.95), estimator=replace(other("turn_gae", 0.95).estimator, whiten=False)
    ),
}
COSTS = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0)
LIVING = {
    "always": hae(forced=True),
    "never": hae(forced=False),
    "always_turn_gae": replace(other("turn_gae", 0.95), forced=True),
    "never_turn_gae": replace(other("turn_gae", 0.95), forced=False),
    **{f"cost_{cost:g}": costs(cost) for cost in COSTS},
    **{f"termination_{cost:g}": costs(cost, switch="termination") for cost in (0.0, 0.3, 1.0)},
    **{f"raw_{cost:g}": costs(cost, whiten=False) for cost in (0.0, 0.3, 1.0)},
    **{f"past_{cost:g}": costs(cost, lam_boundary=0.95) for cost in COSTS},
    "always_past": hae(lam_boundary=0.95, forced=True),
    "keep_turn": hae(**PUBLISHED),
    "keep_switch": hae(penalty_credit="switch", **PUBLISHED),
    "keep_switch_cost_0.3": costs(0.3, **PUBLISHED),
}
VARIANTS = MAIN | WHY | LIVING
