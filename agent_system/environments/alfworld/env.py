# SPDX-License-Identifier: Apache-2.0
"""ALFWorld as a Gymnasium environment: `gymnasium.make("hiper/ALFWorld-v0", game_file=..., max_steps=50)`.

The games are played by the published packages (`alfworld`, `textworld`) with their published wording. Two things differ
from ALFWorld's own interface:

- The first observation is the description of the room alone. ALFWorld puts a banner before it and the task after it;
  the task is `info["task"]` here ("put a clean mug in cabinet"), at every step. The published text is
  ``-= Welcome to TextWorld, ALFRED! =-\\n\\n{observation}\\n\\nYour task is to: {task}.``
- `help` works but is not offered in `info["admissible_actions"]`.

Environments of one process must stay in one thread (see `engine_cache`).
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.error import ResetNeeded
from textworld.core import EnvInfos, GameState

from agent_system.environments.alfworld.engine_cache import new_engine
from agent_system.environments.alfworld.games import read_game, task_kind
from agent_system.environments.alfworld.native import process_state_kept
from agent_system.errors import ConfigError, EnvironmentFault, TaskError

WIN_REWARD = 10.0
_BANNER = "-= Welcome to TextWorld, ALFRED! =-"
_TASK_MARK = "Your task is to:"
_HIDDEN_ACTIONS = frozenset({"help"})
_MAX_OBSERVATION = 16_384
_MAX_ACTION = 512


class ALFWorldEnv(gymnasium.Env[str, str]):
    """One ALFWorld game at a time.

    Args:
        game_file: a ``game.tw-pddl``; may be left out if every `reset` names one.
        max_steps: actions after which an unfinished episode is truncated.

    Raises:
        ConfigError: `max_steps` is not a positive integer.

    `reset(options={"game_file": path})` changes to another game; without options the current one starts again. The
    engine has no randomness: `seed` only seeds `np_random`, as Gymnasium asks.

    `info` holds ``task``, ``admissible_actions`` (sorted), ``task_kind`` (one of six types, None if unknown), ``won``
    and ``score`` (0.0 or 1.0). The reward is 10.0 at the step that wins and 0.0 at every other.

    An action is stripped and lower-cased. What the engine does not understand is answered "Nothing happens." and uses
    up a step.
    """

    def __init__(self, game_file: str | Path | None = None, max_steps: int = 50) -> None:
        if not isinstance(max_steps, int) or isinstance(max_steps, bool) or max_steps < 1:
            raise ConfigError(f"env.max_steps={max_steps!r}: an episode needs at least one step. Try: env.max_steps=50")
        self.max_steps = max_steps
        charset = string.printable
        self.observation_space = gymnasium.spaces.Text(_MAX_OBSERVATION, min_length=0, charset=charset)
        self.action_space = gymnasium.spaces.Text(_MAX_ACTION, min_length=0, charset=charset)
        self._next_game = None if game_file is None else Path(game_file)
        self._loaded_game: Path | None = None
        self._engine: Any = None  # of textworld, which is not typed
        self._state: GameState | None = None
        self._task = ""
        self._kind: str | None = None
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Starts an episode.

        Raises:
            ConfigError: no game file is named, neither here nor to the constructor.
            TaskError: the game file is missing, corrupt, or not playable.
        """
        super().reset(seed=seed)
        if options and "game_file" in options:
            self._next_game = Path(options["game_file"])
        if self._next_game is None:
            raise ConfigError(
                'no game is set. Try: game_file=<path> in gymnasium.make, or options={"game_file": <path>} in reset'
            )
        self._state = None
        state = self._start(self._next_game)
        observation, self._task = _split_intro(state.feedback, self._next_game)
        self._state, self._steps = state, 0
        return observation, self._info()

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Plays one action.

        Raises:
            TypeError: the action is not a string.
            ResetNeeded: the episode has not started, or is over.
            EnvironmentFault: the engine broke. The episode is lost; `reset` starts the game again on a new engine.
        """
        if not isinstance(action, str):
            raise TypeError(f"an action must be a str, not {type(action).__name__}")
        if self._state is None:
            raise ResetNeeded("the episode has not started or is over. Try: reset()")
        try:
            with process_state_kept():
                self._state, _, done = self._engine.step(action.strip().lower())
        except Exception as error:
            game = self._loaded_game
            self._drop_engine()
            raise EnvironmentFault(
                f"{game}: the engine failed at step {self._steps + 1} on {action[:80]!r} ({error!r}). "
                "Try: reset(), which plays the game from the start on a new engine"
            ) from error
        self._steps += 1
        observation, info = self._state.feedback.strip(), self._info()
        terminated = bool(done)
        truncated = not terminated and self._steps >= self.max_steps
        if terminated or truncated:
            self._state = None
        return observation, WIN_REWARD * info["score"], terminated, truncated, info

    def close(self) -> None:
        self._drop_engine()

    def _start(self, game: Path) -> GameState:
        try:
            with process_state_kept():
                if game != self._loaded_game:
                    self._load(game)
                return self._engine.reset()
        except TaskError:
            raise
        # The translator ends the process (SystemExit) where it does not like a game.
        except (Exception, SystemExit) as error:
            self._drop_engine()
            raise TaskError(
                f"{game}: the engine cannot play it ({error!r}). Try: download or generate it again"
            ) from error

    def _load(self, game: Path) -> None:
        data = read_game(game)
        kind = task_kind(game)
        self._loaded_game = None
        if self._engine is None:
            self._engine = new_engine(EnvInfos(won=True, admissible_commands=True))
        self._engine.load(data)
        self._loaded_game = game
        self._kind = None if kind is None else kind.value

    def _drop_engine(self) -> None:
        if self._engine is not None:
            self._engine.close()
        self._engine = self._loaded_game = self._state = None

    def _info(self) -> dict[str, Any]:
        assert self._state is not None
        won = bool(self._state.won)
        return {
            "task": self._task,
            "task_kind": self._kind,
            "admissible_actions": [a for a in self._state.admissible_commands if a not in _HIDDEN_ACTIONS],
            "won": won,
            "score": float(won),
        }


def _split_intro(intro: str, game: Path) -> tuple[str, str]:
    """The room and the task of the engine's first text. Raises TaskError if there is no task in it."""
    room, mark, task = intro.partition(_TASK_MARK)
    task = task.strip().removesuffix(".").strip()
    if not mark or not task:
        raise TaskError(
            f"{game}: its first text has no task (no sentence {_TASK_MARK!r}). Try: generate the game again"
        )
    return room.strip().removeprefix(_BANNER).strip(), task
