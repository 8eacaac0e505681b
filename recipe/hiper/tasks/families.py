# SPDX-License-Identifier: Apache-2.0
"""The table of families, and the family of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from agent_system.errors import ConfigError
from agent_system.rollout.environment_registry import environment_spec
from recipe.hiper.configuration.section import Section, read_section, require_section
from recipe.hiper.tasks.alfworld import ALFWorld
from recipe.hiper.tasks.family import Family, GeneralSettings
from recipe.hiper.tasks.own import OwnEnvironment
from recipe.hiper.tasks.webshop import WebShop

FAMILIES: dict[str | None, type[Family[Any]]] = {
    "alfworld": ALFWorld,
    "webshop": WebShop,
    None: OwnEnvironment,
}
"""By `EnvironmentSpec.family`, which is also the name of the family's section in `env`."""

SECTIONS: dict[str, type[Section]] = {
    name: family.Settings for name, family in FAMILIES.items() if name and family.Settings
}
"""The sections of `env` that belong to a family, by name."""


def family_of(config: DictConfig) -> Family[Any]:
    """The family of `env.env_name`, with the settings of the run.

    Raises:
        ConfigError: `env.env_name` is not known, or the family's section of `env` has a wrong value.
    """
    spec = environment_spec(config.env.env_name)
    family = FAMILIES[spec.family]
    settings = None
    if family.Settings is not None:
        assert spec.family is not None  # only a family in the table has settings
        settings = require_section(family.Settings, _section(config, spec.family), f"env.{spec.family}")
    return family(spec, GeneralSettings.from_config(config), settings)


def section_problems(config: DictConfig) -> Iterator[str]:
    """A message for every wrong value in the sections of `env` that belong to a family."""
    for name, section in SECTIONS.items():
        if name in config.env:
            yield from read_section(section, _section(config, name), f"env.{name}")[1]


def task_problems(config: DictConfig) -> Iterator[str]:
    """A message for every problem with the tasks of the run, apart from `section_problems`."""
    try:
        family = family_of(config)
    except ConfigError:
        return  # reported where `env.env_name` and the sections are checked
    yield from family.validate(needs_model=config.warm_start.enable and not config.actor_rollout_ref.model.path)


def _section(config: DictConfig, name: str) -> dict[str, Any]:
    if name not in config.env:
        raise ConfigError(f"env.env_name={config.env.env_name} needs the section env.{name}. Try: env={name}")
    return cast("dict[str, Any]", OmegaConf.to_container(config.env[name], resolve=True))
