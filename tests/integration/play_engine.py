# SPDX-License-Identifier: Apache-2.0
"""Plays games straight on a TextWorld engine and writes down everything an agent could notice.

Run as a script it plays on the stock engine, in a process that has never imported this project:

    python play_engine.py game.tw-pddl ... > transcripts.json
"""

from __future__ import annotations

import json
import random
import sys

NONSENSE = ("", "xyzzy", "go to the moon", "take", "GO TO SHELF 1", "help", "look\ninventory", "open {r}", "#look#")
EXPLORING_STEPS = 25


def play(engine, game_file: str) -> list:
    """Two episodes: the walkthrough, then exploring with some nonsense. Entries: feedback, commands, won, done."""
    with open(game_file) as file:
        walkthrough = json.load(file)["walkthrough"]
    rng = random.Random(game_file.rsplit("json_2.1.1", 1)[-1])
    engine.load(game_file)
    transcript = []
    for plan in (walkthrough, None):
        state, done = engine.reset(), False
        transcript.append([state.feedback, state.admissible_commands, state.won, done])
        for turn in range(EXPLORING_STEPS if plan is None else len(plan)):
            if plan is not None:
                command = plan[turn]
            else:
                command = rng.choice(NONSENSE if rng.random() < 0.2 else state.admissible_commands)
            state, _, done = engine.step(command)
            transcript.append([command, state.feedback, state.admissible_commands, state.won, done])
            if done:
                break
    return transcript


def stock_engine():
    import textworld
    from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
    from textworld.envs.pddl import PddlEnv

    return AlfredDemangler(PddlEnv(textworld.EnvInfos(won=True, admissible_commands=True)), shuffle=False)


if __name__ == "__main__":
    games = sys.argv[1:]
    transcripts = [play(stock_engine(), game) for game in games]
    assert not any(name.startswith("agent_system") for name in sys.modules)
    json.dump(transcripts, sys.stdout)
