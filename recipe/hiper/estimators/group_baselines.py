# SPDX-License-Identifier: Apache-2.0
"""Statistics within groups: what the estimators without a critic compare an episode, or a turn, with."""

from __future__ import annotations

import torch
from torch import Tensor

from recipe.hiper.estimators.grids import TurnAdvantages, TurnGrids
from recipe.hiper.estimators.shaping import ShapedRewards

EPSILON = 1e-6
"""Added to a standard deviation before something is divided by it, as the released code of GRPO and GiGPO does."""


def group_advantages(x_N: Tensor, group_N: Tensor, *, divide_by_std: bool) -> Tensor:
    """`x - mean`, or `(x - mean) / (std + 1e-6)`, of the group each entry belongs to.

    Mean and unbiased standard deviation are taken in float64. Where no two entries of a group differ (a group of one
    among them) there is nothing to compare: exactly zero.

    Args:
        x_N: `[entries]`, floating point.
        group_N: group of each entry, any integers, `[entries]`.
        divide_by_std: whether to divide.

    Raises:
        ValueError: shapes differ.
    """
    if x_N.dim() != 1 or x_N.shape != group_N.shape:
        raise ValueError(f"expected [entries] and [entries], got {tuple(x_N.shape)} and {tuple(group_N.shape)}")
    x, (_, group) = x_N.double(), torch.unique(group_N, return_inverse=True)
    groups = int(group.max()) + 1 if len(group) else 0
    counts = torch.bincount(group, minlength=groups).double()
    mean = x.new_zeros(groups).index_add(0, group, x) / counts
    centred = x - mean[group]
    low = x.new_full((groups,), float("inf")).scatter_reduce(0, group, x, "amin")
    high = x.new_full((groups,), -float("inf")).scatter_reduce(0, group, x, "amax")
    if divide_by_std:
        squares = x.new_zeros(groups).index_add(0, group, centred**2)
        centred = centred / ((squares / (counts - 1).clamp(min=1)).sqrt()[group] + EPSILON)
    return centred.masked_fill((low == high)[group], 0.0).to(x_N.dtype)


def of_episodes(turns: TurnGrids, shaped: ShapedRewards, advantage_E: Tensor) -> TurnAdvantages:
    """Give every turn the advantage of its episode, `[episodes]`."""
    advantage_ET = advantage_E[:, None] * turns.valid.bool()
    return TurnAdvantages.of_turns(turns, shaped, in_training_precision(advantage_ET, turns))


def in_training_precision(advantage_ET: Tensor, turns: TurnGrids) -> Tensor:
    """Advantages that were compared in float64, in the precision of the batch (at least float32)."""
    return advantage_ET.to(torch.promote_types(turns.rewards.dtype, torch.float32))
