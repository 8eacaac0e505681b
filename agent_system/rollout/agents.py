# SPDX-License-Identifier: Apache-2.0
"""The values of `env.env_name`: which environment is played, and in which reply format.

Besides the names in `AGENTS` there is `module:NAME`, an `AgentKind` in a module of the user's. No torch in here: the
environment workers import such a module too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from agent_system.environments.tasks import TaskPanel
from agent_system.errors import ConfigError
from agent_system.plan_execute.prompts import ALFRED, PromptStyle


@dataclass(frozen=True)
class AgentKind:
    """An environment and a way of talking to it.

    Attributes:
        environment: completes "You act in ..." in the prompts.
        full, compact: prompt style for an instruction-tuned model and for a small demonstrated one.
        tasks: the panel of the split "train" or "val". None: ALFWorld's games, which `recipe.hiper.prepare` finds or
            makes.
    """

    environment: str
    full: PromptStyle
    compact: PromptStyle
    tasks: Callable[[str], TaskPanel] | None = None

    def style(self, prompt_style: str) -> PromptStyle:
        """The prompt style for `env.prompt_style` ("full" or "compact")."""
        return self.full if prompt_style == "full" else self.compact


AGENTS = {
    "alfworld/AlfredTWEnvOptions": AgentKind(ALFRED, PromptStyle.PLAN_EXECUTE, PromptStyle.PLAN_EXECUTE_COMPACT),
    "alfworld/AlfredTWEnv": AgentKind(ALFRED, PromptStyle.FLAT, PromptStyle.FLAT_COMPACT),
    "alfworld/AlfredTWEnvNothink": AgentKind(ALFRED, PromptStyle.FLAT_NOTHINK, PromptStyle.FLAT_COMPACT),
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
    return kind
