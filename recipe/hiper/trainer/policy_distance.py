# SPDX-License-Identifier: Apache-2.0
"""How far the policy is from its reference and from vLLM's, and the correction for the latter.

Pure functions of a batch. vLLM samples the replies, the trainer computes their probabilities once more: in float32 the
two agree to 1e-5, in bf16 their kernels round differently. The policy gradient is that of the trainer's policy if every
token is weighted with p_trainer / p_vllm (`algorithm.rollout_correction`, Liu et al. 2025 as verl implements it).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from omegaconf import DictConfig
from tensordict import TensorDict
from torch import Tensor
from verl import DataProto
from verl.trainer.ppo.core_algos import kl_penalty_forward
from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_and_add_to_batch

from agent_system.errors import ConfigError, HiPERError

KL_CLAMP = 10.0
"""verl's largest value of the estimator k3 (`low_var_kl`), in nats per token. See `kl_clamped_fraction`."""


class EveryTokenRejected(HiPERError):
    """The rejection of `algorithm.rollout_correction` leaves nothing to learn from."""


@dataclass(frozen=True)
class PolicyDistance:
    """What a batch shows of the distances.

    Attributes:
        metrics: by name.
        columns: `[rows, tokens]`: `credit_mask`, without rejected tokens, and `rollout_is_weights` where there are.
    """

    metrics: dict[str, float]
    columns: dict[str, Tensor]


def is_corrected(config: DictConfig) -> bool:
    """Whether the policy loss is corrected for the difference between vLLM's policy and the trainer's.

    In bypass mode the ratio of PPO is that to vLLM's policy already.
    """
    correction = config.algorithm.get("rollout_correction") or {}
    return bool(correction.get("rollout_is") or correction.get("rollout_rs")) and not correction.get("bypass_mode")


def columns_to_read(config: DictConfig) -> list[str]:
    """Columns of the batch that `policy_distance` reads."""
    reference = ["ref_log_prob"] if config.actor_rollout_ref.actor.use_kl_loss else []
    return ["old_log_probs", *reference, *(["rollout_log_probs"] if is_corrected(config) else [])]


def policy_distance(
    columns: TensorDict, credit_mask_RL: Tensor, sampled_RL: Tensor, config: DictConfig
) -> PolicyDistance:
    """Measure the distances, and correct for that to vLLM's policy where `algorithm.rollout_correction` asks for it.

    Args:
        columns: `columns_to_read`, nested.
        credit_mask_RL: tokens that are on the policy loss, `[rows, tokens]`.
        sampled_RL: tokens that vLLM sampled; those of padding rows are not.
        config: verl's configuration.

    Raises:
        EveryTokenRejected: no token that is on the loss is left.
    """
    log_probs_RL = _padded(columns["old_log_probs"])
    metrics, mask_RL = {}, credit_mask_RL.bool()
    if "ref_log_prob" in columns:
        clamped = kl_clamped_fraction(log_probs_RL, _padded(columns["ref_log_prob"]), mask_RL)
        metrics["actor/kl_clamped_fraction"] = clamped
    if not is_corrected(config):
        return PolicyDistance(metrics, {"credit_mask": mask_RL.to(torch.int64)})
    corrected, of_correction = _correct(log_probs_RL, _padded(columns["rollout_log_probs"]), sampled_RL.long(), config)
    mask_RL &= corrected["response_mask"].bool()
    if not mask_RL.any():
        correction = config.algorithm.rollout_correction
        raise EveryTokenRejected(
            f"algorithm.rollout_correction.rollout_rs={correction.rollout_rs} rejects every token of the step. Try: a "
            f"wider algorithm.rollout_correction.rollout_rs_threshold (it is {correction.rollout_rs_threshold})"
        )
    weights = {"rollout_is_weights": corrected["rollout_is_weights"]} if "rollout_is_weights" in corrected else {}
    return PolicyDistance(metrics | of_correction, {"credit_mask": mask_RL.to(torch.int64), **weights})


def require_valid_correction(config: DictConfig) -> None:
    """Let verl read the settings of the correction before anything starts.

    Raises:
        ConfigError: verl refuses them.
    """
    if is_corrected(config):
        token = torch.zeros(1, 1)
        try:
            _correct(token, token, token.long() + 1, config)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"algorithm.rollout_correction: {error} Try: algorithm.rollout_correction.rollout_is=token "
                "algorithm.rollout_correction.rollout_is_threshold=2.0 algorithm.rollout_correction.rollout_rs=null"
            ) from None


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


def _padded(column: Tensor) -> Tensor:
    return column.to_padded_tensor(0.0).float()


def _correct(
    log_probs_RL: Tensor, vllm_RL: Tensor, sampled_RL: Tensor, config: DictConfig
) -> tuple[TensorDict, dict[str, float]]:
    """verl's weights and rejections; a row is a turn, so "sequence" is the reply of a turn."""
    tensors = {"old_log_probs": log_probs_RL, "rollout_log_probs": vllm_RL, "response_mask": sampled_RL}
    corrected, metrics = compute_rollout_correction_and_add_to_batch(
        DataProto.from_dict(tensors=tensors), config.algorithm.rollout_correction
    )
    return corrected.batch, metrics
