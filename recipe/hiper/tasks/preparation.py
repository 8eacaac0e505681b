# SPDX-License-Identifier: Apache-2.0
"""What must exist before training: data of the tasks, task files, model. Created once, kept in the cache.

`python -m recipe.hiper.prepare [hydra overrides]` does only this, for a machine that trains later.
"""

from __future__ import annotations

import os
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any
from uuid import uuid4

from omegaconf import DictConfig, OmegaConf, open_dict
from platformdirs import user_cache_path

from agent_system.environments.tasks import TaskPanel
from agent_system.errors import ConfigError
from agent_system.processes import usable_cpus
from recipe.hiper.tasks.dataset import write_task_file
from recipe.hiper.tasks.families import family_of
from recipe.hiper.tasks.family import ColdStartSettings, Family


def cache_folder() -> Path:
    """Folder of generated data and models: `HIPER_CACHE`, or hiper in the user's cache folder."""
    if chosen := os.environ.get("HIPER_CACHE"):
        return Path(chosen).expanduser().absolute()
    return user_cache_path("hiper").absolute()


def prepare(config: DictConfig, progress: bool) -> DictConfig:
    """Create what is missing and fill in what depends on it. Changes `config` in place and returns it.

    Args:
        config: the configuration of a run, checked.
        progress: whether progress bars are drawn on standard error.

    Raises:
        ConfigError, TaskError: the data, the tasks or the model cannot be used.
    """
    family = family_of(config)
    data_dir = family.prepare(cache_folder(), progress)
    panels = family.panels(data_dir)
    for notice in family.inspect_panels(data_dir, panels):
        print(notice, file=sys.stderr, flush=True)  # Hydra turns the loggers of this process off
    write_task_files(config, panels)
    model = prepare_model(config, family, data_dir, progress)
    with open_dict(config):
        config.actor_rollout_ref.model.path = model
        for key, value in family.resolved_keys(data_dir).items():
            OmegaConf.update(config, key, value)
        config.env.kwargs = {**family.environment_arguments(data_dir), **config.env.kwargs}
        config.env.pool_name = f"hiper-env-{uuid4().hex[:8]}"
        rollout = config.actor_rollout_ref.rollout
        if rollout.max_model_len is None:
            rollout.max_model_len = config.data.max_prompt_length + config.data.max_response_length
        if rollout.agent.agent_loop_config_path is None:
            rollout.agent.agent_loop_config_path = str(files("agent_system.rollout") / "agent_loops.yaml")
    OmegaConf.resolve(config)
    return config


def write_task_files(config: DictConfig, panels: dict[str, TaskPanel]) -> None:
    """Write `data.train_files` and `data.val_files`.

    They hold absolute paths of games: this machine, or a copy of its data under the same paths, reads them again.
    """
    groups = config.algorithm.filter_groups
    batches = config.trainer.total_training_steps * (1 + groups.max_num_gen_batches if groups.enable else 1)
    write_task_file(
        Path(config.data.train_files),
        panels["train"],
        "train",
        rows=config.data.train_batch_size * batches,
        order_seed=config.env.seed,
    )
    write_task_file(Path(config.data.val_files), panels["val"], "val", rows=len(panels["val"]), order_seed=None)


def prepare_model(config: DictConfig, family: Family[Any], data_dir: Path | None, progress: bool) -> str:
    """The model to train: the configured one, or the small demonstrated one, which is made where it is missing.

    Args:
        data_dir: what `family.prepare` returned.

    Raises:
        ConfigError: no model is configured, or the small one is configured for tasks without demonstrations.
    """
    if config.actor_rollout_ref.model.path:
        return config.actor_rollout_ref.model.path
    if not config.warm_start.enable:
        raise ConfigError(
            "actor_rollout_ref.model.path=null with warm_start.enable=false: there is no model to train. Try: "
            "warm_start.enable=true, or actor_rollout_ref.model.path=<folder or name>"
        )
    plan = family.cold_start_spec(data_dir, ColdStartSettings.from_config(config))
    folder = cache_folder() / "models" / f"warm-start-{plan.digest[:12]}"
    plan.make(folder, workers=usable_cpus(), progress=progress)
    return str(folder)
