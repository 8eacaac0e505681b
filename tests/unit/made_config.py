# SPDX-License-Identifier: Apache-2.0
"""The shipped configuration, composed as `python -m recipe.hiper.main` composes it."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

import recipe.hiper.config
from recipe.hiper.cli.train import task_problems
from recipe.hiper.configuration.validation import check_config
from recipe.hiper.run_dir.checkpoints import resume_problems

CONFIG_FOLDER = Path(recipe.hiper.config.__file__).parent
PROFILES = sorted(path.stem for path in (CONFIG_FOLDER / "profile").glob("*.yaml"))
ENVIRONMENTS = sorted(path.stem for path in (CONFIG_FOLDER / "env").glob("*.yaml"))


@cache
def reference(profile: str = "cpu", environment: str = "alfworld", preset: str = "custom") -> DictConfig:
    """A profile without overrides, with the number of GPUs filled in as on a machine with four. Not to be changed."""
    GlobalHydra.instance().clear()
    with initialize_config_module("recipe.hiper.config", version_base=None):
        overrides = [f"profile={profile}", f"env={environment}", f"algorithm/hae={preset}"]
        config = compose("hiper_trainer", overrides=overrides)
    if config.trainer.n_gpus_per_node is None:
        config.trainer.n_gpus_per_node = 4
    return config


def composed(
    *overrides: str, profile: str = "cpu", environment: str = "alfworld", preset: str = "custom"
) -> DictConfig:
    """A copy of a profile with overrides of values. Composing anew for every test would take minutes in all."""
    config = deepcopy(reference(profile, environment, preset))
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        exists = OmegaConf.select(config, override.key_or_group, throw_on_missing=False) is not None
        OmegaConf.update(config, override.key_or_group, override.value(), force_add=override.is_add() or not exists)
    return config


def check(config: DictConfig) -> None:
    """`cli.train.check` against the composed profiles of this module, which do not ask the machine for its GPUs."""
    profile = "cpu" if config.trainer.device == "cpu" else "gpu"
    environment = "webshop" if "webshop" in config.env else "alfworld"
    check_config(config, reference(profile, environment), (task_problems, resume_problems))


@cache
def verls_own() -> DictConfig:
    """verl's configuration without anything of HiPER."""
    GlobalHydra.instance().clear()
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer")
