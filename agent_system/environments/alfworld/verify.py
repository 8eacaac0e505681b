# SPDX-License-Identifier: Apache-2.0
"""Proof that a generated game can be won: its walkthrough, played in the real TextWorld engine."""

from __future__ import annotations

import json
from collections.abc import Sequence

from textworld.core import EnvInfos

from agent_system.environments.alfworld.engine_cache import new_engine
from agent_system.environments.alfworld.native import process_state_kept


class Verifier:
    """Plays walkthroughs. One per process: the engine is not safe to share between threads."""

    def __init__(self) -> None:
        self._engine = new_engine(EnvInfos(admissible_commands=True, won=True))

    def fault(self, game: bytes, walkthrough: Sequence[str]) -> str | None:
        """Why the game is unfit, or None if the walkthrough wins it on its last command and not before."""
        with process_state_kept():
            self._engine.load(json.loads(game))
            state = self._engine.reset()
            for command in walkthrough:
                if state["won"]:
                    return f"already won before {command!r}"
                if command not in state["admissible_commands"]:
                    return f"{command!r} is not admissible"
                state, _, _ = self._engine.step(command)
        return None if state["won"] else "the walkthrough does not win"
