# SPDX-License-Identifier: Apache-2.0
"""The table of families, and the family of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agent_system.errors import ConfigError
from agent_system.rollout.environment_registry import environment_spec
from recipe.hiper.configuration.schema import RunSettings
from recipe.hiper.configuration.section import Section
from recipe.hiper.tasks.alfworld import ALFWorld
from recipe.hiper.tasks.family import Family
from recipe.hiper.tasks.own import OwnEnvironment
from recipe.hiper.tasks.textcraft import TextCraft
from recipe.hiper.tasks.webshop import WebShop

FAMILIES: dict[str | None, type[Family[Any]]] = {
    "alfworld": ALFWorld,
    "webshop": WebShop,
    "textcraft": TextCraft,
    None: OwnEnvironment,
}
"""By `EnvironmentSpec.family`, which is also the name of the family's section in `env`."""

SECTIONS: dict[str, type[Section]] = {
    name: family.Settings for name, family in FAMILIES.items() if name and family.Settings
}
"""The sections of `env` that belong to a family, by name."""


def family_of(settings: RunSettings) -> Family[Any]:
    """The family of `env.env_name`, for one run.

    Raises:
        ConfigError: `env.env_name` is not known, or its family has a section of `env` that was not chosen.
    """
    env_name = settings.env.env_name
    spec = environment_spec(env_name)
    family = FAMILIES[spec.family]
    template_kwargs = settings.data.apply_chat_template_kwargs
    if family.Settings is None:
        return family(spec, settings.env, None, template_kwargs)
    if not isinstance(settings.family, family.Settings):
        raise ConfigError(f"env.env_name={env_name} needs the section env.{spec.family}. Try: env={spec.family}")
    return family(spec, settings.env, settings.family, template_kwargs)


def task_problems(settings: RunSettings) -> Iterator[str]:
    """A message for every problem with the tasks of the run."""
    try:
        family = family_of(settings)
    except ConfigError:
        return  # `rules` reports an unknown `env.env_name`, and one that does not belong to the chosen section
    warm_start = settings.warm_start
    needs_model = warm_start.enable and warm_start.base is None and not settings.actor_rollout_ref.model.path
    yield from family.validate(needs_model=needs_model)
