# SPDX-License-Identifier: Apache-2.0
"""Lines of episode files made by hand, for the tests of the credit lab."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from made_turns import keep, turn

from agent_system.rollout.records import episode_json

ZERO = (0.0, 0.0, 0.0)


def line(
    session: str,
    rewards: list[float],
    *,
    values: list[tuple[float, float, float]] | tuple | None = ZERO,
    switches: list[bool] | None = None,
    probability: float | None = 0.5,
    shaped: list[float] | None = None,
    credit: bool = True,
    won: bool | None = None,
    cut: bool = False,
    **about: Any,
) -> dict[str, Any]:
    """An episode as `recipe.hiper.run_dir.recorder` writes it.

    Args:
        session: "{uid}_{session}".
        rewards: the environment's, one a turn.
        values: (high, low, term) of each turn, or of all; None for a run without critic.
        switches: which turns open a segment; all by default.
        probability: P(SWITCH) of every turn.
        shaped: shaped rewards; `rewards` by default.
        credit: False for validation.
        won: by default whether the last reward is above 0.
        cut: whether the step limit ended it.
        about: further fields of the turns.
    """
    last = len(rewards) - 1
    switches = switches or [True] * len(rewards)
    won = rewards[-1] > 0 if won is None else won
    records = [
        (turn if switches[at] else keep)(
            at,
            reward=reward,
            terminated=at == last and not cut,
            truncated=at == last and cut,
            won=at == last and won,
            stop="" if at < last else "won" if won else "step_limit" if cut else "failed",
        )
        for at, reward in enumerate(rewards)
    ]
    per_turn = []
    for at in range(len(rewards)):
        of_turn = values[at] if isinstance(values, list) else values
        high, low, term = of_turn or (None, None, None)
        added = {
            "shaped_reward": (shaped or rewards)[at],
            "values": {"high": high, "low": low, "term": term},
            "advantages": {"switch": 0.0, "subgoal": 0.0, "action": 0.0},
            "switch_probability": probability,
        }
        per_turn.append((added if credit else {}) | about)
    return episode_json(records, per_turn, step=1, session=session)


def write(path: Path, lines: list[Any]) -> Path:
    """An episode file; what is no text yet becomes JSON."""
    texts = [one if isinstance(one, str) else json.dumps(one) for one in lines]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    return path
