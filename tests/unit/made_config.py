# SPDX-License-Identifier: Apache-2.0
"""The shipped configuration, composed as `python -m recipe.hiper.main` composes it."""

from __future__ import annotations

import dataclasses
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from verl.workers.config import CriticConfig, RolloutConfig

import recipe.hiper.config
from recipe.hiper.configuration.keys import OPEN_SECTIONS, environment_of, flat_keys, model_of
from recipe.hiper.configuration.overrides import groups
from recipe.hiper.configuration.schema import RunSettings
from recipe.hiper.configuration.section import require_section
from recipe.hiper.configuration.validation import read_settings
from recipe.hiper.run_dir.resume import resume_problems
from recipe.hiper.tasks.families import SECTIONS, task_problems

CONFIG_FOLDER = Path(recipe.hiper.config.__file__).parent
PROFILES = sorted(path.stem for path in (CONFIG_FOLDER / "profile").glob("*.yaml"))
ENVIRONMENTS = sorted(path.stem for path in (CONFIG_FOLDER / "env").glob("*.yaml"))


@cache
def reference(
    profile: str = "cpu", environment: str = "alfworld", preset: str = "custom", model: str | None = None
) -> DictConfig:
    """A profile without overrides, with the number of GPUs filled in as on a machine with four. Not to be changed."""
    GlobalHydra.instance().clear()
    with initialize_config_module("recipe.hiper.config", version_base=None):
        overrides = [*groups(profile, environment, model), f"algorithm/hae={preset}"]
        config = compose("hiper_trainer", overrides=overrides)
    if config.trainer.n_gpus_per_node is None:
        config.trainer.n_gpus_per_node = 4
    return config


def composed(
    *overrides: str,
    profile: str = "cpu",
    environment: str = "alfworld",
    preset: str = "custom",
    model: str | None = None,
) -> DictConfig:
    """A copy of a profile with overrides of values. Composing it again for every test would take minutes in all."""
    config = deepcopy(reference(profile, environment, preset, model))
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        exists = OmegaConf.select(config, override.key_or_group, throw_on_missing=False) is not None
        OmegaConf.update(config, override.key_or_group, override.value(), force_add=override.is_add() or not exists)
    return config


def settings_of(config: DictConfig) -> RunSettings:
    """The settings of a configuration whose types are right, without any check of rules."""
    values: Any = OmegaConf.to_container(config, resolve=True)
    settings = require_section(RunSettings, values, "")
    for name in SECTIONS.keys() & values["env"]:
        family = require_section(SECTIONS[name], values["env"][name], f"env.{name}")
        settings = settings.model_copy(update={"family": family})
    return settings


def check(config: DictConfig) -> RunSettings:
    """`cli.train.check` against the composed profiles of this module, which do not ask the machine for its GPUs."""
    profile = "cpu" if config.trainer.device == "cpu" else "gpu"
    usual = reference(profile, environment_of(config), model=model_of(config))
    return read_settings(config, SECTIONS, reference=usual, checks=(task_problems, resume_problems))


@cache
def verls_own() -> DictConfig:
    """verl's configuration without anything of HiPER."""
    GlobalHydra.instance().clear()
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer")


@cache
def own_keys() -> frozenset[str]:
    """Every key that the files of recipe/hiper/config add to verl's tree."""
    verls = set(flat_keys(OmegaConf.to_container(verls_own(), resolve=False)))
    # A value that verl leaves empty ({} or null) is verl's all the same.
    added = {
        key
        for profile in PROFILES
        for environment in ENVIRONMENTS
        for key in flat_keys(OmegaConf.to_container(reference(profile, environment), resolve=False))
        if key not in verls and not any(key.startswith(f"{known}.") for known in verls)
    }
    # verl's tree leaves out some fields of its own dataclasses.
    sections = {"actor_rollout_ref.rollout": RolloutConfig, "critic": CriticConfig}
    verls_fields = {f"{name}.{field.name}" for name, kind in sections.items() for field in dataclasses.fields(kind)}
    return frozenset(
        key for key in added - verls_fields if not any(f".{name}." in f".{key}." for name in OPEN_SECTIONS)
    )
