# SPDX-License-Identifier: Apache-2.0
"""Environment workers on a real Ray cluster, with real games."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import sys
import time
from pathlib import Path

import pytest
import ray

from agent_system.environments.alfworld.games import alfworld_panel
from agent_system.environments.base import TaskSpec
from agent_system.environments.pool import EnvPool, PoolConfig, start_pool
from agent_system.errors import ConfigError, EnvironmentFault, TaskError
from recipe.hiper.trainer.replay_guard import EpisodesLost, Heartbeat

pytestmark = pytest.mark.engine  # one Ray at a time

NAMESPACE = "pool-tests"


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init(num_cpus=2, namespace=NAMESPACE, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def panel(generated_games):
    return alfworld_panel(generated_games, "train")


@pytest.fixture
def pool(request):
    config = getattr(request, "param", PoolConfig(episodes_in_flight=4, num_workers=2))
    pool = start_pool(config, f"pool-{request.node.name}")
    yield pool
    pool.close()


def walkthrough(task: TaskSpec) -> list[str]:
    return json.loads(Path(task.options["game_file"]).read_text())["walkthrough"]


async def play(pool: EnvPool, task: TaskSpec, max_steps: int = 50) -> list:
    session = await pool.open(task, max_steps)
    transcript = [session.observation, session.info]
    for action in walkthrough(task):
        transcript.append(await session.step(action))
    await session.close()
    return transcript


def in_worker(pool: EnvPool, index: int, function):
    return pool._workers[index].__ray_call__.remote(function)


def slots(pool: EnvPool) -> list[tuple[int, int]]:
    """Sessions and environments of each worker."""
    workers = range(pool.sizes.num_workers)
    return ray.get([in_worker(pool, index, lambda w: (len(w._playing), len(w._idle))) for index in workers])


def test_an_episode_is_won_and_frees_its_slot(pool, panel):
    task = panel[0]
    transcript = asyncio.run(play(pool, task))
    assert transcript[-1].terminated and transcript[-1].reward == 10.0 and transcript[-1].info["won"]
    assert sum(playing for playing, _ in slots(pool)) == 0


def test_a_task_gives_the_same_episode_on_every_worker_and_slot(pool, panel):
    async def everything():
        return await asyncio.gather(*(play(pool, task) for _ in range(4) for task in panel.tasks))

    transcripts = asyncio.run(everything())
    for number, transcript in enumerate(transcripts):
        assert transcript == transcripts[number % len(panel)]


def test_sessions_spread_over_the_workers_and_environments_are_reused(pool, panel):
    async def everything():
        first = await asyncio.gather(*(pool.open(panel[0], 50) for _ in range(4)))
        counts = slots(pool)
        for session in first:
            await session.close()
            await session.close()
        second = await asyncio.gather(*(pool.open(panel[1], 50) for _ in range(4)))
        return counts, slots(pool), second

    first, second, _ = asyncio.run(everything())
    assert first == [(2, 0), (2, 0)]
    assert second == [(2, 0), (2, 0)]  # two environments per worker, as before


@pytest.mark.parametrize("pool", [PoolConfig(episodes_in_flight=1, num_workers=1)], indirect=True)
def test_a_session_waits_for_a_slot_and_gets_it(pool, panel):
    async def everything():
        first = await pool.open(panel[0], 50)
        second = asyncio.create_task(pool.open(panel[1], 50))
        await asyncio.sleep(0.5)
        assert not second.done()
        await first.close()
        return (await asyncio.wait_for(second, 60)).info["task"], first.info["task"]

    tasks = asyncio.run(everything())
    assert tasks[0] != tasks[1]
    assert slots(pool) == [(1, 0)]


def test_each_episode_has_its_own_step_limit(pool, panel):
    async def steps(limit):
        session = await pool.open(panel[0], limit)
        results = [await session.step("look") for _ in range(limit)]
        await session.close()
        return [result.truncated for result in results]

    assert asyncio.run(steps(2)) == [False, True]
    assert asyncio.run(steps(3)) == [False, False, True]


def test_a_cancelled_open_frees_its_slot(pool, panel):
    async def cancelled():
        opening = asyncio.create_task(pool.open(panel[0], 50))
        await asyncio.sleep(0.05)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening

    asyncio.run(cancelled())
    assert sum(playing for playing, _ in slots(pool)) == 0
    assert sum(pool._open_here.values()) == 0


def test_a_bad_task_is_a_typed_error_and_leaves_the_pool_usable(pool, panel, tmp_path):
    bad = TaskSpec(panel[0].env_id, "bad", "none", 0, {"game_file": str(tmp_path / "nowhere.tw-pddl")})
    with pytest.raises(TaskError, match="nowhere.tw-pddl") as refusal:
        asyncio.run(pool.open(bad, 50))
    assert type(refusal.value) is TaskError
    assert str(pickle.loads(pickle.dumps(refusal.value))) == str(refusal.value)
    with pytest.raises(ConfigError, match="env.max_steps=0"):
        asyncio.run(pool.open(panel[0], 0))
    assert asyncio.run(play(pool, panel[0]))[-1].terminated


def test_a_broken_engine_is_a_fault_and_the_task_can_be_played_again(pool, panel):
    async def everything():
        session = await pool.open(panel[0], 50)

        def sabotage(worker):
            for _, env in worker._playing.values():
                del env.unwrapped._engine.unwrapped._pddl_state

        for index in range(2):
            await in_worker(pool, index, sabotage)
        with pytest.raises(EnvironmentFault, match="engine failed"):
            await session.step("look")
        await session.close()
        return await play(pool, panel[0])

    assert asyncio.run(everything())[-1].terminated


def test_a_dead_worker_is_a_fault_and_comes_back(pool, panel):
    async def everything():
        sessions = await asyncio.gather(*(pool.open(panel[0], 50) for _ in range(4)))
        pids = [await in_worker(pool, index, lambda _: os.getpid()) for index in range(2)]
        for index in range(2):
            in_worker(pool, index, lambda _: os._exit(1))
        started = time.monotonic()
        for session in sessions:
            with pytest.raises(EnvironmentFault):
                await session.step("look")
            await session.close()
        assert time.monotonic() - started < 60
        again = await asyncio.gather(*(play_again(task) for task in panel.tasks))
        return pids, [await in_worker(pool, index, lambda _: os.getpid()) for index in range(2)], again

    async def play_again(task):
        for _ in range(5):
            try:
                return await play(pool, task)
            except EnvironmentFault:
                await asyncio.sleep(1)
        raise AssertionError("the worker did not come back")

    before, after, transcripts = asyncio.run(everything())
    assert not set(before) & set(after)
    assert all(transcript[-1].terminated for transcript in transcripts)


@pytest.mark.parametrize("pool", [PoolConfig(episodes_in_flight=2, num_workers=1, timeout_s=10)], indirect=True)
def test_a_worker_that_hangs_is_a_fault_and_comes_back(pool, panel):
    async def everything():
        session = await pool.open(panel[0], 50)
        in_worker(pool, 0, lambda _: time.sleep(600))
        with pytest.raises(EnvironmentFault, match="did not answer step within 10 s"):
            await session.step("look")
        await session.close()
        for _ in range(5):
            try:
                return await play(pool, panel[0])
            except EnvironmentFault:
                await asyncio.sleep(1)

    assert asyncio.run(everything())[-1].terminated


def test_another_process_attaches_by_name(pool, panel, request):
    @ray.remote(num_cpus=0)
    def elsewhere(name, task, actions):
        async def episode():
            session = await EnvPool.attach(name).open(task, 50)
            results = [await session.step(action) for action in actions]
            await session.close()
            return results[-1].terminated

        return asyncio.run(episode())

    assert ray.get(elsewhere.remote(f"pool-{request.node.name}", panel[0], walkthrough(panel[0])))
    attached = EnvPool.attach(f"pool-{request.node.name}", NAMESPACE)
    assert attached.sizes == pool.sizes
    assert asyncio.run(play(attached, panel[1]))[-1].terminated
    with pytest.raises(ConfigError, match="env.pool_name=nobody: no such environment pool"):
        EnvPool.attach("nobody")


def test_workers_import_no_torch(pool, panel):
    asyncio.run(play(pool, panel[0]))
    for index in range(2):
        modules = ray.get(in_worker(pool, index, lambda _: sorted({name.split(".")[0] for name in sys.modules})))
        assert "gymnasium" in modules
        assert not {"torch", "verl", "vllm", "transformers"} & set(modules)


async def step_until_it_fails(session):
    """Ray ends a worker without waiting for its death: a call or two may still be answered."""
    for _ in range(40):
        await session.step("look")
        await asyncio.sleep(0.1)


def test_a_closed_pool_says_so(panel):
    pool = start_pool(PoolConfig(episodes_in_flight=1), "closed")
    session = asyncio.run(pool.open(panel[0], 50))
    pool.close()
    with pytest.raises(EnvironmentFault, match="died during step"):
        asyncio.run(step_until_it_fails(session))
    asyncio.run(session.close())
    with pytest.raises(EnvironmentFault, match="died during layout"):
        asyncio.run(pool.open(panel[0], 50))


def test_a_pool_that_does_not_fit_is_refused_at_once():
    with pytest.raises(ConfigError, match=r"need 4 CPUs.* Try: env\.resources_per_worker\.num_cpus=0\."):
        start_pool(PoolConfig(episodes_in_flight=8, num_workers=4, num_cpus_per_worker=1), "too-big")


def test_a_pool_leaves_others_the_cpus_they_will_ask_for():
    everything = ray.available_resources()["CPU"]
    config = PoolConfig(episodes_in_flight=1, num_cpus_per_worker=1, reserved_cpus=everything - 0.5)
    with pytest.raises(ConfigError, match=r"need 1 CPUs, and Ray has 0\.5 free for them"):
        start_pool(config, "reserved")


def test_training_processes_without_cpus_are_refused_before_anything_waits_for_them():
    with pytest.raises(ConfigError, match=r"need 24 CPUs and Ray has .* free.*Try: ray_kwargs\.ray_init\.num_cpus=28"):
        start_pool(PoolConfig(episodes_in_flight=1, reserved_cpus=24), "for-ever")


def test_a_player_that_died_is_noticed_and_a_busy_one_is_not():
    class Player:
        async def play(self, seconds: float) -> None:
            time.sleep(seconds)  # answers nothing meanwhile

    players = [ray.remote(Player).options(num_cpus=0.1).remote() for _ in range(2)]
    ray.get([player.play.remote(0.0) for player in players])
    heartbeat = Heartbeat(players, every_s=0.0)
    busy = players[0].play.remote(1.5)
    for _ in range(3):
        heartbeat.check()
    ray.get(busy)
    ray.kill(players[1])
    deadline = time.monotonic() + 30
    with pytest.raises(EpisodesLost, match=r"process 1 of 2 that play episodes died"):
        while time.monotonic() < deadline:
            heartbeat.check()
            time.sleep(0.1)
