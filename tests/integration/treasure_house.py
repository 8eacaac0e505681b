# SPDX-License-Identifier: Apache-2.0
"""A text game of a few states that cannot be won without a sub-goal, plugged in as a user plugs in an environment.

    env.env_name=treasure_house:TREASURE_HOUSE

The task names a thing; a note on the porch names a room. The thing is in that room, and a worthless double of it in
every other, each beside another thing. Who takes anything but the right thing in the right room has lost. The note is
read on the porch only. With `env.history_length=0` nothing but the sub-goal in force carries it to where the ways part:
the planner has to name the room, the switch to keep it, the executor to walk there and to take the right thing.

Environment workers import this module: no torch.
"""

from __future__ import annotations

import string
from itertools import product
from typing import Any

import gymnasium
from gymnasium.error import ResetNeeded

from agent_system.environments.base import TaskSpec
from agent_system.environments.tasks import TaskPanel
from agent_system.plan_execute.prompts import PromptStyle
from agent_system.rollout.environment_registry import EnvironmentSpec

THINGS = ("key", "lamp")
ROOMS = ("attic", "study", "cellar", "garden")
WIN_REWARD = 10.0
COPIES = {"train": 8, "val": 16}
"""Tasks of a panel for each thing in each room. They differ in nothing: there are only so many games."""

WAYS: dict[str, dict[str, str]] = {
    "porch": {"open door": "hall", "wait": "porch"},
    "hall": {"go cellar": "cellar", "go garden": "garden", "go upstairs": "landing"},
    "landing": {"go attic": "attic", "go study": "study", "go downstairs": "hall"},
    "attic": {"go landing": "landing"},
    "study": {"go landing": "landing"},
    "cellar": {"go hall": "hall"},
    "garden": {"go hall": "hall"},
}
"""Where each action leads, by place."""
ENV_ID = "TreasureHouse-v0"


class TreasureHouse(gymnasium.Env[str, str]):
    """One game at a time: `reset(options={"thing": ..., "room": ...})`. Nothing in it is random.

    Args:
        max_steps: actions after which an unfinished episode is truncated.
    """

    def __init__(self, max_steps: int = 5) -> None:
        self.observation_space = gymnasium.spaces.Text(200, charset=string.printable)
        self.action_space = gymnasium.spaces.Text(200, min_length=0, charset=string.printable)
        self.max_steps = max_steps
        self.place: str | None = None
        self._thing, self._room = THINGS[0], ROOMS[0]
        self._steps = 0
        self._won = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        if options:
            self._thing, self._room = options["thing"], options["room"]
        self.place, self._steps, self._won = "porch", 0, False
        return self._view(), self._info()

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        if self.place is None:
            raise ResetNeeded("the episode has not started or is over. Try: reset()")
        action = action.strip().lower()
        self._steps += 1
        understood = action in self.admissible
        taken = understood and action.startswith("take ")
        self._won = taken and action == f"take {self._thing}" and self.place == self._room
        if understood and not taken:
            self.place = WAYS[self.place][action]
        observation = self._view() if understood else f"Nothing happens. {self._view()}"
        if taken:
            observation = "It is a treasure." if self._won else "It is worthless."
        info = self._info()
        truncated = not taken and self._steps >= self.max_steps
        if taken or truncated:
            self.place = None
        return observation, WIN_REWARD * self._won, taken, truncated, info

    @property
    def admissible(self) -> list[str]:
        """What can be done now."""
        takes = [f"take {thing}" for thing in THINGS] if self.place in ROOMS else []
        return [*WAYS[self.place], *takes]

    def _view(self) -> str:
        note = f" A note says {self._room}." if self.place == "porch" else ""
        return f"You are in the {self.place}.{note}"

    def _info(self) -> dict[str, Any]:
        return {
            "task": f"bring the {self._thing}",
            "admissible_actions": self.admissible,
            "won": self._won,
            "score": float(self._won),
        }


gymnasium.register(ENV_ID, TreasureHouse)


def tasks(split: str) -> TaskPanel:
    """Every thing in every room, several times over. Rooms are the kinds that success is split by."""
    games = list(product(range(COPIES[split]), THINGS, ROOMS))
    return TaskPanel(
        tuple(
            TaskSpec(
                # As Gymnasium has it, the module before the colon is imported first.
                env_id=f"{__name__}:{ENV_ID}",
                task_id=f"{thing}-{room}-{copy}",
                kind=room,
                seed=0,
                options={"thing": thing, "room": room},
            )
            for copy, thing, room in games
        ),
        tuple(f"{thing}-{room}" for _, thing, room in games),
    )


TREASURE_HOUSE = EnvironmentSpec(
    "a house in which a treasure is hidden", PromptStyle.PLAN_EXECUTE, PromptStyle.PLAN_EXECUTE_COMPACT, tasks
)
