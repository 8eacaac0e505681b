# SPDX-License-Identifier: Apache-2.0
"""What is remembered of a turn, from the rollout to the trainer and to the episode files."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class TurnRecord:
    """One turn of one episode. Everything about the reply was decided once, from one parse of it.

    Attributes:
        task_id, kind, split: the task (`agent_system.environments.base.TaskSpec`) and the panel it belongs to.
        turn: index in the episode, from 0.
        prompt, reply: what the model read and wrote. `dropped_turns` and `observation_cut` hold what the prompt budget
            took away. `cut`: the reply reached the length limit (`data.max_response_length`) before its end.
        observation: what the environment showed before this turn.
        admissible: whether the action was one of the admissible ones.
        switch, subgoal, action: decisions of the reply (a flat agent has neither switch nor sub-goal: ""); `problems`
            (empty when well formed) what is wrong with it.
        boundary, subgoal_in_force, copied_exactly, comparable: effect of the reply (`protocol.Decision`).
        reward, terminated, truncated: result of the environment step; `stop` the reason on the last turn, else "".
        won, score: the environment's verdict on the last turn, else False and 0.
        spans: token ranges of the switch, sub-goal and action blocks; `value_low` where the low value is read.
        bootstrap: this row is no turn: it holds the state after an episode that the step limit cut, for its value.
    """

    task_id: str
    kind: str
    split: str
    turn: int
    prompt: str
    reply: str
    observation: str
    switch: str
    subgoal: str
    action: str
    problems: tuple[str, ...]
    boundary: bool
    subgoal_in_force: str
    copied_exactly: bool
    comparable: bool
    admissible: bool
    reward: float
    terminated: bool
    truncated: bool
    stop: str
    won: bool
    score: float
    spans: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    value_low: int
    dropped_turns: int
    observation_cut: bool
    cut: bool = False
    bootstrap: bool = False

    @property
    def well_formed(self) -> bool:
        """Whether the reply keeps to the format."""
        return not self.problems

    def to_fields(self) -> dict[str, Any]:
        """Plain values, under one key, for `AgentLoopOutput.extra_fields`."""
        return {"turn_record": asdict(self)}

    @classmethod
    def from_fields(cls, extra_fields: dict[str, Any]) -> TurnRecord:
        """The inverse of `to_fields`."""
        values = extra_fields["turn_record"]
        return cls(**{field.name: values[field.name] for field in fields(cls)})


def episode_json(turns: list[TurnRecord], per_turn: list[dict[str, Any]] | None = None, **about: Any) -> dict[str, Any]:
    """One episode as a JSON object: the task and the outcome once, then the turns.

    Args:
        turns: in order, without bootstrap rows.
        per_turn: more values for each turn (advantages, values), merged into its object.
        about: further values for the episode (step, session).
    """
    last = turns[-1]
    once = ("task_id", "kind", "split")
    closing = ("stop", "won", "score")
    rows = []
    for index, turn in enumerate(turns):
        row = {name: value for name, value in asdict(turn).items() if name not in (*once, *closing, "bootstrap")}
        row.update(per_turn[index] if per_turn else {})
        rows.append(row)
    return {
        **about,
        **{name: getattr(last, name) for name in (*once, *closing)},
        "turns": len(turns),
        "return": sum(turn.reward for turn in turns),
        "trajectory": rows,
    }
