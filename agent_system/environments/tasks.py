# SPDX-License-Identifier: Apache-2.0
"""Panels of tasks: fixed lists in which task i is the same task on every machine.

Orders and draws sort the tasks by a hash of seed and task id. Without a random generator they depend neither on the
order in which a file system lists files, nor on Python's version, nor on the other tasks in the panel.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

from agent_system.environments.base import TaskSpec
from agent_system.errors import ConfigError

HELD_OUT_SEED = 20260216
"""Seed of the draw of held-out tasks. It is fixed, so that results of different runs can be compared."""


@dataclass(frozen=True)
class TaskPanel:
    """An ordered list of tasks.

    Args:
        tasks: with distinct ``task_id``.
        content_hashes: for each task, a hash of the data it is made of (for example its game file).

    Raises:
        ValueError: the lengths differ, or two tasks share an id.
    """

    tasks: tuple[TaskSpec, ...]
    content_hashes: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.tasks) != len(self.content_hashes):
            raise ValueError(f"{len(self.tasks)} tasks, but {len(self.content_hashes)} content hashes")
        if len({task.task_id for task in self.tasks}) < len(self.tasks):
            raise ValueError("two tasks of a panel have the same task_id")

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, index: int) -> TaskSpec:
        return self.tasks[index]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over everything that determines what is played, in order, and nothing that depends on the machine.

        Two panels with the same digest have the same tasks in the same places. ``options`` are left out because they
        hold paths; the content hashes represent the files themselves.
        """
        lines = (
            f"{task.env_id}\t{task.task_id}\t{task.kind}\t{task.seed}\t{content}\n"
            for task, content in zip(self.tasks, self.content_hashes, strict=True)
        )
        return sha256("".join(lines).encode()).hexdigest()

    def select(self, indices: Sequence[int]) -> TaskPanel:
        """A panel of the tasks at `indices`, in that order."""
        return TaskPanel(
            tuple(self.tasks[index] for index in indices), tuple(self.content_hashes[index] for index in indices)
        )


def held_out_subset(panel: TaskPanel, size: int, seed: int) -> TaskPanel:
    """A fixed draw of `size` tasks, with the kinds in the proportions of the panel (largest remainders).

    The tasks keep the panel's order.

    Raises:
        ConfigError: `size` is not between 1 and the size of the panel.
    """
    if not 1 <= size <= len(panel):
        raise ConfigError(
            f"{size} held-out tasks cannot be drawn: the panel has {len(panel)}. Try: env.val_tasks={len(panel)}, or "
            "more tasks"
        )
    by_kind: dict[str, list[int]] = defaultdict(list)
    for index, task in enumerate(panel.tasks):
        by_kind[task.kind].append(index)
    exact = {kind: size * len(members) / len(panel) for kind, members in by_kind.items()}
    counts = {kind: int(share) for kind, share in exact.items()}
    by_remainder = sorted(exact, key=lambda kind: (counts[kind] - exact[kind], kind))
    for kind in by_remainder[: size - sum(counts.values())]:
        counts[kind] += 1
    chosen: list[int] = []
    for kind, members in by_kind.items():
        members.sort(key=lambda index: _draw(f"{seed}/held-out", panel[index]))
        chosen += members[: counts[kind]]
    return panel.select(sorted(chosen))


def epoch_order(panel: TaskPanel, seed: int, epoch: int) -> tuple[TaskSpec, ...]:
    """Every task once, in an order that `seed` and `epoch` determine."""
    return tuple(sorted(panel.tasks, key=lambda task: _draw(f"{seed}/{epoch}", task)))


def training_order(panel: TaskPanel, seed: int, start: int = 0) -> Iterator[TaskSpec]:
    """Endless stream of tasks: every epoch plays every task once, in a different order.

    Args:
        start: number of tasks to skip, for a run that is resumed.
    """
    epoch, skipped = divmod(start, len(panel))
    while True:
        yield from epoch_order(panel, seed, epoch)[skipped:]
        epoch, skipped = epoch + 1, 0


def _draw(stream: str, task: TaskSpec) -> bytes:
    return sha256(f"{stream}/{task.task_id}".encode()).digest()
