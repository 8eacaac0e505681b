# SPDX-License-Identifier: Apache-2.0
"""Group-in-group policy optimization: an episode against its group, and a turn against turns in the same state.

Source: Feng et al., "Group-in-Group Policy Optimization for LLM Agent Training", arXiv 2505.10978, section 4. Episodes
of one task that come to the same observation (an anchor state) are compared by what they earned from there on. A turn
whose state no other turn of its group has gets no second part. No critic.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recipe.hiper.estimators.config import EstimatorConfig
from recipe.hiper.estimators.entry import DIVIDE_BY_STD, SHARED_KEYS, Estimator
from recipe.hiper.estimators.grids import TurnAdvantages, TurnGrids
from recipe.hiper.estimators.group_baselines import group_advantages, in_training_precision
from recipe.hiper.estimators.shaping import ShapedRewards


def gigpo_advantages(
    rewards_ET: Tensor,
    valid_ET: Tensor,
    anchor_ET: Tensor,
    group_E: Tensor,
    *,
    gamma: float,
    step_weight: float = 1.0,
    divide_by_std: bool = True,
) -> Tensor:
    """A(t) = A_episode + step_weight A_step(t), both centred, and divided by the standard deviation, in their groups.

    A_episode compares the undiscounted sums of rewards of the episodes of a task; A_step(t) compares the discounted
    returns sum_k gamma^k r(t+k) of all turns of these episodes that have the same anchor.

    Args:
        rewards_ET: shaped rewards, `[episodes, turns]`.
        valid_ET: marks real turns, bool, right-padded; at least one in every row.
        anchor_ET: the state before a turn; equal integers for equal observations, `[episodes, turns]`.
        group_E: the task and seed an episode was played on, any integers, `[episodes]`.
        gamma: discount per turn of the second part.
        step_weight: weight of the second part (omega in the paper).
        divide_by_std: the paper's normalisation; False is its leave-the-scale variant ("w/o std").

    Returns:
        `[episodes, turns]`, zero outside valid turns, in at least float32 (float64 stays float64).

    Raises:
        ValueError: shapes differ, or `valid` is not right-padded.
    """
    if rewards_ET.dim() != 2 or not rewards_ET.shape == valid_ET.shape == anchor_ET.shape:
        shapes = [tuple(x.shape) for x in (rewards_ET, valid_ET, anchor_ET)]
        raise ValueError(f"rewards, valid and anchor must be [episodes, turns] alike, got {shapes}")
    valid_ET = valid_ET.bool()
    if (valid_ET[:, 1:] & ~valid_ET[:, :-1]).any():
        raise ValueError("valid must be right-padded: the real turns of a row come first, without gaps")
    dtype = torch.promote_types(rewards_ET.dtype, torch.float32)
    # In float32 equal rewards in another order have sums that differ in the last bit, and division makes that large.
    rewards_ET = rewards_ET.double().masked_fill(~valid_ET, 0.0)
    episode_E = group_advantages(rewards_ET.sum(dim=1), group_E, divide_by_std=divide_by_std)

    returns = [torch.zeros_like(rewards_ET[:, 0])] if rewards_ET.shape[1] else []
    for turn in reversed(range(rewards_ET.shape[1])):
        returns.append(rewards_ET[:, turn] + gamma * returns[-1])
    return_ET = torch.stack(returns[:0:-1], dim=1) if returns else rewards_ET
    group_ET = group_E[:, None].expand_as(anchor_ET)
    states = torch.stack([group_ET[valid_ET], anchor_ET[valid_ET]], dim=1)
    _, state = torch.unique(states, dim=0, return_inverse=True)
    advantages = episode_E[:, None] * valid_ET
    step = group_advantages(return_ET[valid_ET], state, divide_by_std=divide_by_std)
    advantages[valid_ET] = advantages[valid_ET] + step_weight * step
    return advantages.to(dtype)


def _estimate(turns: TurnGrids, shaped: ShapedRewards, config: EstimatorConfig) -> TurnAdvantages:
    advantage_ET = gigpo_advantages(
        shaped.rewards,
        turns.valid,
        turns.anchor,
        turns.group,
        gamma=config.hae.gamma,
        step_weight=config.step_weight,
        divide_by_std=config.divide_by_std,
    )
    return TurnAdvantages.of_turns(turns, shaped, in_training_precision(advantage_ET, turns))


ESTIMATOR = Estimator(
    name="gigpo",
    function=_estimate,
    needs_groups=True,
    rewards_in_float64=True,
    keys=SHARED_KEYS | {"algorithm.gamma", "algorithm.gigpo.step_weight", DIVIDE_BY_STD},
)
