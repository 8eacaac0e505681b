# SPDX-License-Identifier: Apache-2.0
"""The values of `env.env_name`: which environment is played, and in which reply format.

Besides the names in `ENVIRONMENTS` there is `module:NAME`, an `EnvironmentSpec` in a module of the user's. This module
does not import torch, because environment workers import a user's module, and that module imports this one.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from agent_system.environments.tasks import TaskPanel
from agent_system.environments.textcraft import SETTING as TEXTCRAFT
from agent_system.errors import ConfigError
from agent_system.plan_execute.advice import ScriptedPlayer
from agent_system.plan_execute.prompts import ALFRED, WEBSHOP, PromptLayout, PromptStyle


@dataclass(frozen=True)
class EnvironmentSpec:
    """An environment, its tasks, and how the model is prompted in it.

    Attributes:
        environment: completes "You act in ..." in the prompts.
        full, compact: prompt style for an instruction-tuned model, in either layout, and for a small demonstrated one.
        tasks: the panel of the split "train" or "val", for an environment that brings its own tasks.
        family: whose tasks are played otherwise, a key of `recipe.hiper.tasks.families.FAMILIES` and of the section of
            `env` with that family's settings. None for an environment that brings its own tasks.
        player: called as `player(task, rng)` with the text of a task and a `random.Random`; plays demonstrations for a
            cold start. For an environment that brings its own tasks; None: it has no demonstrations.
    """

    environment: str
    full: PromptStyle
    compact: PromptStyle
    tasks: Callable[[str], TaskPanel] | None = None
    family: str | None = None
    player: Callable[[str, random.Random], ScriptedPlayer] | None = None

    def style(self, prompt_style: str, prompt_layout: PromptLayout | str, short_keep: bool = False) -> PromptStyle:
        """The prompt style for `env.prompt_style` ("full" or "compact"), `env.prompt_layout` and `env.short_keep`."""
        style = (self.full if prompt_style == "full" else self.compact).in_layout(prompt_layout)
        return style.with_short_keep if short_keep else style


def _spec(family: str, environment: str, full: PromptStyle) -> EnvironmentSpec:
    compact = PromptStyle.PLAN_EXECUTE_COMPACT if full.has_subgoal else PromptStyle.FLAT_COMPACT
    return EnvironmentSpec(environment, full, compact, family=family)


ENVIRONMENTS = {
    "alfworld/AlfredTWEnvOptions": _spec("alfworld", ALFRED, PromptStyle.PLAN_EXECUTE),
    "alfworld/AlfredTWEnv": _spec("alfworld", ALFRED, PromptStyle.FLAT),
    "alfworld/AlfredTWEnvNothink": _spec("alfworld", ALFRED, PromptStyle.FLAT_NOTHINK),
    "WebshopOptions": _spec("webshop", WEBSHOP, PromptStyle.PLAN_EXECUTE),
    "Webshop": _spec("webshop", WEBSHOP, PromptStyle.FLAT),
    "TextCraftOptions": _spec("textcraft", TEXTCRAFT, PromptStyle.PLAN_EXECUTE),
    "TextCraft": _spec("textcraft", TEXTCRAFT, PromptStyle.FLAT),
}


FAMILY_NAMES = tuple(dict.fromkeys(spec.family for spec in ENVIRONMENTS.values() if spec.family))
"""The families that come with this project: also the values of `env=` and the names of their sections in `env`."""
_FIRST = next(iter(ENVIRONMENTS))


def plan_execute_name(family: str) -> str:
    """The value of `env.env_name` with which a family is played with sub-goals."""
    return next(name for name, spec in ENVIRONMENTS.items() if spec.family == family and spec.full.has_subgoal)


def environment_spec(env_name: str) -> EnvironmentSpec:
    """Look up `env.env_name`: a key of `ENVIRONMENTS`, or `module:NAME`.

    Raises:
        ConfigError: no such name, or no such module, or no usable `EnvironmentSpec` of that name in it.
    """
    module_name, colon, name = env_name.partition(":")
    if module_name and colon:
        return _users_spec(env_name, module_name, name)
    try:
        return ENVIRONMENTS[env_name]
    except KeyError:
        raise ConfigError(
            f"env.env_name={env_name} is not known. Known: {', '.join(ENVIRONMENTS)}, and module:NAME for an "
            f"EnvironmentSpec of your own. Try: env.env_name={_FIRST}"
        ) from None


def _users_spec(env_name: str, module_name: str, name: str) -> EnvironmentSpec:
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"env.env_name={env_name}: the module {module_name} cannot be imported ({error}). Try: "
            f"PYTHONPATH=<folder of {module_name}>, or env.env_name={_FIRST}"
        ) from error
    spec = getattr(module, name, None)
    if not isinstance(spec, EnvironmentSpec):
        raise ConfigError(
            f"env.env_name={env_name}: there is no EnvironmentSpec {name!r} in {module.__file__}. Try: "
            f"env.env_name={module_name}:<NAME>, or env.env_name={_FIRST}"
        )
    if (spec.tasks is None) is (spec.family is None) or spec.family not in (None, *FAMILY_NAMES):
        raise ConfigError(
            f"env.env_name={env_name}: the EnvironmentSpec needs either tasks=<function of the split> "
            f"(docs/extending.md) or family=<one of {', '.join(FAMILY_NAMES)}>; it has tasks={spec.tasks} and "
            f"family={spec.family}. Try: add tasks=, or env.env_name={_FIRST}"
        )
    return spec
