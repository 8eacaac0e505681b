# SPDX-License-Identifier: Apache-2.0
"""Pool of environment workers: a few Ray actors that each host many environments, for concurrent episodes.

    pool = start_pool(PoolConfig(episodes_in_flight=128), "envs")       # once; other processes: EnvPool.attach("envs")
    session = await pool.open(task, max_steps=50)
    result = await session.step("go to desk 1")
    await session.close()

Worker processes import neither torch nor verl, and an environment costs megabytes instead of a process. An environment
is kept when its episode ends and is used for the next one. The result of an episode does not depend on the worker.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import ActorDiedError, GetTimeoutError, RayActorError

from agent_system.environments.base import TaskSpec
from agent_system.environments.env_worker import EnvWorker, PoolSizes, StepResult
from agent_system.errors import ConfigError, EnvironmentFault, HiPERError
from agent_system.processes import usable_cpus

ENVS_PER_WORKER = 16
"""A worker with at least this many environments justifies the memory of another worker."""
_MOST_WORKERS = 10_000
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.05, 1.0
_WARN_EVERY_S = 60.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PoolConfig:
    """How a pool is started.

    Args:
        episodes_in_flight: maximum number of open sessions. Further ones wait for a slot.
        num_workers: number of processes (`env.pool.num_workers`); None: `plan_pool` chooses.
        envs_per_worker: slots of each (`env.pool.envs_per_worker`); None: `episodes_in_flight` is divided evenly.
        num_cpus_per_worker: CPUs that Ray reserves for each worker, also a fraction
            (`env.resources_per_worker.num_cpus`).
        env_kwargs: arguments of ``gymnasium.make`` besides ``max_steps``, for every environment (`env.kwargs`).
        timeout_s: seconds without an answer after which a worker is restarted (`env.pool.timeout_s`).
        reserved_cpus: CPUs that are free now and will be needed by actors that are started after the pool.
    """

    episodes_in_flight: int
    num_workers: int | None = None
    envs_per_worker: int | None = None
    num_cpus_per_worker: float = 0.1
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float = 120.0
    reserved_cpus: float = 0.0


def plan_pool(
    episodes_in_flight: int,
    available_cpus: float,
    num_cpus_per_worker: float,
    num_workers: int | None = None,
    envs_per_worker: int | None = None,
    cores: float | None = None,
) -> PoolSizes:
    """Choose the number of workers and of environments so that the pool fits the machine.

    By default there is one worker for `ENVS_PER_WORKER` episodes, but not more workers than cores (an environment step
    is pure computation) and not more than Ray can place. Cores that Ray has reserved for training processes count: they
    wait for the GPU, or for the end of the rollout.

    Args:
        available_cpus: CPUs that Ray has free for the pool.
        cores: CPUs of the machines, which need not be Ray's number; None: those that Ray has free.

    Raises:
        ConfigError: a value is out of range, or Ray has fewer free CPUs than the workers need.
    """
    if episodes_in_flight < 1:
        raise ConfigError(
            f"{episodes_in_flight} episodes in flight: at least 1 is needed. Try: data.train_batch_size=64"
        )
    for name, value in (("num_workers", num_workers), ("envs_per_worker", envs_per_worker)):
        if value is not None and value < 1:
            raise ConfigError(f"env.pool.{name}={value}: at least 1 is needed. Try: env.pool.{name}=null")
    if not 0 <= num_cpus_per_worker < math.inf:
        raise ConfigError(
            f"env.resources_per_worker.num_cpus={num_cpus_per_worker}: a finite number of CPUs, at least 0, is needed. "
            "Try: env.resources_per_worker.num_cpus=0.1"
        )
    free_places = available_cpus / num_cpus_per_worker if num_cpus_per_worker else math.inf
    placeable = int(min(free_places + 1e-9, _MOST_WORKERS))
    needed = num_workers or 1
    if needed > placeable:
        raise ConfigError(
            f"{needed} environment worker(s) with env.resources_per_worker.num_cpus={num_cpus_per_worker} need "
            f"{needed * num_cpus_per_worker:g} CPUs, and Ray has {available_cpus:g} free for them. Try: "
            f"env.resources_per_worker.num_cpus={_fitting(available_cpus / needed)}"
        )
    if num_workers is None:
        per_worker = envs_per_worker or ENVS_PER_WORKER
        num_workers = min(math.ceil(episodes_in_flight / per_worker), placeable)
        num_workers = min(num_workers, max(1, int(available_cpus if cores is None else cores)))
    return PoolSizes(num_workers, envs_per_worker or math.ceil(episodes_in_flight / num_workers))


def start_pool(config: PoolConfig, name_prefix: str) -> EnvPool:
    """Start the workers on the Ray cluster that this process is connected to, and wait until they answer.

    The workers end with the process that started them, or with `EnvPool.close`.

    Raises:
        ConfigError: Ray has too few free CPUs for the workers, or for the training processes that start after them.
    """
    free = ray.available_resources().get("CPU", 0.0)
    if free < config.reserved_cpus:
        raise ConfigError(
            f"The training processes need {config.reserved_cpus:g} CPUs and Ray has {free:g} free and would wait for "
            f"them without end. Try: ray_kwargs.ray_init.num_cpus={math.ceil(config.reserved_cpus) + 4} (a number for "
            "Ray's accounting, which may exceed the CPUs of the machine), or a smaller trainer.n_gpus_per_node"
        )
    sizes = plan_pool(
        config.episodes_in_flight,
        free - config.reserved_cpus,
        config.num_cpus_per_worker,
        config.num_workers,
        config.envs_per_worker,
        cores=usable_cpus() * sum(node["Alive"] for node in ray.nodes()),
    )
    actor = ray.remote(EnvWorker).options
    workers = [
        actor(num_cpus=config.num_cpus_per_worker, max_restarts=-1, name=_worker_name(name_prefix, index)).remote(
            sizes, config.timeout_s, config.env_kwargs
        )
        for index in range(sizes.num_workers)
    ]
    pool = EnvPool(workers, sizes, config.timeout_s)
    try:
        ray.get([worker.layout.remote() for worker in workers], timeout=config.timeout_s)
    except GetTimeoutError as error:
        pool.close()
        raise ConfigError(
            f"Ray did not start {sizes.num_workers} environment workers with "
            f"env.resources_per_worker.num_cpus={config.num_cpus_per_worker:g} each within "
            f"env.pool.timeout_s={config.timeout_s:g} seconds. Try: "
            f"env.pool.num_workers={max(1, sizes.num_workers // 2)}, or env.pool.timeout_s={2 * config.timeout_s:g}"
        ) from error
    return pool


class EnvPool:
    """A client of the workers, created by `start_pool` or `attach`. Every process may have one."""

    def __init__(self, workers: list[Any], sizes: PoolSizes, timeout_s: float) -> None:
        self._workers = workers
        self._sizes = sizes
        self._timeout_s = timeout_s
        self._open_here: Counter[int] = Counter()
        # Clients do not know each other's sessions, so each of them prefers another worker at first.
        self._first = os.getpid() % len(workers)

    @classmethod
    def attach(cls, name_prefix: str, namespace: str | None = None) -> EnvPool:
        """Connect to a pool that another process started.

        Raises:
            ConfigError: there is no pool with that name.
        """
        try:
            first = ray.get_actor(_worker_name(name_prefix, 0), namespace)
        except ValueError as error:
            raise ConfigError(
                f"env.pool_name={name_prefix}: no such environment pool is running in namespace {namespace!r}. The "
                "trainer starts it and fills in its name. Try: env.pool_name=null"
            ) from error
        sizes, timeout_s = ray.get(first.layout.remote())
        rest = [ray.get_actor(_worker_name(name_prefix, index), namespace) for index in range(1, sizes.num_workers)]
        return cls([first, *rest], sizes, timeout_s)

    @property
    def sizes(self) -> PoolSizes:
        return self._sizes

    async def open(self, task: TaskSpec, max_steps: int) -> Session:
        """Start an episode on the least loaded worker with a free slot; wait while there is none.

        Raises:
            TaskError, ConfigError: from the environment's `reset`.
            EnvironmentFault: the worker died while it started the episode (the task can be opened again), no worker
                answers, or the pool was closed.
        """
        wait, waited, silent = _FIRST_WAIT_S, 0.0, 0.0
        while True:
            answered = False
            for index in self._by_load():
                # Counted before the first await, so that episodes that start together choose different workers.
                self._open_here[index] += 1
                session = None
                try:
                    # A worker that is being restarted fails every call at once. Without this first call that would
                    # look like a failure of the task.
                    if await self._answers(index):
                        answered = True
                        session = await self._try_open(index, task, max_steps)
                finally:
                    if session is None:
                        self._open_here[index] -= 1
                if session is not None:
                    return session
            await asyncio.sleep(wait)
            waited, silent = waited + wait, 0.0 if answered else silent + wait
            wait = min(2 * wait, _LONGEST_WAIT_S)
            if silent >= self._timeout_s:
                raise EnvironmentFault(
                    f"none of the {len(self._workers)} environment workers answered within {self._timeout_s:g} s"
                )
            if waited >= _WARN_EVERY_S:
                waited = 0.0
                slots = self._sizes.num_workers * self._sizes.envs_per_worker
                logger.warning("an episode has waited %g s for one of %d environment slots", _WARN_EVERY_S, slots)

    def close(self) -> None:
        """End the workers, for every client."""
        for worker in self._workers:
            ray.kill(worker)

    async def _answers(self, index: int) -> bool:
        try:
            await self._call(index, "layout")
        except EnvironmentFault as fault:
            if isinstance(fault.__cause__, ActorDiedError):  # it will not be restarted: the pool was closed
                raise
            return False
        return True

    async def _try_open(self, index: int, task: TaskSpec, max_steps: int) -> Session | None:
        """Open a session on this worker; None if it has no free slot."""
        key = uuid.uuid4().hex
        try:
            started = await self._call(index, "open", key, task, max_steps)
        except BaseException:
            # A cancelled call may still be executed by the worker, which then receives this one: calls stay in order.
            self._workers[index].close.remote(key)
            raise
        if started is None:
            return None
        return Session(self, index, key, *started)

    def _by_load(self) -> list[int]:
        count = len(self._workers)
        return sorted(range(count), key=lambda index: (self._open_here[index], (index - self._first) % count))

    async def _call(self, index: int, method: str, *arguments: Any) -> Any:
        """Call a worker and raise what it reports; its death or silence is an EnvironmentFault."""
        worker = self._workers[index]
        try:
            async with asyncio.timeout(self._timeout_s):
                reply = await getattr(worker, method).remote(*arguments)
        except RayActorError as error:
            raise EnvironmentFault(f"environment worker {index} died during {method} ({error})") from error
        except TimeoutError as error:
            ray.kill(worker, no_restart=False)
            raise EnvironmentFault(
                f"environment worker {index} did not answer {method} within {self._timeout_s:g} s and was restarted"
            ) from error
        if isinstance(reply, HiPERError):
            raise reply
        return reply


class Session:
    """One episode. `observation` and `info` come from the reset, then from the latest step."""

    def __init__(self, pool: EnvPool, worker: int, key: str, observation: str, info: Mapping[str, Any]) -> None:
        self._pool = pool
        self._worker = worker
        self._key = key
        self._closed = False
        self.observation = observation
        self.info = info

    async def step(self, action: str) -> StepResult:
        """Play one action.

        Raises:
            EnvironmentFault: the environment or its worker failed; the episode is lost.
        """
        result: StepResult = await self._pool._call(self._worker, "step", self._key, action)
        self.observation, self.info = result.observation, result.info
        return result

    async def close(self) -> None:
        """Free the slot. May be called twice, and after the worker died."""
        if self._closed:
            return
        self._closed = True
        self._pool._open_here[self._worker] -= 1
        try:
            await self._pool._call(self._worker, "close", self._key)
        except EnvironmentFault as fault:
            logger.warning("the slot ended with its worker: %s", fault)


def _worker_name(prefix: str, index: int) -> str:
    return f"{prefix}-{index}"


def _fitting(cpus: float) -> float:
    """`cpus` rounded down to two decimals, for an override."""
    return math.floor(cpus * 100) / 100
