# SPDX-License-Identifier: Apache-2.0
"""Preflight: what a run would do on this machine, and everything that speaks against it. Starts and creates nothing."""

from __future__ import annotations

import time

from omegaconf import DictConfig

from agent_system.errors import ConfigError
from recipe.hiper.cli.train import read_checked, without_overrides
from recipe.hiper.configuration.hardware import choose_precision, count_gpus
from recipe.hiper.configuration.lora import lora_notices
from recipe.hiper.configuration.model import SMOLLM2, check_model, expand_model_paths, read_model, require_model_files
from recipe.hiper.configuration.problems import problems_of, raise_all
from recipe.hiper.configuration.schema import RunSettings
from recipe.hiper.preflight.machine import machine_problems
from recipe.hiper.preflight.plan import lines, plan
from recipe.hiper.preflight.sizes import known_sizes
from recipe.hiper.run_dir.earlier_runs import earlier_run, refuse_other_run
from recipe.hiper.run_dir.resume import checkpoint_to_resume
from recipe.hiper.tasks.preparation import cache_folder
from verl_plugins.cpu.processor import fastest_dtype


def doctor(config: DictConfig) -> None:
    """Print the plan of a run and list every problem that a training with the same overrides would find.

    Raises:
        ConfigError: with all problems. Where values are wrong, there is no plan, and what depends on them
            is not checked.
    """
    began = time.monotonic()
    problems, unchecked = [], []
    try:
        count_gpus(config)
    except ConfigError as error:
        problems += problems_of(error)
        unchecked.append("GPUs, their memory and driver")
        if config.trainer.n_gpus_per_node is None:
            config.trainer.n_gpus_per_node = 1
    try:
        settings = read_checked(config)
    except ConfigError as error:
        raise_all([*problems, *problems_of(error)])
        raise
    expand_model_paths(config)
    problems += _model_problems(config, settings)
    problems += _earlier_run_problems(config)
    problems += machine_problems(config)
    sizes = known_sizes(config)
    if sizes is None:
        unchecked.append("memory and disk, which depend on the model that is made or downloaded first")
    for line in lines(plan(config, settings, sizes, checkpoint_to_resume(config), cache_folder())):
        print(line)
    notices = [choose_precision(config, fastest_dtype()), *lora_notices(config, without_overrides(config))]
    for notice in filter(None, notices):
        print(f"note      {notice}")
    for what in unchecked:
        print(f"unchecked {what}")
    print(f"checked in {time.monotonic() - began:.1f} s")
    raise_all(problems)
    print("no problem found")


def _model_problems(config: DictConfig, settings: RunSettings) -> list[str]:
    """What is wrong with a model that is there, or with the one that is fine-tuned first."""
    base = settings.warm_start.base
    try:
        if path := config.actor_rollout_ref.model.path:
            require_model_files("actor_rollout_ref.model.path", path)
            check_model(config)
        elif base not in (None, SMOLLM2):
            require_model_files("warm_start.base", base)
            read_model("warm_start.base", base)
    except ConfigError as error:
        return problems_of(error)
    return []


def _earlier_run_problems(config: DictConfig) -> list[str]:
    try:
        earlier = earlier_run(config)
        if earlier is not None:
            refuse_other_run(config, earlier)
    except ConfigError as error:
        return problems_of(error)
    return []
