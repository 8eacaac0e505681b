# SPDX-License-Identifier: Apache-2.0
"""Turn records and batches made by hand, for the tests of everything that reads them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from agent_system.rollout.records import TurnRecord
from recipe.hiper.configuration.settings import CheckpointSettings, HiPERSettings
from recipe.hiper.estimators.hae import HAEConfig
from recipe.hiper.estimators.registry import EstimatorConfig
from recipe.hiper.estimators.shaping import ShapingConfig
from recipe.hiper.trainer.turn_batch import BatchTurns

OPENING = TurnRecord(
    task_id="look_at_obj_in_light-1",
    kind="look_at_obj_in_light",
    split="train",
    turn=0,
    prompt="prompt",
    reply="reply",
    observation="You see a desk 1.",
    switch="SWITCH",
    subgoal="find mug",
    action="look",
    problems=(),
    boundary=True,
    subgoal_in_force="find mug",
    copied_exactly=False,
    comparable=False,
    admissible=True,
    reward=0.0,
    terminated=False,
    truncated=False,
    stop="",
    won=False,
    score=0.0,
    spans=((0, 2), (2, 4), (4, 6)),
    value_low=4,
    dropped_turns=0,
    observation_cut=False,
)
"""A well-formed first turn: two tokens for each block."""


def turn(number: int, **changes: Any) -> TurnRecord:
    """A turn that opens a segment; `changes` are attributes of `TurnRecord`."""
    return replace(OPENING, turn=number, **changes)


def keep(number: int, **changes: Any) -> TurnRecord:
    """A KEEP turn that copies the sub-goal in force word for word."""
    kept = {"switch": "KEEP", "boundary": False, "copied_exactly": True, "comparable": True}
    return replace(OPENING, turn=number, **{**kept, **changes})


def after_cut(number: int) -> TurnRecord:
    """The state after the last turn of an episode that the step limit cut."""
    return replace(OPENING, turn=number, reply="", spans=((0, 0), (0, 0), (0, 0)), value_low=0, bootstrap=True)


def batch_turns(
    rows: list[tuple[str, TurnRecord]],
    padding: tuple[int, ...] = (),
    after_end: dict[str, int] | None = None,
    retries: dict[str, dict[str, int]] | None = None,
) -> BatchTurns:
    """A batch as the trainer reads it.

    Args:
        rows: (name of the episode, record) of each row; the name is "{uid}_{session}" as in verl.
        padding: indices of rows that only fill up the batch.
        after_end: generations that an episode cost after its end.
        retries: attempts that a fault ended before an episode was played.
    """
    keys = [f"{name}_{index}" for index, (name, _) in enumerate(rows)]
    fields = [
        {
            **record.to_fields(),
            "generations_after_end": (after_end or {}).get(name, 0),
            "retries": (retries or {}).get(name, {}),
        }
        for name, record in rows
    ]
    return BatchTurns.from_fields(keys, [index in padding for index in range(len(rows))], fields)


def made_settings(
    hae: HAEConfig,
    shaping: ShapingConfig | None = None,
    *,
    whiten: bool = False,
    num_heads: int = 3,
    estimator: str = "hae",
) -> HiPERSettings:
    """Settings of a run, nothing shaped by default."""
    return HiPERSettings(
        estimator=EstimatorConfig(estimator, hae, shaping or ShapingConfig(), whiten=whiten),
        regularize_copies=False,
        random_signs=False,
        num_heads=num_heads,
        value_coefficients=(1.0, 1.0, 1.0),
        updates_per_step=None,
        poll_interval=0.05,
        checkpoints=CheckpointSettings(keep=None, save_best=False, stop_when_full=True),
    )
