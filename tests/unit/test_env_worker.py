# SPDX-License-Identifier: Apache-2.0
"""The process side of the pool without Ray: what an environment of a user's own may raise."""

from __future__ import annotations

import gymnasium
import pytest

from agent_system.environments.base import TaskSpec
from agent_system.environments.env_worker import EnvWorker, PoolSizes, StepResult
from agent_system.errors import EnvironmentFault, TaskError


class Breaking(gymnasium.Env[str, str]):
    """Raises the configured error in the configured method."""

    closed = 0

    def __init__(self, max_steps: int) -> None:
        self.observation_space = self.action_space = gymnasium.spaces.Text(9)

    def reset(self, *, seed=None, options=None):
        if options and (error := options.get("in_reset")):
            raise error
        return "here", {}

    def step(self, action):
        if action == "break":
            raise ConnectionError("the service is away")
        return "there", 0.0, False, False, {}

    def close(self):
        type(self).closed += 1


gymnasium.register("Breaking-v0", Breaking)


def task(**options) -> TaskSpec:
    return TaskSpec("Breaking-v0", "a", "none", 0, options)


@pytest.fixture
def worker() -> EnvWorker:
    Breaking.closed = 0
    return EnvWorker(PoolSizes(1, 1), 10.0, {})


def test_an_environment_that_raises_is_a_fault_and_is_not_used_again(worker):
    assert worker.open("a", task(), 5) == ("here", {})
    fault = worker.step("a", "break")
    assert isinstance(fault, EnvironmentFault) and "ConnectionError: the service is away" in str(fault)
    assert Breaking.closed == 1
    worker.close("a")
    assert worker.open("b", task(), 5) == ("here", {}), "its slot is free"
    assert isinstance(worker.step("b", "go"), StepResult)


def test_a_reset_that_raises_likewise(worker):
    fault = worker.open("a", task(in_reset=OSError("no route")), 5)
    assert isinstance(fault, EnvironmentFault) and "OSError: no route" in str(fault) and Breaking.closed == 1
    assert worker.open("b", task(), 5) == ("here", {})


def test_a_task_that_cannot_be_played_is_no_fault(worker):
    """Playing it again would not help; the environment is as good as before."""
    refused = worker.open("a", task(in_reset=TaskError("the game file is missing")), 5)
    assert isinstance(refused, TaskError) and Breaking.closed == 0


def test_an_environment_that_cannot_be_made_is_a_fault(worker):
    fault = worker.open("a", TaskSpec("NoSuchGame-v0", "a", "none", 0, {}), 5)
    assert isinstance(fault, EnvironmentFault) and "NoSuchGame" in str(fault)
