# SPDX-License-Identifier: Apache-2.0
"""An alarm when the hierarchy degenerates, from the metrics of the latest training steps. Pure functions.

Two kinds of degeneration are known from published runs: SWITCH on nearly every turn (each sub-goal lasts one turn,
planner and executor decide at the same moments, and the hierarchical estimate is turn-level bootstrapping), and no
SWITCH at all (one sub-goal per episode, so there is nothing to plan).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import groupby
from typing import Any

SWITCH_RATE = "rollout/switch_rate"
"""Share of turns that SWITCH, the first of each episode left out. Flat agents have none."""

ALARM_STEPS = 3
"""Consecutive training steps that an alarm needs: a single batch may look degenerate by chance."""

ALWAYS_SWITCH = 0.95
"""At this switch rate or more, the mean segment has at most 1.05 turns, for any length of the episodes."""

NEVER_SWITCH = 0.02
"""At this switch rate or less, sub-goals hardly change, unless episodes are long. See `SEGMENTS_PER_EPISODE`."""

SEGMENTS_PER_EPISODE = 1.5
"""A low switch rate counts only below this number of segments per episode, that is, if fewer than half of the episodes
change their sub-goal. In an episode of 50 turns, 2% is one change, which is a plan of two parts."""


class Degeneration(Enum):
    """The kind of degeneration; the value is its label in the learning curve."""

    ALWAYS_SWITCH = "always SWITCH"
    NEVER_SWITCH = "never SWITCH"


DESCRIPTIONS = {
    Degeneration.ALWAYS_SWITCH: f"SWITCH on {ALWAYS_SWITCH:.0%} or more of the turns since step {{since}}, so a "
    "sub-goal lasts one turn and planning has no effect",
    Degeneration.NEVER_SWITCH: f"SWITCH on {NEVER_SWITCH:.0%} or less of the turns since step {{since}}, so an episode "
    "has one sub-goal and nothing is planned",
}

REMEDIES = {
    Degeneration.ALWAYS_SWITCH: "under hae algorithm/hae=living, that is algorithm.hae.keep_penalty=0 "
    "algorithm.hae.penalty_credit=switch algorithm.hae.switch_cost=0.3 algorithm.hae.lam_boundary=0.95; "
    "or a higher price, algorithm.hae.switch_cost=1",
    Degeneration.NEVER_SWITCH: "actor_rollout_ref.actor.entropy_coeff=0.01, "
    "actor_rollout_ref.rollout.temperature=1.0 (higher); under hae also algorithm.hae.switch_cost=0, "
    "algorithm.hae.keep_penalty=-0.6 (more negative)",
}
"""Overrides to try. Only hae has a cost of KEEP and of SWITCH."""


@dataclass(frozen=True)
class HierarchyAlarm:
    """Consecutive training steps in which the hierarchy is degenerate.

    Attributes:
        kind: the kind of degeneration.
        since: first of the steps.
        until: last of the steps so far.
    """

    kind: Degeneration
    since: int
    until: int

    @property
    def text(self) -> str:
        """Description and remedy in one line, the same as long as the alarm lasts."""
        return f"Hierarchy alarm: {DESCRIPTIONS[self.kind].format(since=self.since)}. Try: {REMEDIES[self.kind]}"


def _degeneration(row: Mapping[str, Any]) -> Degeneration | None:
    rate = row[SWITCH_RATE]
    if rate >= ALWAYS_SWITCH:
        return Degeneration.ALWAYS_SWITCH
    if rate > NEVER_SWITCH:
        return None
    episode, segment = row.get("rollout/episode_length"), row.get("hierarchy/segment_length")
    segments_per_episode = episode / segment if episode and segment else 1.0
    return Degeneration.NEVER_SWITCH if segments_per_episode < SEGMENTS_PER_EPISODE else None


def _rated(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [row for row in rows if row.get(SWITCH_RATE) is not None]


def hierarchy_alarms(rows: Sequence[Mapping[str, Any]]) -> list[HierarchyAlarm]:
    """All alarms of a run, in order.

    Args:
        rows: rows of metrics.jsonl, in the order of their steps. Rows without a switch rate (an evaluation alone,
            a flat agent, episodes of one turn) are ignored.
    """
    alarms = []
    for kind, alike in groupby(_rated(rows), key=_degeneration):
        steps = [row["step"] for row in alike]
        if kind is not None and len(steps) >= ALARM_STEPS:
            alarms.append(HierarchyAlarm(kind, since=steps[0], until=steps[-1]))
    return alarms


def hierarchy_alarm(rows: Sequence[Mapping[str, Any]]) -> HierarchyAlarm | None:
    """The alarm that holds after the latest of `rows`, see `hierarchy_alarms`; None where the hierarchy is healthy."""
    alarms, rated = hierarchy_alarms(rows), _rated(rows)
    return alarms[-1] if alarms and alarms[-1].until == rated[-1]["step"] else None


def hierarchy_alarm_text(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """The line of `hierarchy_alarm`; None where the hierarchy is healthy."""
    alarm = hierarchy_alarm(rows)
    return alarm.text if alarm else None
