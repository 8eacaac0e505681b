# SPDX-License-Identifier: Apache-2.0
"""All problems of a configuration in one error."""

from __future__ import annotations

from collections.abc import Iterable

from agent_system.errors import ConfigError


class ConfigProblems(ConfigError):
    """Several problems in one error.

    Attributes:
        problems: a message for each.
    """

    def __init__(self, problems: list[str]):
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"The run cannot start ({count}):\n" + "\n".join(f"  - {p}" for p in problems))
        self.problems = problems

    def __reduce__(self) -> tuple[type[ConfigProblems], tuple[list[str]]]:
        return ConfigProblems, (self.problems,)


def raise_all(problems: Iterable[str]) -> None:
    """Raise one ConfigError that lists all problems, one a line, if there are any."""
    problems = list(problems)
    if problems:
        raise ConfigProblems(problems)


def problems_of(error: ConfigError) -> list[str]:
    """The messages in an error."""
    return error.problems if isinstance(error, ConfigProblems) else [str(error)]
