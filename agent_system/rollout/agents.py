# SPDX-License-Identifier: Apache-2.0
"""The values of `env.env_name`: which environment is played, and in which reply format."""

from __future__ import annotations

from dataclasses import dataclass

from agent_system.errors import ConfigError
from agent_system.plan_execute.prompts import ALFRED, PromptStyle


@dataclass(frozen=True)
class AgentKind:
    """An environment and a way of talking to it.

    Attributes:
        env_id: the Gymnasium id.
        environment: completes "You act in ..." in the prompts.
        full, compact: prompt style for an instruction-tuned model and for a small demonstrated one.
    """

    env_id: str
    environment: str
    full: PromptStyle
    compact: PromptStyle

    def style(self, prompt_style: str) -> PromptStyle:
        """The prompt style for `env.prompt_style` ("full" or "compact")."""
        return self.full if prompt_style == "full" else self.compact


AGENTS = {
    "alfworld/AlfredTWEnvOptions": AgentKind(
        "hiper/ALFWorld-v0", ALFRED, PromptStyle.PLAN_EXECUTE, PromptStyle.PLAN_EXECUTE_COMPACT
    ),
    "alfworld/AlfredTWEnv": AgentKind("hiper/ALFWorld-v0", ALFRED, PromptStyle.FLAT, PromptStyle.FLAT_COMPACT),
    "alfworld/AlfredTWEnvNothink": AgentKind(
        "hiper/ALFWorld-v0", ALFRED, PromptStyle.FLAT_NOTHINK, PromptStyle.FLAT_COMPACT
    ),
}


def agent_kind(env_name: str) -> AgentKind:
    """Look up `env.env_name`.

    Raises:
        ConfigError: no such name.
    """
    try:
        return AGENTS[env_name]
    except KeyError:
        known = ", ".join(AGENTS)
        raise ConfigError(
            f"env.env_name={env_name} is not known. Known: {known}. For example env.env_name={next(iter(AGENTS))}"
        ) from None
