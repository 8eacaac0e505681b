# SPDX-License-Identifier: Apache-2.0
"""Does the hierarchy still live? An alarm over the metrics of the latest training steps. Pure functions.

Two ways to lose it are known from published runs: SWITCH on nearly every turn (each sub-goal lasts one turn, planner
and executor decide at the same moments, and the hierarchical estimate is turn-level bootstrapping), and no SWITCH at
all (one sub-goal per episode, so there is nothing to plan).
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
"""Training steps in a row that must look the same: one batch may do so by chance or while the policy passes through."""

ALWAYS_SWITCH = 0.95
"""From this switch rate on, the mean segment lasts at most 1.05 turns, however long the episodes."""

NEVER_SWITCH = 0.02
"""Up to this switch rate sub-goals are hardly ever changed, unless episodes are long. See `SEGMENTS_PER_EPISODE`."""

SEGMENTS_PER_EPISODE = 1.5
"""A low switch rate counts below so many segments per episode only, that is, where fewer than half of the episodes
change their sub-goal: in an episode of 50 turns, 2% are one change, which is a plan of two parts."""


class Degeneration(Enum):
    """How a hierarchy is lost; the value names it in the curve."""

    ALWAYS_SWITCH = "always SWITCH"
    NEVER_SWITCH = "never SWITCH"


SEEN = {
    Degeneration.ALWAYS_SWITCH: f"SWITCH on {ALWAYS_SWITCH:.0%} or more of the turns since step {{since}}, so a "
    "sub-goal lasts one turn and the planner adds nothing",
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
"""What to try, as overrides for the command line. Other estimators than hae charge for neither KEEP nor SWITCH."""


@dataclass(frozen=True)
class HierarchyAlarm:
    """A run of training steps in which the hierarchy is lost.

    Attributes:
        kind: how.
        since: first step of the run.
        until: last step of it seen so far.
    """

    kind: Degeneration
    since: int
    until: int

    @property
    def text(self) -> str:
        """What is seen and what to try, in one line. It stays the same while the alarm lasts."""
        return f"Hierarchy alarm: {SEEN[self.kind].format(since=self.since)}. Try {REMEDIES[self.kind]}"


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
        rows: rows of metrics.jsonl, in the order of their steps. Those without a switch rate (an evaluation alone, a
            flat agent, episodes of one turn) say nothing and are passed over.
    """
    alarms = []
    for kind, alike in groupby(_rated(rows), key=_degeneration):
        steps = [row["step"] for row in alike]
        if kind is not None and len(steps) >= ALARM_STEPS:
            alarms.append(HierarchyAlarm(kind, since=steps[0], until=steps[-1]))
    return alarms


def hierarchy_alarm(rows: Sequence[Mapping[str, Any]]) -> HierarchyAlarm | None:
    """The alarm that holds after the latest of `rows`, see `hierarchy_alarms`; None while the hierarchy lives."""
    alarms, rated = hierarchy_alarms(rows), _rated(rows)
    return alarms[-1] if alarms and alarms[-1].until == rated[-1]["step"] else None
