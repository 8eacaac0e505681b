# SPDX-License-Identifier: Apache-2.0
"""The values of `env.env_name`: which environment is played, and in which reply format.

Besides the names in `AGENTS` there is `module:NAME`, an `AgentKind` in a module of the user's. No torch in here: the
environment workers import such a module too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from importlib import import_module

from agent_system.environments.tasks import TaskPanel
from agent_system.errors import ConfigError
from agent_system.plan_execute.prompts import ALFRED, WEBSHOP, PromptStyle


class World(str, Enum):
    """Where tasks come from, for `recipe.hiper.tasks.preparation`."""

    ALFWORLD = "alfworld"
    """Games of `env.alfworld`."""
    WEBSHOP = "webshop"
    """Goals of a shop, `env.webshop`."""
    OWN = "own"
    """`AgentKind.tasks`."""


@dataclass(frozen=True)
class AgentKind:
    """An environment and a way of talking to it.

    Attributes:
        environment: completes "You act in ..." in the prompts.
        full, compact: prompt style for an instruction-tuned model and for a small demonstrated one.
        tasks: the panel of the split "train" or "val", for an environment that brings its own.
        world: where the tasks come from.
    """

    environment: str
    full: PromptStyle
    compact: PromptStyle
    tasks: Callable[[str], TaskPanel] | None = None
    world: World = World.OWN

    def style(self, prompt_style: str, short_keep: bool = False) -> PromptStyle:
        """The prompt style for `env.prompt_style` ("full" or "compact") and `env.short_keep`."""
        style = self.full if prompt_style == "full" else self.compact
        return style.with_short_keep if short_keep else style


def _kind(world: World, environment: str, full: PromptStyle) -> AgentKind:
    compact = PromptStyle.PLAN_EXECUTE_COMPACT if full.has_subgoal else PromptStyle.FLAT_COMPACT
    return AgentKind(environment, full, compact, world=world)


AGENTS = {
    "alfworld/AlfredTWEnvOptions": _kind(World.ALFWORLD, ALFRED, PromptStyle.PLAN_EXECUTE),
    "alfworld/AlfredTWEnv": _kind(World.ALFWORLD, ALFRED, PromptStyle.FLAT),
    "alfworld/AlfredTWEnvNothink": _kind(World.ALFWORLD, ALFRED, PromptStyle.FLAT_NOTHINK),
    "WebshopOptions": _kind(World.WEBSHOP, WEBSHOP, PromptStyle.PLAN_EXECUTE),
    "Webshop": _kind(World.WEBSHOP, WEBSHOP, PromptStyle.FLAT),
}


def agent_kind(env_name: str) -> AgentKind:
    """Look up `env.env_name`: a key of `AGENTS`, or `module:NAME`.

    Raises:
        ConfigError: no such name, or no such module, or no `AgentKind` of that name in it.
    """
    module_name, colon, name = env_name.partition(":")
    if module_name and colon:
        return _foreign_kind(env_name, module_name, name)
    try:
        return AGENTS[env_name]
    except KeyError:
        known = ", ".join(AGENTS)
        raise ConfigError(
            f"env.env_name={env_name} is not known. Known: {known}, and module:NAME for an AgentKind of your own. "
            f"For example env.env_name={next(iter(AGENTS))}"
        ) from None


def _foreign_kind(env_name: str, module_name: str, name: str) -> AgentKind:
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"env.env_name={env_name}: the module {module_name} cannot be imported ({error}). PYTHONPATH must hold its "
            f"folder; or env.env_name={next(iter(AGENTS))}"
        ) from error
    kind = getattr(module, name, None)
    if not isinstance(kind, AgentKind):
        raise ConfigError(
            f"env.env_name={env_name}: there is no AgentKind {name!r} in {module.__file__}. "
            f"env.env_name={module_name}:<NAME>, or env.env_name={next(iter(AGENTS))}"
        )
    if kind.world is World.OWN and kind.tasks is None:
        raise ConfigError(
            f"env.env_name={env_name}: the AgentKind has no tasks. Give it tasks=<function of the split> "
            f"(docs/extending.md), or env.env_name={next(iter(AGENTS))}"
        )
    return kind
