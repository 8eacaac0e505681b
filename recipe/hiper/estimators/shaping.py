# SPDX-License-Identifier: Apache-2.0
"""Reward shaping: malformed replies, actions that do not exist, KEEP turns, and KEEP turns that do not copy.

Which turns are boundaries, well formed, copies and so on was decided once, when the reply was parsed
(`agent_system.plan_execute.protocol`); here are only sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

KeepPenaltyMode = Literal["fixed", "normalized"]
PenaltyCredit = Literal["turn", "switch"]


@dataclass(frozen=True)
class ShapingConfig:
    """Settings of the shaping; the defaults shape nothing.

    Attributes:
        invalid_action_penalty_coef: subtracted on a turn whose reply breaks the format; at least 0.
        inadmissible_penalty: added on a turn whose action is not among the admissible ones; at most 0. The paper has
            no such penalty.
        keep_penalty: added because of KEEP turns; at most 0.
        keep_penalty_mode: "fixed" adds `keep_penalty` on every KEEP turn. "normalized" adds `keep_penalty / T` on every
            KEEP turn of an episode of T turns: the episode pays `keep_penalty` times its fraction of KEEP turns.
        keep_consistency_penalty: added on a KEEP turn whose reply does not repeat the kept sub-goal; at most 0.
        keep_consistency_requires_both: skip that penalty where the kept or the written sub-goal is empty.
        penalty_credit: "turn" makes the two KEEP penalties part of the turn's reward, so that every decision before
            them is charged too (released code). "switch" charges the decision to keep, and nothing else.
        switch_cost: price of a SWITCH, charged to that decision alone; at least 0. See `hae.switch_charge`.

    Raises:
        ValueError: a value outside its range; the message names the key.
    """

    invalid_action_penalty_coef: float = 0.0
    inadmissible_penalty: float = 0.0
    keep_penalty: float = 0.0
    keep_penalty_mode: KeepPenaltyMode = "fixed"
    keep_consistency_penalty: float = 0.0
    keep_consistency_requires_both: bool = True
    penalty_credit: PenaltyCredit = "turn"
    switch_cost: float = 0.0

    def __post_init__(self) -> None:
        # `not (a <= b)` also refuses NaN.
        coefficient = self.invalid_action_penalty_coef
        if not coefficient >= 0.0:
            key = "actor_rollout_ref.actor.invalid_action_penalty_coef"
            raise ValueError(f"{key} = {coefficient} is subtracted, so it must be >= 0. Try: {key}=0.1")
        for section, name in (
            ("algorithm", "inadmissible_penalty"),
            ("algorithm.hae", "keep_penalty"),
            ("algorithm.hae", "keep_consistency_penalty"),
        ):
            value = getattr(self, name)
            if not value <= 0.0:
                key = f"{section}.{name}"
                raise ValueError(f"{key} = {value} is added to the reward, so it must be <= 0. Try: {key}=-0.3")
        if not self.switch_cost >= 0.0:
            key = "algorithm.hae.switch_cost"
            raise ValueError(f"{key} = {self.switch_cost} is a price, so it must be >= 0. Try: {key}=0.1")
        for name, kind in (("keep_penalty_mode", KeepPenaltyMode), ("penalty_credit", PenaltyCredit)):
            key, modes, value = f"algorithm.hae.{name}", get_args(kind), getattr(self, name)
            if value not in modes:
                raise ValueError(f"{key} = {value!r} is not one of {modes}. Try: {key}={modes[0]}")


@dataclass(frozen=True)
class ShapedRewards:
    """Shaped rewards and their parts, each `[episodes, turns]` and zero outside valid turns.

    `rewards` is the environment's reward plus the four parts, or, with `penalty_credit` "switch", plus the first two;
    the parts are zero or negative.
    """

    rewards: Tensor
    format_penalty: Tensor
    inadmissible_penalty: Tensor
    keep_penalty: Tensor
    consistency_penalty: Tensor


@torch.no_grad()
def shaped_rewards(
    rewards: Tensor,
    boundary: Tensor,
    valid: Tensor,
    well_formed: Tensor,
    admissible: Tensor,
    copied_exactly: Tensor,
    comparable: Tensor,
    config: ShapingConfig,
) -> ShapedRewards:
    """Add the penalties to the environment's rewards. A KEEP turn is a valid turn that is no boundary; turn 0 never is.

    Args:
        rewards: the environment's rewards, `[episodes, turns]`.
        boundary: `Decision.boundary`, `[episodes, turns]`, bool or 0/1 like the other marks.
        valid: marks real turns.
        well_formed: `Reply.valid`.
        admissible: whether the action was among the admissible ones.
        copied_exactly: `Decision.copied_exactly`; read on KEEP turns.
        comparable: `Decision.comparable`; read on KEEP turns.
        config: see `ShapingConfig`.

    Returns:
        Tensors in at least float32 (float64 stays float64).

    Raises:
        ValueError: shapes differ.
    """
    marks = {
        "boundary": boundary,
        "valid": valid,
        "well_formed": well_formed,
        "admissible": admissible,
        "copied_exactly": copied_exactly,
        "comparable": comparable,
    }
    if rewards.dim() != 2:
        raise ValueError(f"rewards must be [episodes, turns], got shape {tuple(rewards.shape)}")
    for name, mark in marks.items():
        if mark.shape != rewards.shape:
            raise ValueError(f"{name} has shape {tuple(mark.shape)} but rewards has {tuple(rewards.shape)}")

    dtype = torch.promote_types(rewards.dtype, torch.float32)
    valid = valid.bool()
    keep = valid & ~boundary.bool()
    keep[:, :1] = False
    drifted = keep & ~copied_exactly.bool()
    if config.keep_consistency_requires_both:
        drifted &= comparable.bool()

    zeros = torch.zeros(rewards.shape, dtype=dtype, device=rewards.device)
    format_penalty = zeros.masked_fill(valid & ~well_formed.bool(), -config.invalid_action_penalty_coef)
    inadmissible_penalty = zeros.masked_fill(valid & ~admissible.bool(), config.inadmissible_penalty)
    keep_penalty = zeros.masked_fill(keep, config.keep_penalty)
    if config.keep_penalty_mode == "normalized":
        keep_penalty = keep_penalty / valid.sum(dim=1, keepdim=True).clamp(min=1)
    consistency_penalty = zeros.masked_fill(drifted, config.keep_consistency_penalty)
    total = torch.where(valid, rewards.to(dtype), zeros) + format_penalty + inadmissible_penalty
    if config.penalty_credit == "turn":
        total = total + keep_penalty + consistency_penalty
    return ShapedRewards(
        rewards=total,
        format_penalty=format_penalty,
        inadmissible_penalty=inadmissible_penalty,
        keep_penalty=keep_penalty,
        consistency_penalty=consistency_penalty,
    )
