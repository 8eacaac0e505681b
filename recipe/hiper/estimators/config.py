# SPDX-License-Identifier: Apache-2.0
"""Settings of the estimators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from recipe.hiper.estimators.shaping import ShapingConfig

SwitchAdvantage = Literal["segment_return", "termination"]
ValueTargets = Literal["lambda_return", "monte_carlo"]


@dataclass(frozen=True)
class HAEConfig:
    """Settings of the estimator.

    Attributes:
        gamma: discount per turn, in [0, 1].
        lam_turn: lambda of the executor's GAE over the turns of a segment, in [0, 1].
        lam_seg: lambda of the planner's GAE over segments, in [0, 1].
        switch_advantage: "segment_return" (released code) or "termination" (the paper's text).
        bootstrap_truncated: value the state after an episode that the step limit cut, instead of counting it as 0.
        lam_boundary: lambda of executor and switch across the end of a segment, in [0, 1]. At 0 (the paper) what comes
            after a segment is V_hi, whatever the other lambdas are; at 1 it is the planner's lambda-return.

    Raises:
        ValueError: a value outside its range; the message names the key.
    """

    gamma: float
    lam_turn: float
    lam_seg: float
    switch_advantage: SwitchAdvantage = "segment_return"
    bootstrap_truncated: bool = False
    lam_boundary: float = 0.0

    def __post_init__(self) -> None:
        keys = {
            "gamma": "algorithm.gamma",
            "lam_turn": "algorithm.lam",
            "lam_seg": "algorithm.hae.lam_seg",
            "lam_boundary": "algorithm.hae.lam_boundary",
        }
        for name, key in keys.items():
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"HAEConfig.{name} ({key}) = {value} is not in [0, 1]. Try: {key}=1.0")
        names = get_args(SwitchAdvantage)
        if self.switch_advantage not in names:
            raise ValueError(
                f"HAEConfig.switch_advantage (algorithm.hae.switch_advantage) = {self.switch_advantage!r} is not one "
                f"of {names}. Try: algorithm.hae.switch_advantage={names[0]}"
            )


@dataclass(frozen=True)
class EstimatorConfig:
    """Which estimator, and its settings. An estimator reads those whose keys its entry in the table names.

    Attributes:
        name: `algorithm.adv_estimator`: a name in the table, or "module:NAME".
        hae: discount, lambdas and the variants of `hae`; other estimators read `gamma`, `lam_turn`
            (`algorithm.lam`) and `bootstrap_truncated` here.
        shaping: penalties added to the environment's rewards.
        whiten: `algorithm.hae.norm_adv`.
        divide_by_std: `algorithm.norm_adv_by_std_in_grpo`.
        step_weight: `algorithm.gigpo.step_weight`.
        value_targets: `critic.targets`: what the critic learns, the returns of the estimator (which hold its own
            values) or the discounted sum of what was paid until the end of the episode.
    """

    name: str
    hae: HAEConfig
    shaping: ShapingConfig
    whiten: bool = True
    divide_by_std: bool = True
    step_weight: float = 1.0
    value_targets: ValueTargets = "lambda_return"
