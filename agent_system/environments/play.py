# SPDX-License-Identifier: Apache-2.0
"""Play an environment by hand in the terminal: what an agent sees, and the admissible actions with numbers.

    python -m agent_system.environments.play hiper/TextCraft-v0 --seed 3
    python -m agent_system.environments.play hiper/TextCraft-v0 --options '{"goal": "cake"}' --max-steps 20
    python -m agent_system.environments.play hiper/ALFWorld-v0 --kwargs '{"game_file": "<path of a game.tw-pddl>"}'

Type the number of an action or any other text; `quit` ends the game.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

import gymnasium

import agent_system.environments  # noqa: F401  (registers the ids)
from agent_system.errors import HiPERError

QUIT = ("quit", "q", "exit")
PROMPT = "action> "


def play(env: gymnasium.Env[str, str], *, seed: int | None, options: Mapping[str, Any]) -> float | None:
    """Play one episode with the lines of the standard input, whose end ends the game.

    Args:
        seed, options: of `reset`.

    Returns:
        The score; None if the player left before the end.

    Raises:
        HiPERError: the task cannot be played.
    """
    observation, info = env.reset(seed=seed, options=dict(options))
    print(f"Task: {info['task']}")
    total, steps = 0.0, 0
    while True:
        actions = info["admissible_actions"]
        print(f"\n{observation}\n")
        for number, action in enumerate(actions, 1):
            print(f"{number:3d}  {action}")
        try:
            text = input(PROMPT).strip()
        except EOFError:
            text = QUIT[0]
        if text.lower() in QUIT:
            print(f"stopped after {steps} steps")
            return None
        if text.isdigit() and 1 <= int(text) <= len(actions):
            text = actions[int(text) - 1]
            print(f"{PROMPT}{text}")
        observation, reward, terminated, truncated, info = env.step(text)
        total, steps = total + float(reward), steps + 1
        if terminated or truncated:
            result = "won" if info["won"] else "the step limit ended the episode" if truncated else "not won"
            print(f"\n{observation}\n\n{result}: score {info['score']:g}, reward {total:g}, {steps} steps")
            return float(info["score"])


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("env_id", help="a Gymnasium id, such as hiper/TextCraft-v0, or <module>:<id> of your own")
    parser.add_argument("--kwargs", type=json.loads, default={}, help="arguments of gymnasium.make as JSON")
    parser.add_argument("--options", type=json.loads, default={}, help="options of reset as JSON: the task")
    parser.add_argument("--seed", type=int, help="seed of reset")
    parser.add_argument("--max-steps", type=int, help="step limit (default: the environment's own)")
    chosen = parser.parse_args(arguments)
    limit = {} if chosen.max_steps is None else {"max_steps": chosen.max_steps}
    try:
        env = gymnasium.make(chosen.env_id, disable_env_checker=True, **limit, **chosen.kwargs)
        play(env, seed=chosen.seed, options=chosen.options)
    except (HiPERError, gymnasium.error.Error, ImportError, TypeError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped")
    env.close()


if __name__ == "__main__":
    main()
