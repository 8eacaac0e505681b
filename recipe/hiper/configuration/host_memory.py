# SPDX-License-Identifier: Apache-2.0
"""How many tokens a micro-batch may have on a CPU machine, where all processes of a run share one memory.

Activations are what grows with the micro-batch: two megabytes a token for SmolLM2 in float32. A machine that runs out
of memory does not fail at the start but in some later step, when Ray's monitor ends a worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from omegaconf import DictConfig, OmegaConf, open_dict

from agent_system.errors import ConfigError
from recipe.hiper.configuration.model_sizes import ELEMENT_BYTES, ModelSize
from recipe.hiper.configuration.settings import number_of_heads

BUDGETS = {
    "actor": "actor_rollout_ref.actor.ppo_max_token_len_per_gpu",
    "critic": "critic.ppo_max_token_len_per_gpu",
}
"""Keys of the budgets, by role."""

FOLLOWERS = {
    "actor": (
        "actor_rollout_ref.ref.log_prob_max_token_len_per_gpu",
        "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu",
    ),
    "critic": ("critic.forward_max_token_len_per_gpu", "critic.ppo_infer_max_token_len_per_gpu"),
}
"""Keys that verl reads for the passes without an update, and that follow the budget where nothing else is chosen."""

LARGEST_BUDGET, STEP = 1024, 128
"""More tokens a micro-batch are not faster on a CPU (`benchmarks/engine_speed.py`); computed budgets are multiples of
128."""

SHARDED_BYTES, WHOLE_BYTES = 16, 8
"""Of a trained parameter, in float32: weight, gradient and AdamW's two moments, split over the training processes; and
weight and gradient once more in each of them during a pass."""

KEPT_BYTES = 4
"""Of a parameter that is not trained, split and whole."""

PROCESS_BYTES = 5 * 10**9
"""Trainer, agent loop, environments, TransferQueue and Ray, before any model (measured with SmolLM2: 4.1 GB)."""

LOGIT_TENSORS = 5
"""Float32 tensors of the size of the logits that exist at a time."""

ENGINE_BYTES = 12 * 10**8
"""Of vLLM, without weights and KV cache."""


LIMIT_AND_USE = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)
"""Files of control groups of version 2 and version 1."""


def free_bytes(groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Memory that a run can take: the system's, or that of the control group (container) where it is less."""
    free: int = psutil.virtual_memory().available
    for names in LIMIT_AND_USE:
        try:
            limit, used = (int((groups / name).read_text("utf-8")) for name in names)
        except (OSError, ValueError):  # no control groups of this version, or no limit ("max")
            continue
        free = min(free, max(0, limit - used))
    return free


def activation_bytes(
    model: Mapping[str, Any], element: int, *, checkpointing: bool = False, reply_share: float = 1.0
) -> int:
    """Bytes that the forward pass of one token keeps for the backward pass, of a decoder with gated MLPs.

    In each layer: the inputs of both norms, of the projections and of the residual sums, queries and keys before and
    after the rotation, and what attention and MLP multiply. Of a reply's tokens also logits, log-probabilities and
    their gradients, in float32.

    Args:
        model: the fields of its config.json.
        element: bytes of a number in the layers.
        checkpointing: only the input of each layer is kept, and one layer at a time computes the rest again.
        reply_share: of the tokens.
    """
    hidden, inner, layers = model["hidden_size"], model["intermediate_size"], model["num_hidden_layers"]
    heads = model["num_attention_heads"]
    shared = (model.get("num_key_value_heads") or heads) / heads
    layer = hidden * (12 + 4 * shared) + 5 * inner
    kept = layers * hidden + layer if checkpointing else layers * layer
    logits = reply_share * LOGIT_TENSORS * 4 * model["vocab_size"]
    return int(kept * element + logits)


def resident_bytes(config: DictConfig, sizes: Mapping[str, ModelSize]) -> int:
    """What a run holds beside its activations.

    Args:
        config: a run on CPU.
        sizes: see `model_sizes.trained_sizes`.
    """
    policy = config.actor_rollout_ref
    processes = config.trainer.n_gpus_per_node
    trained = sum(size.trained for size in sizes.values())
    kept = sum(size.saved - size.trained for size in sizes.values())
    if (policy.actor.use_kl_loss or config.algorithm.use_kl_in_reward) and not policy.model.lora_rank:
        kept += sizes["actor"].parameters
    weights = trained * (SHARDED_BYTES + processes * WHOLE_BYTES) + kept * KEPT_BYTES * (1 + processes)
    in_engine = 2 * sizes["actor"].parameters * ELEMENT_BYTES.get(policy.rollout.dtype, 4)
    cache: int = OmegaConf.select(policy, "rollout.engine_kwargs.vllm.kv_cache_memory_bytes") or 0
    total: int = PROCESS_BYTES + ENGINE_BYTES + weights + in_engine + cache
    return total


def fill_in_token_budgets(
    config: DictConfig, sizes: Mapping[str, ModelSize], models: Mapping[str, Mapping[str, Any]], free: int
) -> str | None:
    """Fill in the token budgets of micro-batches where they are null. Changes `config` in place.

    Args:
        config: a run on CPU.
        sizes: of policy and critic.
        models: the fields of their config.json, by role.
        free: bytes that the run can take.

    Returns:
        A line for the user where a budget was computed and is less than the largest that is useful.

    Raises:
        ConfigError: not even the longest row fits.
    """
    wanted = {role: key for role, key in BUDGETS.items() if OmegaConf.select(config, key) is None}
    if not wanted:
        return None
    longest = config.data.max_prompt_length + config.data.max_response_length
    held = resident_bytes(config, sizes)
    element = ELEMENT_BYTES[_compute_dtype(config)]
    share = config.data.max_response_length / longest
    sections = {"actor": config.actor_rollout_ref.model, "critic": config.critic.model}
    per_token = max(
        activation_bytes(
            models[role], element, checkpointing=sections[role].enable_gradient_checkpointing, reply_share=share
        )
        for role in sizes
    )
    room = (free - held) // (per_token * config.trainer.n_gpus_per_node)
    needs = f"the run holds about {held / 1e9:.1f} GB and {per_token / 1e6:.1f} MB for each token of a micro-batch"
    if room < longest:
        raise ConfigError(
            f"{free / 1e9:.1f} GB of memory are free, but {needs}, and a prompt with its reply may have {longest} "
            f"tokens. Try: {_remedy(config)}, or other programs ended, or {BUDGETS['actor']}={longest} "
            f"{BUDGETS['critic']}={longest} to try it all the same"
        )
    budget = max(longest, min(LARGEST_BUDGET, room // STEP * STEP))
    with open_dict(config):
        for role, key in wanted.items():
            for name in (key, *(name for name in FOLLOWERS[role] if OmegaConf.select(config, name) is None)):
                OmegaConf.update(config, name, budget)
    if budget >= LARGEST_BUDGET:
        return None
    return f"{BUDGETS['actor']}={budget}, computed: {free / 1e9:.1f} GB of memory are free, and {needs}"


def _compute_dtype(config: DictConfig) -> str:
    dtype: str = OmegaConf.select(config, "actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype") or "fp32"
    return dtype


def _remedy(config: DictConfig) -> str:
    if not config.actor_rollout_ref.model.lora_rank:
        adapters = "actor_rollout_ref.model.lora_rank=32"
        own = number_of_heads(config) and config.critic.backbone == "own"
        return adapters + (" critic.model.lora_rank=32" if own else "")
    return "data.max_prompt_length=<fewer tokens>"
