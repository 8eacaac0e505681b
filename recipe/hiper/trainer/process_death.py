# SPDX-License-Identifier: Apache-2.0
"""Ray's report of a dead process in a sentence: which one, where, and why."""

from __future__ import annotations

import re
from collections.abc import Iterator

import ray
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayTaskError

from agent_system.errors import ProcessDied

ROLES = {
    "WorkerDict": "a training process",
    "HiPERTaskRunner": "the trainer",
    "vLLMHttpServer": "a vLLM replica",
    "AgentLoopWorker": "a process that plays episodes",
    "EnvWorker": "a process with environments",
    "SimpleStorageUnit": "the store of the rows (TransferQueue)",
    "TransferQueueController": "the store of the rows (TransferQueue)",
}
"""What a process does, by a part of the name of its class."""

BEGINNING = ActorDiedError.BASE_ERROR_MSG
"""Ray's first line; lines with a tab follow, "name: value", then the reason."""

REASON_LINES = 2


class Cluster:
    """The machines of a Ray cluster, to name those that leave it. Made when Ray has started."""

    def __init__(self) -> None:
        self._alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}

    def explain_loss(self) -> ProcessDied | None:
        """The error for the user where machines are gone that were there at the start; None where none is."""
        try:
            nodes = ray.nodes()
        except Exception:  # without the head there is nobody to ask
            return ProcessDied("the head of the Ray cluster does not answer any more")
        gone = [node for node in nodes if node["NodeID"] in self._alive and not node["Alive"]]
        if not gone:
            return None
        names = ", ".join(f"{node['NodeManagerAddress']} (node {node['NodeID'][:12]})" for node in gone)
        return ProcessDied(f"the machine {names} left the Ray cluster")


def explain_death(error: BaseException) -> ProcessDied | None:
    """The error for the user where a process died, or a whole machine; None for every other error."""
    for cause in _causes(error):
        if isinstance(cause, OutOfMemoryError):
            return ProcessDied(f"Ray ended a process because the memory of its machine ran out: {_last_line(cause)}")
        # Also inside of a traceback: Ray cannot send this error from one process to another, only its text.
        _, begins, text = str(cause).rpartition(BEGINNING)
        if begins and "class_name:" in text:
            return ProcessDied(_sentence(text))
    return None


def _sentence(text: str) -> str:
    name, process, machine = (_field(text, field) for field in ("class_name", "pid", "ip"))
    role = next((role for part, role in ROLES.items() if part in (name or "")), "a process")
    where = f" on {machine}" if machine else ""
    untabbed = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("\t")]
    reason = " ".join(untabbed[:REASON_LINES]) or "Ray knows no reason"
    return f"{role} ({name}, process {process}{where}) died: {reason}"


def _field(text: str, name: str) -> str | None:
    found = re.search(rf"^\t{name}: (.+)$", text, re.MULTILINE)
    return found.group(1) if found else None


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = (error.cause if isinstance(error, RayTaskError) else None) or error.__cause__
