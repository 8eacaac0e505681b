# SPDX-License-Identifier: Apache-2.0
"""Group relative policy optimization: an episode against the other episodes of its task.

Source: Shao et al., "DeepSeekMath", arXiv 2402.03300, section 4.1 (outcome supervision). Every token of every turn gets
the advantage of its episode: which turn made the difference is left to the average over many episodes. No critic.
Without the division the advantage is that of Liu et al., "Understanding R1-Zero-Like Training", arXiv 2503.20783, which
does not grow on tasks that are nearly always won or lost.
"""

from __future__ import annotations

from torch import Tensor

from recipe.hiper.estimators.config import EstimatorConfig
from recipe.hiper.estimators.entry import DIVIDE_BY_STD, SHARED_KEYS, Estimator
from recipe.hiper.estimators.grids import TurnAdvantages, TurnGrids
from recipe.hiper.estimators.group_baselines import group_advantages, of_episodes
from recipe.hiper.estimators.shaping import ShapedRewards


def grpo_advantages(returns_E: Tensor, group_E: Tensor, *, divide_by_std: bool = True) -> Tensor:
    """(R - mean of the group) / (std of the group + 1e-6); zero in a group whose returns are all equal.

    Args:
        returns_E: undiscounted sum of an episode's shaped rewards, summed in float64, `[episodes]`.
        group_E: the task and seed an episode was played on, any integers, `[episodes]`.
        divide_by_std: `algorithm.norm_adv_by_std_in_grpo`.

    Returns:
        `[episodes]`.
    """
    return group_advantages(returns_E, group_E, divide_by_std=divide_by_std)


def _estimate(turns: TurnGrids, shaped: ShapedRewards, config: EstimatorConfig) -> TurnAdvantages:
    advantage_E = grpo_advantages(shaped.rewards.sum(dim=1), turns.group, divide_by_std=config.divide_by_std)
    return of_episodes(turns, shaped, advantage_E)


ESTIMATOR = Estimator(
    name="grpo",
    function=_estimate,
    needs_groups=True,
    rewards_in_float64=True,
    keys=SHARED_KEYS | {DIVIDE_BY_STD},
)
