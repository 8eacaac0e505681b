# SPDX-License-Identifier: Apache-2.0
"""verl's own generalized advantage estimation, over the tokens of a reply (`verl.trainer.ppo.core_algos`).

Only the penalties for single turns are added to the rewards before it. Its own whitening stays on.
"""

from __future__ import annotations

from recipe.hiper.estimators.entry import Estimator

ESTIMATOR = Estimator(
    name="gae",
    function=None,
    critic_heads=(1,),
    keys=frozenset(
        {
            "algorithm.gamma",
            "algorithm.lam",
            "algorithm.kl_ctrl.horizon",
            "algorithm.kl_ctrl.kl_coef",
            "algorithm.kl_ctrl.target_kl",
            "algorithm.kl_ctrl.type",
            "algorithm.kl_penalty",
        }
    ),
)
