# SPDX-License-Identifier: Apache-2.0
"""Episodes that could not be played."""

from __future__ import annotations

import json
import multiprocessing
import sys

from agent_system.errors import EnvironmentFault
from agent_system.rollout.failures import FailureLog


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def test_a_failure_is_recorded_with_its_traceback(tmp_path):
    log = FailureLog(tmp_path / "failures.jsonl")
    log.record("task-1", raised(EnvironmentFault("the engine\nbroke")))
    log.record("task-2", raised(ValueError("later")))
    first, second = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert (first["task_id"], first["error"], first["message"]) == ("task-1", "EnvironmentFault", "the engine\nbroke")
    assert "test_failures.py" in first["traceback"] and second["task_id"] == "task-2"


def test_the_first_one_in_words(tmp_path):
    log = FailureLog(tmp_path / "failures.jsonl")
    assert "No reason was recorded" in log.first()
    log.record("task-1", EnvironmentFault("broke"))
    log.record("task-2", ValueError("later"))
    assert log.first() == f"The first: task task-1: EnvironmentFault: broke (all of them: {log.path})"
    log.clear()
    assert not log.path.exists()
    log.clear()


def write_many(path, process: int) -> None:
    for number in range(200):
        FailureLog(path).record(f"task-{process}-{number}", ValueError("x" * 500))


def test_processes_that_write_at_the_same_time_do_not_mix(tmp_path):
    path = tmp_path / "failures.jsonl"
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    processes = [context.Process(target=write_many, args=(path, process)) for process in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert {entry["task_id"] for entry in entries} == {f"task-{p}-{n}" for p in range(4) for n in range(200)}
