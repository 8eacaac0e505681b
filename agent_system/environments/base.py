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

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class StopReason(str, Enum):
    """Why an episode ended; the metrics count each. An episode that broke on every retry ends the run instead."""

    WON = "won"
    """The environment terminated and the task was accomplished."""
    FAILED = "failed"
    """The environment terminated without success (for example the wrong product was bought)."""
    STEP_LIMIT = "step_limit"
    """`env.max_steps` turns were played: the episode was truncated."""


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
