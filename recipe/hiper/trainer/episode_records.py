# SPDX-License-Identifier: Apache-2.0
"""The episodes of a batch as JSON objects, with what the estimator made of every turn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agent_system.rollout.records import episode_json
from recipe.hiper.estimators.values import ValueSlot
from recipe.hiper.run_dir.recorder import json_value
from recipe.hiper.trainer.token_credit import BatchCredit
from recipe.hiper.trainer.turn_batch import BatchTurns


def episode_records(step: int, turns: BatchTurns, credit: BatchCredit | None) -> Iterator[dict[str, Any]]:
    """One object per episode; with `credit`, every turn has its values, advantages and shaped reward."""
    for episode, rows in enumerate(turns.episodes()):
        per_turn = [_turn_credit(credit, episode, turn, row) for turn, row in enumerate(rows)] if credit else None
        records = [turns.records[row] for row in rows]
        yield episode_json(records, per_turn, step=step, session=turns.episode[rows[0]])


def _turn_credit(credit: BatchCredit, episode: int, turn: int, row: int) -> dict[str, Any]:
    advantages, cell = credit.turn_advantages, (episode, turn)
    values = [None] * len(ValueSlot) if credit.values is None else credit.values[row].tolist()
    return {
        "shaped_reward": json_value(float(advantages.shaped.rewards[cell])),
        "values": dict(zip(("high", "low", "term"), map(json_value, values), strict=True)),
        "advantages": {
            "switch": json_value(float(advantages.switch[cell])),
            "subgoal": json_value(float(advantages.subgoal[cell])),
            "action": json_value(float(advantages.action[cell])),
        },
        "switch_probability": json_value(float(credit.switch_probability[row])),
    }
