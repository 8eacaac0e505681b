# SPDX-License-Identifier: Apache-2.0
"""LoRA: adapters of policy and critic that can be trained, and what they are compared with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from recipe.hiper.configuration.section import typed

MODELS = {"actor_rollout_ref.model": "actor_rollout_ref.actor", "critic.model": "critic"}
"""Sections of the two models, each with the section of its updates."""

MEGATRON_KEYS = {
    "rank": (0, "lora_rank"),
    "alpha": (32, "lora_alpha"),
    "adapter_path": (None, "lora_adapter_path"),
}
"""Keys in `lora` that verl's Megatron engine reads: their usual value, and the key that is read here."""

ADAPTER_FILE = "adapter_config.json"
"""In the folder of a saved adapter (PEFT)."""

RATE_FACTOR = 10
"""The best learning rate of adapters is about ten times that of all weights, in fine-tuning and reinforcement learning
(Schulman and Thinking Machines Lab, LoRA Without Regret, 2025).
"""

FULL_RATE_LIMIT = 1e-4
"""From this rate on, a rate for all weights is one for adapters."""


def lora_problems(config: DictConfig) -> Iterator[str]:
    """A message for adapters that would not be loaded, not be trained, or be compared with the wrong reference."""
    for section in MODELS:
        model = OmegaConf.select(config, section)
        for name, (usual, read) in MEGATRON_KEYS.items():
            value = model.lora[name]
            if value != usual:
                yield (
                    f"{section}.lora.{name}={typed(value)} is not read by FSDP, but vLLM would act on it. Try: "
                    f"{section}.{read}={typed(value)} {section}.lora.{name}={typed(usual)}"
                )
        if model.lora_adapter_path:
            yield from _adapter(section, str(model.lora_adapter_path), model.lora_rank)
    yield from _reference(config)


def _adapter(section: str, path: str, rank: int) -> Iterator[str]:
    key = f"{section}.lora_adapter_path={path}"
    folder = Path(path).expanduser()
    file = folder / ADAPTER_FILE
    if not file.is_file():
        problem = f"holds no {ADAPTER_FILE}, so it is no adapter" if folder.is_dir() else "there is no such folder"
        null = f"{section}.lora_adapter_path=null"
        yield f"{key}: {problem}. Try: {section}.lora_adapter_path=<folder with {ADAPTER_FILE}>, or {null}"
        return
    try:
        saved = json.loads(file.read_text("utf-8"))["r"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield f"{key}: {ADAPTER_FILE} cannot be read ({error!r}). Try: {section}.lora_adapter_path=null"
        return
    if rank == 0:
        yield (
            f"{key} with {section}.lora_rank=0: the adapter would not be loaded, without a message. Try: "
            f"{section}.lora_rank={saved}, or {section}.lora_adapter_path=null"
        )
    elif rank != saved:
        yield (
            f"{key} holds an adapter of rank {saved}, but {section}.lora_rank={rank}. Try: {section}.lora_rank={saved}"
        )


def _reference(config: DictConfig) -> Iterator[str]:
    """With adapters verl's reference is the model without them: not the policy that the run starts from, if that is an
    adapter too.
    """
    model, actor = config.actor_rollout_ref.model, config.actor_rollout_ref.actor
    in_reward = config.algorithm.use_kl_in_reward
    if not model.lora_adapter_path or not model.lora_rank or config.trainer.val_only:
        return
    if not (Path(model.lora_adapter_path).expanduser() / ADAPTER_FILE).is_file():
        return  # that is the problem
    if actor.use_kl_loss or in_reward:
        switch = "algorithm.use_kl_in_reward" if in_reward else "actor_rollout_ref.actor.use_kl_loss"
        yield (
            f"actor_rollout_ref.model.lora_adapter_path={model.lora_adapter_path} with {switch}=true: the reference "
            "would be the model without this adapter, and the KL term would undo it. Merge the adapter into the model "
            "first (docs/configuration.md). Try: actor_rollout_ref.model.path=<merged model> "
            f"actor_rollout_ref.model.lora_adapter_path=null, or {switch}=false"
        )


def lora_notices(config: DictConfig, reference: DictConfig) -> Iterator[str]:
    """A line for every learning rate of adapters that is the one that the profile has for all weights.

    Args:
        reference: the configuration without the user's overrides.
    """
    for section, role in MODELS.items():
        key = f"{role}.optim.lr"
        rate, usual = OmegaConf.select(config, key), OmegaConf.select(reference, key)
        rank = OmegaConf.select(config, f"{section}.lora_rank")
        if rank and rate == usual and rate < FULL_RATE_LIMIT:
            yield (
                f"{section}.lora_rank={rank} with {key}={rate:g}: this rate "
                f"is for training all weights, and adapters hardly learn at it. Try: {key}={RATE_FACTOR * rate:g}"
            )
