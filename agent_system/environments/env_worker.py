# SPDX-License-Identifier: Apache-2.0
"""The process side of the environment pool: many environments, no torch, no verl."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, SupportsFloat

import gymnasium

import agent_system.environments  # noqa: F401  (registers the ids)
from agent_system.environments.base import TaskSpec
from agent_system.errors import EnvironmentFault, HiPERError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PoolSizes:
    """Size of a pool: `num_workers` processes with `envs_per_worker` slots each."""

    num_workers: int
    envs_per_worker: int


@dataclass(frozen=True)
class StepResult:
    """Gymnasium's five-tuple as named fields."""

    observation: str
    reward: SupportsFloat
    terminated: bool
    truncated: bool
    info: Mapping[str, Any]


class EnvWorker:
    """Hosts environments in one process. Runs as a Ray actor; its methods run one after the other, in one thread.

    Errors of this project are returned instead of raised, because Ray would wrap them in its own types. Every other
    error of an environment becomes an `EnvironmentFault`: the episode is lost and its environment is not used again,
    but the task can be played again.
    """

    def __init__(self, sizes: PoolSizes, timeout_s: float, env_kwargs: Mapping[str, Any]) -> None:
        self._sizes = sizes
        self._timeout_s = timeout_s
        self._env_kwargs = env_kwargs
        self._playing: dict[str, tuple[tuple[str, int], gymnasium.Env]] = {}
        self._idle: list[tuple[tuple[str, int], gymnasium.Env]] = []

    def layout(self) -> tuple[PoolSizes, float]:
        """Size of the pool and the time limit of a call in seconds."""
        return self._sizes, self._timeout_s

    def open(self, key: str, task: TaskSpec, max_steps: int) -> tuple[str, dict[str, Any]] | HiPERError | None:
        """Observation and info of a new episode; None if every slot is taken."""
        if len(self._playing) >= self._sizes.envs_per_worker:
            return None
        kind = (task.env_id, max_steps)
        env = None
        try:
            env = self._take(kind)
            started = env.reset(seed=task.seed, options=dict(task.options))
        except HiPERError as error:
            if env is not None:
                self._idle.append((kind, env))
            return error
        except Exception as error:
            return self._broken(env, "reset", error)
        self._playing[key] = kind, env
        return started

    def step(self, key: str, action: str) -> StepResult | HiPERError:
        """One step of an open episode."""
        if key not in self._playing:
            return EnvironmentFault("the environment worker was restarted, so the episode is lost; play the task again")
        env = self._playing[key][1]
        try:
            return StepResult(*env.step(action))
        except HiPERError as error:
            return error
        except Exception as error:
            del self._playing[key]
            return self._broken(env, "step", error)

    def close(self, key: str) -> None:
        """Free the slot of an episode; keep its environment for the next one."""
        played = self._playing.pop(key, None)
        if played is not None:
            self._idle.append(played)

    @staticmethod
    def _broken(env: gymnasium.Env | None, method: str, error: Exception) -> EnvironmentFault:
        logger.error("the environment raised in %s", method, exc_info=error)
        if env is not None:
            try:
                env.close()
            except Exception:
                logger.exception("the environment also raised in close")
        return EnvironmentFault(f"the environment raised in {method}: {type(error).__name__}: {error}")

    def _take(self, kind: tuple[str, int]) -> gymnasium.Env:
        for position, (idle_kind, env) in enumerate(self._idle):
            if idle_kind == kind:
                del self._idle[position]
                return env
        if self._idle and len(self._playing) + len(self._idle) >= self._sizes.envs_per_worker:
            self._idle.pop(0)[1].close()
        env_id, max_steps = kind
        return gymnasium.make(env_id, max_steps=max_steps, disable_env_checker=True, **self._env_kwargs)
