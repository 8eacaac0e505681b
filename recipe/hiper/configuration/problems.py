# SPDX-License-Identifier: Apache-2.0
"""All problems of a configuration in one error."""

from __future__ import annotations

from collections.abc import Iterable

from agent_system.errors import ConfigError


def raise_all(problems: Iterable[str]) -> None:
    """Raise one ConfigError that lists all problems, one a line, if there are any."""
    problems = list(problems)
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigError(f"The configuration cannot be run ({count}):\n" + "\n".join(f"  - {p}" for p in problems))
