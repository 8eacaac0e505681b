# SPDX-License-Identifier: Apache-2.0
"""TextCraft as a Gymnasium environment: `gymnasium.make("hiper/TextCraft-v0", max_steps=40)`."""

from __future__ import annotations

import string
from typing import Any

import gymnasium
from gymnasium.error import ResetNeeded

from agent_system.environments.textcraft.game import Game
from agent_system.environments.textcraft.recipes import recipe_book
from agent_system.environments.textcraft.tasks import DISTRACTORS, CraftingTask, crafting_task
from agent_system.errors import ConfigError

WIN_REWARD = 10.0
_MAX_OBSERVATION = 8192
_MAX_ACTION = 512
_VARIANTS = 1000
"""Without a goal in the options of `reset`, the variant is drawn among so many."""


class TextCraftEnv(gymnasium.Env[str, str]):
    """One crafting task at a time.

    Args:
        max_steps: actions after which an unfinished episode is truncated.
        show_inventory: whether every observation ends with what is carried. Without it, as in the published
            environment, the action `inventory` shows that.

    Raises:
        ConfigError: `max_steps` is not a positive integer.
        TaskError: the recipes cannot be read.

    `reset(options={"goal": "cake", "variant": 3, "distractors": 10})` selects a task (`tasks.crafting_task`); what is
    left out is variant 0 and 10 distractors. Without a goal, the seed draws goal and variant. The game itself has no
    randomness.

    `info` holds ``task`` (the goal and the commands), ``admissible_actions`` (`Game.admissible_actions`),
    ``task_kind`` ("depth_2": the depth of the goal's recipe tree), ``won`` and ``score`` (0.0 or 1.0). The reward is
    10.0 at the step that crafts the goal and 0.0 at every other. Crafting the goal terminates the episode, and nothing
    else does; the step limit truncates it.

    An action that is not understood or not possible is answered with the reason, changes nothing, and uses up a step.
    """

    def __init__(self, max_steps: int = 40, show_inventory: bool = True) -> None:
        if not isinstance(max_steps, int) or isinstance(max_steps, bool) or max_steps < 1:
            raise ConfigError(f"env.max_steps={max_steps!r}: an episode needs at least one step. Try: env.max_steps=40")
        self.max_steps = max_steps
        self._show_inventory = show_inventory
        self.observation_space = gymnasium.spaces.Text(_MAX_OBSERVATION, min_length=0, charset=string.printable)
        self.action_space = gymnasium.spaces.Text(_MAX_ACTION, min_length=0, charset=string.printable)
        self._book = recipe_book()
        self._task: CraftingTask | None = None
        self._game: Game | None = None
        self._steps = 0
        self._won = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start an episode.

        Raises:
            TaskError: there is no such goal, or a value is wrong.
        """
        super().reset(seed=seed)
        chosen = dict(options or {})
        if "goal" not in chosen:
            goals = sorted(item for item, depth in self._book.depths.items() if depth > 0)
            chosen["goal"] = goals[int(self.np_random.integers(len(goals)))]
            chosen.setdefault("variant", int(self.np_random.integers(_VARIANTS)))
        goal, variant = chosen["goal"], chosen.get("variant", 0)
        self._task = crafting_task(self._book, goal, variant, chosen.get("distractors", DISTRACTORS))
        self._game = Game(self._book, self._task.commands)
        self._steps, self._won = 0, False
        return self._game.inventory_text(), self._info(self._task, self._game)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Play one action.

        Raises:
            TypeError: the action is not a string.
            ResetNeeded: the episode has not started, or is over.
        """
        if not isinstance(action, str):
            raise TypeError(f"an action must be a str, not {type(action).__name__}")
        if self._game is None or self._task is None:
            raise ResetNeeded("the episode has not started or is over. Try: reset()")
        game, outcome = self._game, self._game.act(action)
        self._steps += 1
        self._won = outcome.crafted == self._task.goal
        truncated = not self._won and self._steps >= self.max_steps
        observation, carried = outcome.answer, game.inventory_text()
        if self._show_inventory and observation != carried:
            observation = f"{observation} {carried}"
        info = self._info(self._task, game)
        if self._won or truncated:
            self._game = None
        return observation, WIN_REWARD * self._won, self._won, truncated, info

    def _info(self, task: CraftingTask, game: Game) -> dict[str, Any]:
        return {
            "task": task.text,
            "task_kind": f"depth_{self._book.depths[task.goal]}",
            "admissible_actions": game.admissible_actions(),
            "won": self._won,
            "score": float(self._won),
        }
