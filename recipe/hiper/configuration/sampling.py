# SPDX-License-Identifier: Apache-2.0
"""Settings with which vLLM samples from another distribution than the one that the trainer scores.

The gradient of the policy is an average over replies that were drawn from the policy. The trainer computes the
probability of a token with the softmax of all logits at `rollout.temperature`; a reply that was drawn from less than
that, or from other logits, makes the average another one, and no metric shows it. An evaluation trains nothing and may
use all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recipe.hiper.configuration.section import typed

ROLLOUT = "actor_rollout_ref.rollout"
ENGINE = f"{ROLLOUT}.engine_kwargs.vllm"

EXACT: Mapping[str, tuple[tuple[Any, ...], str]] = {
    f"{ROLLOUT}.top_k": ((-1, 0), "vLLM samples from the most likely tokens only"),
    f"{ROLLOUT}.top_p": ((1,), "vLLM samples from the most likely tokens only"),
    f"{ROLLOUT}.logprobs_mode": (("processed_logprobs",), "vLLM reports other probabilities than it samples with"),
    f"{ROLLOUT}.quantization": ((None,), "vLLM computes with rounded weights"),
    f"{ROLLOUT}.quantization_config_file": ((None,), "vLLM computes with rounded weights"),
    "actor_rollout_ref.model.mtp.enable_rollout": ((False, None), "vLLM accepts tokens that a draft proposes"),
    "actor_rollout_ref.actor.fsdp_config.qat.enable": ((False, None), "vLLM computes with rounded weights"),
    f"{ENGINE}.quantization": ((None,), "vLLM computes with rounded weights"),
    f"{ENGINE}.kv_cache_dtype": ((None, "auto"), "vLLM computes with rounded keys and values"),
    f"{ENGINE}.load_format": ((None, "auto", "dummy", "safetensors"), "vLLM may compute with rounded weights"),
    f"{ENGINE}.logprobs_mode": ((None, "processed_logprobs"), "vLLM reports other probabilities than it samples with"),
    f"{ENGINE}.speculative_config": ((None,), "vLLM accepts tokens that a draft proposes"),
    f"{ENGINE}.logits_processors": ((None,), "they change the logits after the model"),
    f"{ENGINE}.override_generation_config": ((None,), "it replaces the sampling parameters of the run"),
}
"""Keys, the values with which both distributions are the same (the first is the usual one), and the reason for others.
"""


def sampling_problems(config: DictConfig) -> Iterator[str]:
    """A message for every setting that makes the rollout another policy than the one that is trained."""
    if config.trainer.val_only:
        return
    scores = "the trainer scores replies under the whole distribution, so the gradient would be biased"
    for key, (allowed, reason) in EXACT.items():
        value = OmegaConf.select(config, key)
        if value in allowed:
            continue
        shown = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        remedy = f"{key}={typed(allowed[0])}"
        yield f"{key}={typed(shown)}: {reason}, but {scores}. Try: {remedy} (trainer.val_only=true may use it)"
    yield from _engine_length(config)


def _engine_length(config: DictConfig) -> Iterator[str]:
    length = OmegaConf.select(config, f"{ENGINE}.max_model_len")
    longest = config.data.max_prompt_length + config.data.max_response_length
    if isinstance(length, int) and length < longest:
        yield (
            f"{ENGINE}.max_model_len={length} is less than a prompt and its reply may need (data.max_prompt_length + "
            f"data.max_response_length = {longest}): replies would be cut, and the run would end at a long prompt. "
            f"Try: {ENGINE}.max_model_len=null"
        )
