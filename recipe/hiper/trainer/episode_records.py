# SPDX-License-Identifier: Apache-2.0
"""The episodes of a batch as JSON objects, with what the estimator made of every turn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agent_system.rollout.records import episode_json
from recipe.hiper.estimators.values import Head
from recipe.hiper.run_dir.recorder import json_value
from recipe.hiper.trainer.token_credit import TurnCredit
from recipe.hiper.trainer.turn_batch import BatchTurns


def episode_records(step: int, turns: BatchTurns, credit: TurnCredit | None) -> Iterator[dict[str, Any]]:
    """One object per episode; with `credit`, every turn has its values, advantages and shaped reward."""
    for episode, rows in enumerate(turns.episodes()):
        per_turn = [_turn_credit(credit, episode, turn, row) for turn, row in enumerate(rows)] if credit else None
        records = [turns.records[row] for row in rows]
        yield episode_json(records, per_turn, step=step, session=turns.episode[rows[0]])


def _turn_credit(credit: TurnCredit, episode: int, turn: int, row: int) -> dict[str, Any]:
    estimate, cell = credit.estimate, (episode, turn)
    values = [None] * len(Head) if credit.values is None else credit.values[row].tolist()
    return {
        "shaped_reward": json_value(float(estimate.shaped.rewards[cell])),
        "values": dict(zip(("high", "low", "term"), map(json_value, values), strict=True)),
        "advantages": {
            "switch": json_value(float(estimate.switch[cell])),
            "subgoal": json_value(float(estimate.subgoal[cell])),
            "action": json_value(float(estimate.action[cell])),
        },
        "switch_probability": json_value(float(credit.switch_probability[row])),
    }
