# SPDX-License-Identifier: Apache-2.0
"""REINFORCE leave-one-out: an episode against the mean of the *other* episodes of its task.

Source: Ahmadian et al., "Back to Basics", arXiv 2402.14740; Kool et al., "Buy 4 REINFORCE Samples, Get a Baseline for
Free!", 2019. The baseline does not contain the episode it is subtracted from, so the estimate is unbiased, which GRPO's
is not. Every token of every turn gets the advantage of its episode. No critic.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recipe.hiper.estimators.config import EstimatorConfig
from recipe.hiper.estimators.entry import Estimator
from recipe.hiper.estimators.grids import TurnAdvantages, TurnGrids
from recipe.hiper.estimators.group_baselines import group_advantages, of_episodes
from recipe.hiper.estimators.shaping import ShapedRewards


def rloo_advantages(returns_E: Tensor, group_E: Tensor) -> Tensor:
    """R - mean of the others = (R - mean of the group) n / (n - 1); zero in a group of one or of equal returns.

    Args:
        returns_E: undiscounted sum of an episode's shaped rewards, summed in float64, `[episodes]`.
        group_E: the task and seed an episode was played on, any integers, `[episodes]`.

    Returns:
        `[episodes]`.
    """
    centred = group_advantages(returns_E, group_E, divide_by_std=False)
    _, group, counts = torch.unique(group_E, return_inverse=True, return_counts=True)
    size = counts[group].to(centred.dtype)
    leave_one_out: Tensor = centred * size / (size - 1).clamp(min=1)
    return leave_one_out


def _estimate(turns: TurnGrids, shaped: ShapedRewards, config: EstimatorConfig) -> TurnAdvantages:
    return of_episodes(turns, shaped, rloo_advantages(shaped.rewards.sum(dim=1), turns.group))


ESTIMATOR = Estimator(name="rloo", function=_estimate, needs_groups=True, rewards_in_float64=True)
