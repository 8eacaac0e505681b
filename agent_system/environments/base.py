# SPDX-License-Identifier: Apache-2.0
"""What every text environment of this project has in common: a task, and a reason to stop.

The environments themselves follow Gymnasium's contract (observation and action are `str`):

    observation, info = env.reset(seed=..., options={...})
    observation, reward, terminated, truncated, info = env.step(action)

`terminated` means that the task itself ended (won, or lost for good); `truncated` means that the step limit cut a
running episode. `info` always holds `task: str` and `admissible_actions: list[str]`, and at the end `won: bool` and
`score: float`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from agent_system.plan_execute.prompts import BLANK


class StopReason(str, Enum):
    """Why an episode ended. Mirrored in the metrics as shares of episodes."""

    WON = "won"
    """The environment terminated and the task was accomplished."""
    FAILED = "failed"
    """The environment terminated without success (for example the wrong product was bought)."""
    STEP_LIMIT = "step_limit"
    """`env.max_steps` turns were played: the episode was truncated."""
    FAULT = "fault"
    """The environment broke on every retry of the task. Such an episode is never trained on."""


def is_admissible(action: str, admissible: Sequence[str]) -> bool:
    """Whether the action is one of those, or fills in the blank of one, as "search[tea]" does "search[<your query>]".

    Capital letters and blanks at the ends count for nothing.
    """
    action, admissible = action.strip().lower(), [listed.lower() for listed in admissible]
    if action in admissible:
        return BLANK.search(action) is None  # whoever copies the template fills in nothing
    for template in admissible:
        if blank := BLANK.search(template):
            start, end = template[: blank.start()], template[blank.end() :]
            if len(action) > len(start) + len(end) and action.startswith(start) and action.endswith(end):
                return True
    return False


def as_listed(action: str, admissible: Sequence[str]) -> str:
    """The admissible action that is `action` but for capital letters and runs of whitespace.

    Any other action is returned as it is. A reply loses runs of whitespace when it is parsed, and a product of WebShop
    may have an option "wine  light blue", with two spaces.
    """
    if action in admissible:
        return action
    plain = action.lower()
    return next((listed for listed in admissible if " ".join(listed.split()).lower() == plain), action)


@dataclass(frozen=True)
class TaskSpec:
    """One task, the same on every machine.

    Args:
        env_id: the Gymnasium id, for example ``hiper/ALFWorld-v0``.
        task_id: short name, unique within its panel and free of machine paths.
        kind: the family the success rates are split by (ALFWorld: one of six task types).
        seed: passed to ``env.reset(seed=...)``.
        options: passed to ``env.reset(options=...)``.
    """

    env_id: str
    task_id: str
    kind: str
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)
