# SPDX-License-Identifier: Apache-2.0
"""What the weights of a checkpoint are: the adapters, the precision, and the processes that each hold a part of them.

verl loads a checkpoint into whatever the configuration describes. Another LoRA alpha multiplies the trained adapters
with another number, and another number of processes asks for files that do not exist.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from agent_system.errors import ConfigError
from recipe.hiper.configuration.model_sizes import has_own_critic
from recipe.hiper.configuration.section import typed

MODELS = {"actor_rollout_ref.model": "actor_rollout_ref.actor.fsdp_config", "critic.model": "critic.fsdp"}
"""Sections of the two trained models, each with the section of its FSDP engine."""

ADAPTER_KEYS = ("lora_rank", "lora_alpha", "target_modules", "exclude_modules")
"""What the adapters are, beside the folder that they start from. Read where `lora_rank` is not 0."""

ENGINE_KEYS = ("model_dtype", "fsdp_size")

PROCESS_KEYS = ("trainer.nnodes", "trainer.n_gpus_per_node")


def weight_differences(config: DictConfig, earlier: DictConfig) -> dict[str, Any]:
    """The keys with which the checkpoint of `earlier` would be loaded wrongly or not at all, and their values there.

    Of the processes only their number counts: not how it is split over machines. A number that is not filled in yet
    (null) is not compared.
    """
    differences = {key: value for key, now, value in _compared(config, earlier) if now != value}
    counts = [[OmegaConf.select(of, key) for key in PROCESS_KEYS] for of in (config, earlier)]
    if None not in (*counts[0], *counts[1]) and _product(counts[0]) != _product(counts[1]):
        differences |= {key: OmegaConf.select(earlier, key) for key in PROCESS_KEYS}
    return {key: value for key, value in differences.items() if OmegaConf.select(config, key) != value}


def _compared(config: DictConfig, earlier: DictConfig) -> Iterator[tuple[str, Any, Any]]:
    """(key, value now, value then) of every key that changes what is loaded."""
    roles = dict(MODELS)
    if not has_own_critic(config):
        del roles["critic.model"]
    for model, engine in roles.items():
        ranks = [OmegaConf.select(of, f"{model}.lora_rank") for of in (config, earlier)]
        names = [f"{model}.{name}" for name in (ADAPTER_KEYS if any(ranks) else ())]
        for key in (*names, *(f"{engine}.{name}" for name in ENGINE_KEYS)):
            yield key, _plain(config, key), _plain(earlier, key)
        if any(ranks):
            key = f"{model}.lora_adapter_path"
            paths = [_plain(of, key) for of in (config, earlier)]
            now, then = (os.path.abspath(Path(path).expanduser()) if path else None for path in paths)
            yield key, now, then


def _plain(config: DictConfig, key: str) -> Any:
    value = OmegaConf.select(config, key)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _product(numbers: list[int]) -> int:
    first, second = numbers
    return first * second


def use_weights_of_run(config: DictConfig, earlier: DictConfig, gpus: int | None) -> list[str]:
    """For an evaluation: take what the weights are from the run that trained them. Changes `config` in place.

    Args:
        earlier: configuration of the run.
        gpus: of this machine; None where training processes need none, or where they are elsewhere.

    Returns:
        A line for the user for each key that was changed.

    Raises:
        ConfigError: the run had more training processes on a machine than this one has GPUs.
    """
    differences = weight_differences(config, earlier)
    processes = differences.get("trainer.n_gpus_per_node")
    if gpus is not None and processes is not None and processes > gpus:
        raise ConfigError(
            f"the checkpoint of {earlier.run_dir} was written by {processes} training processes "
            f"(trainer.n_gpus_per_node) and can only be read by as many, but this machine has {gpus} GPUs. Try: a "
            f"machine with {processes} GPUs, or actor_rollout_ref.model.path=<the policy, exported with python -m "
            "verl.model_merger> run_dir=<another folder>"
        )
    lines = []
    for key, value in differences.items():
        before = _plain(config, key)
        OmegaConf.update(config, key, value, merge=False)
        lines.append(f"taken from the run: {key}={typed(value)} (instead of {typed(before)})")
    return lines
