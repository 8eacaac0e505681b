# SPDX-License-Identifier: Apache-2.0
"""What generated ALFWorld games depend on: the knobs of their difficulty, their number, and the seed."""

from __future__ import annotations

from dataclasses import dataclass

from agent_system.environments.alfworld.rooms import RoomLimits, TaskKind
from agent_system.errors import ConfigError

SPLITS = ("train", "valid_seen", "valid_unseen")
_SMALLEST_ROOM = 4
"""Receptacles that the hungriest goal needs: the destination, a tool, and two different homes."""


@dataclass(frozen=True)
class GameSpec:
    """Everything that generated games depend on. The defaults are the CPU profile's small rooms.

    Args:
        receptacles: range of receptacles in a room, both ends included, no two at one spot; None keeps every
            receptacle of the floor plan (3 to 47 in all), as published games do.
        same_kind: at most this many receptacles of one kind, where `receptacles` is a range.
        objects_per_receptacle: nothing is added to a receptacle that holds this many objects; the goal's own objects
            and the lamp go first and are not held back.
        max_instances: at most this many objects of one kind in a room.
        task_types: the kinds of tasks, dealt out in turn.
        train, valid_seen, valid_unseen: games in each split.
        seed: any integer.

    Raises:
        ConfigError: a value is out of range; the message names the option, and the override, that fixes it.
    """

    receptacles: tuple[int, int] | None = (4, 6)
    same_kind: int = 2
    objects_per_receptacle: int = 2
    max_instances: int = 2
    task_types: tuple[TaskKind, ...] = tuple(TaskKind)
    train: int = 1500
    valid_seen: int = 132
    valid_unseen: int = 132
    seed: int = 0

    def __post_init__(self) -> None:
        problems = []
        if self.receptacles is not None and not _SMALLEST_ROOM <= self.receptacles[0] <= self.receptacles[1]:
            problems.append(
                f"receptacles={self.receptacles}: a range low-high with low >= {_SMALLEST_ROOM} is needed, because a "
                f"goal can need {_SMALLEST_ROOM} receptacles. Try: --receptacles 4-6 (in a run "
                "env.alfworld.generated.receptacles=[4,6])"
            )
        for name in ("same_kind", "objects_per_receptacle", "max_instances"):
            if getattr(self, name) < 1:
                option = name.replace("_", "-")
                problems.append(
                    f"{name}={getattr(self, name)}: at least 1 is needed. Try: --{option} 2 (in a run "
                    f"env.alfworld.generated.{name}=2)"
                )
        if not self.task_types or len(set(self.task_types)) < len(self.task_types):
            problems.append(
                f"task_types={[t.value for t in self.task_types]}: at least one is needed, each at most once. Try: "
                f"--task-types {self.task_types[0].value if self.task_types else next(iter(TaskKind)).value}"
            )
        for split in SPLITS:
            if getattr(self, split) < 0:
                option = split.replace("_", "-")
                problems.append(
                    f"{split}={getattr(self, split)}: the number of games cannot be negative. Try: --{option} 10 (in a "
                    f"run env.alfworld.generated.{split}=10)"
                )
        if problems:
            raise ConfigError("these games cannot be generated:\n  " + "\n  ".join(problems))

    @property
    def limits(self) -> RoomLimits:
        """The part of the spec that shapes a single room."""
        return RoomLimits(self.receptacles, self.same_kind, self.objects_per_receptacle, self.max_instances)
