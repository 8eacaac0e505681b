# SPDX-License-Identifier: Apache-2.0
"""What must exist before training: data of the tasks, task files, model. Created once, kept in the cache.

`python -m recipe.hiper.prepare [hydra overrides]` does only this, for a machine that trains later.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any
from uuid import uuid4

from omegaconf import DictConfig, OmegaConf, open_dict
from platformdirs import user_cache_path

from agent_system.environments.tasks import TaskPanel
from agent_system.processes import usable_cpus
from recipe.hiper.configuration.schema import RunSettings
from recipe.hiper.tasks.dataset import write_task_file
from recipe.hiper.tasks.families import family_of
from recipe.hiper.tasks.family import ColdStartSpec, Family


def cache_folder() -> Path:
    """Folder of generated data and models: `HIPER_CACHE`, or hiper in the user's cache folder."""
    if chosen := os.environ.get("HIPER_CACHE"):
        return Path(chosen).expanduser().absolute()
    return user_cache_path("hiper").absolute()


def prepare(
    config: DictConfig,
    settings: RunSettings,
    progress: bool,
    accept: Callable[[DictConfig], None] = lambda config: None,
) -> None:
    """Create what is missing and fill in what depends on it.

    Args:
        config: the configuration that verl gets; changed in place.
        settings: what was read from it.
        progress: whether progress bars are drawn on standard error.
        accept: called when the path of the model is known and before it is made, which takes minutes; raises
            ConfigError if the model does not fit.

    Raises:
        ConfigError, TaskError: the data, the tasks or the model cannot be used.
    """
    family = family_of(settings)
    data_dir = family.prepare(cache_folder(), progress)
    panels = family.panels(data_dir)
    for notice in family.inspect_panels(data_dir, panels):
        print(notice, file=sys.stderr, flush=True)  # Hydra turns the loggers of this process off
    write_task_files(config, panels)
    if not settings.actor_rollout_ref.model.path:
        plan, folder = small_model(settings, family, data_dir)
        config.actor_rollout_ref.model.path = str(folder)
        accept(config)
        plan.make(folder, workers=usable_cpus(), progress=progress)
    with open_dict(config):
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


def small_model(settings: RunSettings, family: Family[Any], data_dir: Path | None) -> tuple[ColdStartSpec, Path]:
    """How the small demonstrated model of a run is made, and its folder in the cache.

    Args:
        data_dir: what `family.prepare` returned.

    Raises:
        ConfigError: these tasks have no demonstrations.
    """
    plan = family.cold_start_spec(data_dir, settings.warm_start)
    return plan, cache_folder() / "models" / f"warm-start-{plan.digest[:12]}"
