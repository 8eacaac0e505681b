# SPDX-License-Identifier: Apache-2.0
"""Whether policy, critic and vLLM fit on one GPU together, and how much of it vLLM may take.

They share the GPU. vLLM sleeps while the models are updated, but what the updates leave there (weights, and from the
first step on AdamW's moments) stays while vLLM is awake. vLLM checks its share only at its start, when the moments do
not exist yet: a share that is too large ends the run after its first step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from omegaconf import DictConfig, open_dict

from agent_system.errors import ConfigError
from recipe.hiper.configuration.model_sizes import ELEMENT_BYTES, ModelSize

WEIGHT_BYTES = 4
"""Of a parameter in float32, in which weights are trained."""

MOMENT_BYTES = 8
"""AdamW's two moments of a trained parameter."""

OTHER_BYTES = 4 << 30
"""CUDA contexts, graphs, buffers of the communication, fragmentation."""

CACHE_BYTES = 1 << 30
"""The least that vLLM's KV cache needs beside the weights."""

LARGEST_SHARE = 0.6
"""vLLM gets no more where the share is computed: more KV cache does not make 256 requests faster."""

ASSUMED_CARD_BYTES = 80_000_000_000
"""Memory of a GPU where this process sees none (a head node of Ray)."""

SHARE = "actor_rollout_ref.rollout.gpu_memory_utilization"


@dataclass(frozen=True)
class Resident:
    """A model on the GPUs.

    Attributes:
        size: its parameters, and how many of them are trained.
        shards: GPUs that FSDP2 splits it over, evenly.
        holds_weights: whether its weights stay on the GPU between updates (`param_offload=false`).
        holds_moments: whether the moments do (`optimizer_offload=false`).
    """

    size: ModelSize
    shards: int
    holds_weights: bool = True
    holds_moments: bool = True

    @property
    def bytes_awake(self) -> float:
        """What it holds on one GPU while vLLM is awake."""
        weights = WEIGHT_BYTES * self.size.saved if self.holds_weights else 0
        moments = MOMENT_BYTES * self.size.trained if self.holds_moments else 0
        return (weights + moments) / self.shards


def fits(models: Sequence[Resident], card_bytes: int, share: float) -> bool:
    """Whether vLLM can take `share` of a GPU with `card_bytes` beside the models."""
    return sum(model.bytes_awake for model in models) + share * card_bytes + OTHER_BYTES <= card_bytes


def fitting_share(models: Sequence[Resident], card_bytes: int) -> float:
    """The largest share of a GPU, in steps of 0.05, that vLLM can take beside the models; 0 where there is none."""
    return next((step / 20 for step in range(19, 0, -1) if fits(models, card_bytes, step / 20)), 0.0)


def residents(config: DictConfig, sizes: Mapping[str, ModelSize]) -> list[Resident]:
    """The models of a run, with what its offloading leaves on the GPU.

    The reference counts where `param_offload=false` keeps it there.

    Args:
        sizes: see `model_sizes.trained_sizes`.
    """
    policy = config.actor_rollout_ref
    engines = {"actor": policy.actor.fsdp_config, "critic": config.critic.fsdp}
    gpus = config.trainer.n_gpus_per_node * config.trainer.nnodes
    reference = []
    has_reference = (policy.actor.use_kl_loss or config.algorithm.use_kl_in_reward) and not policy.model.lora_rank
    if has_reference and policy.ref.fsdp_config.param_offload is False:
        reference = [Resident(replace(sizes["actor"], trained=0), gpus)]
    return reference + [
        Resident(
            size,
            shards=engines[role].fsdp_size if engines[role].fsdp_size > 0 else gpus,
            holds_weights=not (engines[role].param_offload or engines[role].offload_policy),
            holds_moments=not (engines[role].optimizer_offload or engines[role].offload_policy),
        )
        for role, size in sizes.items()
    ]


def fill_in_share(config: DictConfig, sizes: Mapping[str, ModelSize], card_bytes: int | None) -> str | None:
    """Fill in `gpu_memory_utilization` where it is null. Changes `config` in place.

    Args:
        sizes: of policy and critic.
        card_bytes: memory of one GPU; None where this machine has none, and 80 GB are assumed.

    Returns:
        A line for the user where the share was computed.

    Raises:
        ConfigError: the models and vLLM do not fit together; the message names the share that does, or what to offload.
    """
    rollout = config.actor_rollout_ref.rollout
    models = residents(config, sizes)
    card = card_bytes or ASSUMED_CARD_BYTES
    best = fitting_share(models, card)
    held = sum(model.bytes_awake for model in models)
    gpu = f"a GPU of {card / 1e9:.0f} GB" + ("" if card_bytes else " (assumed: this machine has none)")
    reason = f"policy and critic hold {held / 1e9:.1f} GB of {gpu} from the first update on"
    weights = sizes["actor"].parameters * ELEMENT_BYTES.get(rollout.dtype, 2) / rollout.tensor_model_parallel_size
    if best * card < weights + CACHE_BYTES:
        offload = ["actor_rollout_ref.actor.fsdp_config.optimizer_offload=true"]
        offload += ["critic.fsdp.optimizer_offload=true"] if "critic" in sizes else []
        raise ConfigError(
            f"{reason}, and vLLM needs {(weights + CACHE_BYTES) / 1e9:.1f} GB at least. Try: {' '.join(offload)}, or "
            "actor_rollout_ref.model.lora_rank=32 critic.model.lora_rank=32, or more GPUs"
        )
    chosen = rollout.gpu_memory_utilization
    if chosen is None:
        with open_dict(config):
            rollout.gpu_memory_utilization = min(LARGEST_SHARE, best)
        return f"{SHARE}={rollout.gpu_memory_utilization:g}, computed: {reason}"
    if not fits(models, card, chosen):
        raise ConfigError(
            f"{SHARE}={chosen:g}: {reason}, so vLLM would end the run when it wakes before the second step. "
            f"Try: {SHARE}={best:g}"
        )
    return None
