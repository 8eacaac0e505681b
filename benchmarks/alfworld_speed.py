# SPDX-License-Identifier: Apache-2.0
"""What an ALFWorld environment costs: the cached engine against the stock packages, on the same games in the same run.

    python benchmarks/alfworld_speed.py                     # the games of ALFWORLD_DATA, else generated ones
    python benchmarks/alfworld_speed.py --data-dir ~/alfworld --split valid_unseen --games 20

Each engine plays in a separate process and takes the same actions: a walkthrough mixed with random admissible
commands and some nonsense. Times are CPU time (`time.process_time`), so other work on the machine disturbs them little.
The transcripts (observations, admissible commands, won, done) are compared; a difference ends the run with status 1.
Memory is the proportional set size; for `--envs` environments it is summed over the workers of a real pool.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

NONSENSE = ("", "xyzzy", "go to the moon", "help")
MEMORY_ENVS = 16
"""Environments, each with a different game, over which the memory of one environment is averaged."""


@dataclass
class Measured:
    """One engine. Times in seconds of CPU, memory in MB."""

    first_resets: list[float]
    later_resets: list[float]
    steps: list[float]
    base_memory: float
    first_env_memory: float
    further_env_memory: float
    transcript: str


def memory_mb() -> float:
    """Proportional set size of this process, in MB."""
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:")) / 1024


def cpu_name() -> str:
    with open("/proc/cpuinfo") as file:
        return next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())


# --- in the process that plays --------------------------------------------------------------------------------------


def play(cached: bool, games: Sequence[str], steps: int) -> Measured:
    import textworld
    from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
    from textworld.envs.pddl import PddlEnv

    requested = textworld.EnvInfos(won=True, admissible_commands=True)

    def make_stock(infos: Any) -> Any:
        return AlfredDemangler(PddlEnv(infos), shuffle=False)

    make: Callable[[Any], Any] = make_stock
    if cached:
        from agent_system.environments.alfworld.engine_cache import new_engine

        make = new_engine

    base = memory_mb()
    engine = make(requested)
    first_resets: list[float] = []
    later_resets: list[float] = []
    step_times: list[float] = []
    log: list[list[Any]] = []
    first_env = 0.0
    for number, game in enumerate(games):
        walkthrough = list(json.loads(Path(game).read_text())["walkthrough"])
        rng = random.Random(number)
        for times in (first_resets, later_resets):
            start = time.process_time()
            engine.load(game)
            state = engine.reset()
            times.append(time.process_time() - start)
        log.append([state.feedback, state.admissible_commands])
        for _ in range(steps):
            if walkthrough and rng.random() < 0.4:
                command = walkthrough.pop(0)
            else:
                command = rng.choice(NONSENSE if rng.random() < 0.1 else state.admissible_commands)
            start = time.process_time()
            state, _, done = engine.step(command)
            step_times.append(time.process_time() - start)
            log.append([command, state.feedback, state.admissible_commands, state.won, done])
            if done:
                break
        first_env = first_env or memory_mb() - base
        print("game", file=sys.stderr, flush=True)
    before = memory_mb()
    others = [make(requested) for _ in range(MEMORY_ENVS)]
    for number, other in enumerate(others):
        other.load(games[number % len(games)])
        other.reset()
    further = (memory_mb() - before) / MEMORY_ENVS
    digest = sha256(json.dumps(log).encode()).hexdigest()
    return Measured(first_resets, later_resets, step_times, base, first_env, further, digest)


# --- in the process that compares -----------------------------------------------------------------------------------


def measure(engine: str, games: Sequence[str], steps: int) -> Measured:
    """Runs `play` in a fresh process, with a progress bar."""
    command = [sys.executable, __file__, "--engine", engine, "--steps", str(steps)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as run:
        assert run.stdin and run.stdout and run.stderr
        run.stdin.write("\n".join(games))
        run.stdin.close()
        messages = []
        with tqdm(total=len(games), desc=f"{engine} engine", unit="game") as bar:
            for line in run.stderr:
                if line.strip() == "game":
                    bar.update()
                else:
                    messages.append(line)
        output = run.stdout.read()
    if run.returncode != 0:
        raise RuntimeError(f"the {engine} engine failed:\n{''.join(messages)}")
    return Measured(**json.loads(output))


def measure_pool(panel, envs: int) -> tuple[str, float]:
    """Layout and memory of a pool in which `envs` episodes are under way, ten steps in."""
    import ray

    from agent_system.environments.pool import PoolConfig, start_pool

    async def episode(pool, number, bar):
        session = await pool.open(panel[number % len(panel)], 50)
        rng = random.Random(number)
        for _ in range(10):
            await session.step(rng.choice(session.info["admissible_actions"]))
        bar.update()

    async def episodes(pool):
        with tqdm(total=envs, desc="pool", unit="env") as bar:
            await asyncio.gather(*(episode(pool, number, bar) for number in range(envs)))

    ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        pool = start_pool(PoolConfig(episodes_in_flight=envs, timeout_s=600), "benchmark")
        asyncio.run(episodes(pool))
        used = ray.get([worker.__ray_call__.remote(lambda _: memory_mb()) for worker in pool._workers])
        pool.close()
    finally:
        ray.shutdown()
    return f"{pool.sizes.num_workers} processes x {pool.sizes.envs_per_worker} environments", sum(used)


@contextlib.contextmanager
def data_folder(games_folder: Path | None) -> Iterator[tuple[Path, str]]:
    """The folder to play from, and what it holds."""
    if games_folder is not None:
        yield games_folder, f"games of {games_folder}"
        return
    with tempfile.TemporaryDirectory() as folder:
        from agent_system.environments.alfworld.game_spec import GameSpec
        from agent_system.environments.alfworld.generate import generate_games

        spec = GameSpec(receptacles=None, train=6, valid_seen=48, valid_unseen=6)
        generate_games(Path(folder), spec, workers=os.cpu_count() or 1, progress=True)
        yield Path(folder), "generated games with all receptacles"


def table(stock: Measured, cached: Measured) -> Iterator[str]:
    def quantile(values, share):
        return sorted(values)[min(len(values) - 1, int(share * len(values)))]

    rows: list[tuple[str, str, Callable[[list[float]], float], str]] = [
        ("reset, new game, mean", "s", statistics.mean, "first_resets"),
        ("reset, new game, max", "s", max, "first_resets"),
        ("reset, known game, mean", "s", statistics.mean, "later_resets"),
        ("step, mean", "ms", statistics.mean, "steps"),
        ("step, p50", "ms", lambda values: quantile(values, 0.5), "steps"),
        ("step, p95", "ms", lambda values: quantile(values, 0.95), "steps"),
    ]
    yield f"{'CPU time':28}{'stock':>12}{'cached':>12}{'ratio':>9}"
    for name, unit, reduce, attribute in rows:
        scale = {"s": 1.0, "ms": 1000.0}[unit]
        a, b = (scale * reduce(getattr(measured, attribute)) for measured in (stock, cached))
        yield f"{f'{name} ({unit})':28}{a:12.3f}{b:12.3f}{a / b:8.1f}x"
    yield f"{'memory (MB)':28}{'stock':>12}{'cached':>12}"
    for name, attribute in (
        ("process with the packages", "base_memory"),
        ("+ first environment", "first_env_memory"),
        ("+ each further one", "further_env_memory"),
    ):
        yield f"{name:28}{getattr(stock, attribute):12.1f}{getattr(cached, attribute):12.1f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=os.environ.get("ALFWORLD_DATA") or None,
        help="folder that holds json_2.1.1 (default: ALFWORLD_DATA, else games are generated)",
    )
    parser.add_argument("--split", default="valid_seen", help="default: %(default)s")
    parser.add_argument("--games", type=int, default=12, help="games per engine, default: %(default)s")
    parser.add_argument("--steps", type=int, default=50, help="steps per game at most, default: %(default)s")
    parser.add_argument("--envs", type=int, default=128, help="environments of the pool, 0: none, default: %(default)s")
    parser.add_argument("--engine", choices=("stock", "cached"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.engine:
        print(json.dumps(asdict(play(arguments.engine == "cached", sys.stdin.read().split("\n"), arguments.steps))))
        return 0

    from agent_system.environments.alfworld.games import alfworld_panel
    from agent_system.environments.tasks import held_out_subset
    from agent_system.errors import HiPERError

    with data_folder(arguments.data_dir) as (folder, description):
        try:
            panel = alfworld_panel(folder, arguments.split)
        except HiPERError as error:
            parser.error(str(error))
        chosen = held_out_subset(panel, min(arguments.games, len(panel)), seed=0)
        games = [task.options["game_file"] for task in chosen.tasks]
        stock = measure("stock", games, arguments.steps)
        cached = measure("cached", games, arguments.steps)
        pool = measure_pool(panel, arguments.envs) if arguments.envs else None

    same = stock.transcript == cached.transcript
    packages = ", ".join(f"{name} {version(name)}" for name in ("alfworld", "textworld", "fast-downward-textworld"))
    print(f"\n{cpu_name()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, {packages}")
    print(f"{len(games)} {description} ({arguments.split}), {len(stock.steps)} steps")
    print(f"transcripts: {'identical' if same else 'DIFFERENT'} ({cached.transcript[:16]})\n")
    print("\n".join(table(stock, cached)))
    if pool:
        print(f"\n{arguments.envs} environments as {pool[0]}: {pool[1]:.0f} MB in all")
    return 0 if same else 1


if __name__ == "__main__":
    raise SystemExit(main())
