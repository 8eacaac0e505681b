# SPDX-License-Identifier: Apache-2.0
"""How far the policy is from its reference. Pure functions of a batch."""

from __future__ import annotations

from torch import Tensor
from verl.trainer.ppo.core_algos import kl_penalty_forward

KL_CLAMP = 10.0
"""verl's largest value of the estimator k3 (`low_var_kl`), in nats per token. See `kl_clamped_fraction`."""


def kl_clamped_fraction(log_probs_RL: Tensor, reference_RL: Tensor, mask_RL: Tensor) -> float:
    """Fraction of tokens at which verl's estimate of the KL divergence is at its clamp.

    With r = log q - log p, q the reference and p the policy, the estimate is k3 = e^r - r - 1, at most 10: the clamp is
    reached where r >= 2.61 or r <= -11. There `low_var_kl` has no gradient, although the policy has left the
    reference the furthest; `low_var_kl+` has the gradient of r^2 / 2 everywhere.

    Args:
        log_probs_RL: log-probabilities of the tokens under the policy, `[rows, tokens]`.
        reference_RL: under the reference.
        mask_RL: the tokens that are on the loss.
    """
    on_loss = mask_RL.bool()
    if not on_loss.any():
        return 0.0
    return float((kl_penalty_forward(log_probs_RL, reference_RL, "low_var_kl")[on_loss] >= KL_CLAMP).float().mean())
