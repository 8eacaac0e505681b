# SPDX-License-Identifier: Apache-2.0
"""Sizes of the models of a run, as far as they are known before anything is downloaded or trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig

from recipe.hiper.configuration.model import SMOLLM2
from recipe.hiper.configuration.model_sizes import SMOLLM2_PARAMETERS, ModelSize, has_own_critic, trained_sizes

SMOLLM2_SIZE = ModelSize(SMOLLM2_PARAMETERS, SMOLLM2_PARAMETERS, 49_152 * 576)
"""Of SmolLM2-135M-Instruct. Its largest tensor is the embedding: 49,152 tokens of 576 numbers."""


def known_sizes(config: DictConfig) -> Mapping[str, ModelSize] | None:
    """Sizes by role, see `model_sizes.trained_sizes`.

    Returns:
        None where the model is a name on the hub or is not made yet, and is not SmolLM2 either.
    """
    roles = ("actor", "critic") if has_own_critic(config) else ("actor",)
    path = config.actor_rollout_ref.model.path
    if path is None:
        if config.warm_start.base != SMOLLM2 or config.actor_rollout_ref.model.lora_rank:
            return None
        return dict.fromkeys(roles, SMOLLM2_SIZE)
    folders = (path, config.critic.model.path)[: len(roles)]
    if all(folder and (Path(folder).expanduser() / "config.json").is_file() for folder in folders):
        return trained_sizes(config)
    return None


def checkpoint_size(sizes: Mapping[str, ModelSize]) -> int:
    """Bytes of one checkpoint of models with these sizes, see `model_sizes.checkpoint_bytes`."""
    return sum(4 * size.saved + 8 * size.trained for size in sizes.values())
