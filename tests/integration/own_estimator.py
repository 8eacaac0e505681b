# SPDX-License-Identifier: Apache-2.0
"""An advantage estimator of a user: one module, one entry. Chosen with

    algorithm.adv_estimator=own_estimator:RETURN_TO_GO

The advantage of a turn is the discounted return from it on less the critic's value of its prompt. After the step limit
the return continues with the critic's value of the state that was left (`algorithm.hae.bootstrap_truncated=true`).
"""

from __future__ import annotations

import torch

from recipe.hiper.estimators.config import EstimatorConfig
from recipe.hiper.estimators.registry import SHARED_KEYS, Estimator, TurnAdvantages, TurnGrids
from recipe.hiper.estimators.shaping import ShapedRewards
from recipe.hiper.estimators.values import ValueSlot


def return_to_go(turns: TurnGrids, shaped: ShapedRewards, config: EstimatorConfig) -> TurnAdvantages:
    """A(t) = sum_k gamma^k r(t+k) - V(t)."""
    values = turns.required_values[..., ValueSlot.HIGH]
    rest = torch.zeros_like(values[:, 0]) if turns.bootstrap is None else turns.bootstrap[:, ValueSlot.HIGH]
    rest = rest.masked_fill(turns.terminated.any(dim=1), 0.0)
    columns = []
    for turn in reversed(range(values.shape[1])):
        # Padding comes last: until the last real turn is reached, `rest` stays the value after it.
        now = shaped.rewards[:, turn] + config.hae.gamma * rest
        rest = torch.where(turns.valid[:, turn], now, rest)
        columns.append(torch.where(turns.valid[:, turn], now, 0.0))
    returns = torch.stack(columns[::-1], dim=1)
    return TurnAdvantages.of_turns(turns, shaped, (returns - values) * turns.valid, targets=returns)


RETURN_TO_GO = Estimator(
    name="own_estimator:RETURN_TO_GO",
    function=return_to_go,
    critic_heads=(1,),
    uses_bootstrap=True,
    keys=SHARED_KEYS | {"algorithm.gamma", "algorithm.hae.norm_adv", "algorithm.hae.bootstrap_truncated"},
)
