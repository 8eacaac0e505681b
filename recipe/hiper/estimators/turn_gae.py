# SPDX-License-Identifier: Apache-2.0
"""Generalized advantage estimation over turns: one value a turn, one advantage for everything the turn wrote.

Source: Schulman et al., "High-Dimensional Continuous Control Using Generalized Advantage Estimation", arXiv 1506.02438,
with a turn as the time step. A turn is compared with what the critic expected of its prompt, so decisions far from the
reward are credited through the critic or, as lambda grows, through what happened. It is the control for `hae`: the same
prompt, the same rewards and a critic of the same size, and no hierarchy in the estimate.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recipe.hiper.estimators.config import EstimatorConfig
from recipe.hiper.estimators.entry import SHARED_KEYS, Estimator
from recipe.hiper.estimators.grids import TurnAdvantages, TurnGrids
from recipe.hiper.estimators.shaping import ShapedRewards
from recipe.hiper.estimators.values import ValueSlot


@dataclass(frozen=True)
class AdvantagesAndTargets:
    """Advantages and value targets, each `[episodes, turns]` and zero outside valid turns."""

    advantages: Tensor
    targets: Tensor


@torch.no_grad()
def turn_gae(
    rewards: Tensor,
    values: Tensor,
    valid: Tensor,
    terminated: Tensor,
    *,
    gamma: float,
    lam: float,
    bootstrap: Tensor | None = None,
) -> AdvantagesAndTargets:
    """A(t) = r(t) + gamma V(t+1) - V(t) + gamma lam A(t+1); the target is A(t) + V(t).

    After the last turn V is 0 where the environment terminated and `bootstrap` where the step limit cut the episode.

    Args:
        rewards: shaped rewards, `[episodes, turns]`.
        values: V(s_t), read before anything is written, `[episodes, turns]`.
        valid: marks real turns, bool, right-padded.
        terminated: whether the environment terminated on that turn, bool.
        gamma: discount per turn, in [0, 1].
        lam: lambda, in [0, 1].
        bootstrap: value of the state after the last turn, `[episodes]`; None counts it as 0.

    Raises:
        ValueError: shapes differ, `valid` is not right-padded, or gamma or lam is outside [0, 1].
    """
    shapes = {tuple(x.shape) for x in (rewards, values, valid, terminated)}
    if rewards.dim() != 2 or len(shapes) != 1 or (bootstrap is not None and bootstrap.shape != rewards.shape[:1]):
        raise ValueError(f"expected four grids [episodes, turns] and bootstrap [episodes], got {sorted(shapes)}")
    if not (0.0 <= gamma <= 1.0 and 0.0 <= lam <= 1.0):
        raise ValueError(f"gamma={gamma} and lam={lam} must be in [0, 1]")
    valid = valid.bool()
    if (valid[:, 1:] & ~valid[:, :-1]).any():
        raise ValueError("valid must be right-padded: the real turns of a row come first, without gaps")
    dtype = torch.promote_types(torch.promote_types(rewards.dtype, values.dtype), torch.float32)
    zero = torch.zeros((), dtype=dtype)
    r_ET, v_ET = torch.where(valid, rewards.to(dtype), zero), torch.where(valid, values.to(dtype), zero)
    continues = valid & ~terminated.bool()
    followed = torch.zeros_like(valid)
    followed[:, :-1] = valid[:, 1:]
    followed &= continues
    next_v_ET = torch.cat([v_ET[:, 1:], torch.zeros_like(v_ET[:, :1])], dim=1)
    after_last = torch.zeros_like(v_ET) if bootstrap is None else bootstrap.to(dtype)[:, None]
    next_v_ET = torch.where(followed, next_v_ET, torch.where(continues, after_last, zero))
    delta_ET = torch.where(valid, r_ET + gamma * next_v_ET - v_ET, zero)

    carry = torch.zeros_like(delta_ET[:, :1])
    columns = []
    for turn in reversed(range(delta_ET.shape[1])):
        # A number times bool would be float32 whatever the rest is.
        carry = delta_ET[:, turn : turn + 1] + gamma * lam * (followed[:, turn : turn + 1] * carry)
        columns.append(carry)
    advantages = torch.cat(columns[::-1], dim=1) if columns else delta_ET
    return AdvantagesAndTargets(advantages=advantages, targets=advantages + v_ET)


def _estimate(turns: TurnGrids, shaped: ShapedRewards, config: EstimatorConfig) -> TurnAdvantages:
    bootstrap = turns.bootstrap if config.hae.bootstrap_truncated else None
    result = turn_gae(
        shaped.rewards,
        turns.required_values[..., ValueSlot.HIGH],
        turns.valid,
        turns.terminated,
        gamma=config.hae.gamma,
        lam=config.hae.lam_turn,
        bootstrap=None if bootstrap is None else bootstrap[:, ValueSlot.HIGH],
    )
    return TurnAdvantages.of_turns(turns, shaped, result.advantages, result.targets)


ESTIMATOR = Estimator(
    name="turn_gae",
    function=_estimate,
    critic_heads=(1,),
    uses_bootstrap=True,
    keys=SHARED_KEYS
    | {
        "algorithm.gamma",
        "algorithm.lam",
        "algorithm.hae.norm_adv",
        "critic.targets",
        "algorithm.hae.bootstrap_truncated",
    },
)
