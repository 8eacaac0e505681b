# SPDX-License-Identifier: Apache-2.0
"""What a WebShop environment costs: steps a second by kind of step, and the memory of many environments.

    python benchmarks/webshop_speed.py                                  # a generated catalogue of 1,000 products
    python benchmarks/webshop_speed.py --source ~/WebShop/data --small  # the published one
    python benchmarks/webshop_speed.py --envs 1 64 256                  # memory over a real pool (default)

One process plays episodes: a search (the task's words, never the same query twice in a row), pages, products, options,
sub-pages, a purchase. Times are CPU time, each step by itself, so other work on the machine disturbs them little;
admissible actions are part of every step. Memory is the proportional set size, summed over the workers of a real pool.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from machine import describe

ROOT = Path(__file__).resolve().parent.parent
ORIGINAL_MS = {"reset": 3.6, "search": 28.4, "click": 17.5, "buy": 13.9}
"""The original simulator on two shared x86-64 cores, without the 4 ms of its second parse for the available actions."""
ORIGINAL_STEPS = 44.3
"""Its steps a second with that parse, one process."""


def kind_of(action: str) -> str:
    """Which row of the table an action belongs to."""
    return "search" if action.startswith("search[") else "buy" if action == "click[buy now]" else "click"


def play(shop: Path, episodes: int) -> dict[str, list[float]]:
    """Seconds of every step by kind, over `episodes` episodes in this process."""
    from agent_system.environments.webshop.env import WebShopEnv

    env = WebShopEnv(shop, max_steps=1000)
    goals = len(env._shop.goals(env._goals, env._split, 0))
    seconds: dict[str, list[float]] = defaultdict(list)
    for number in range(episodes):
        rng = random.Random(number)
        start = time.process_time()
        _, info = env.reset(options={"goal_index": rng.randrange(goals)})
        seconds["reset"].append(time.process_time() - start)
        words = info["task"].split()
        actions = [f"search[{' '.join(rng.sample(words, min(len(words), 6)))}]"]
        ended, turns = False, 0
        while not ended:
            action = actions.pop() if actions else rng.choice(info["admissible_actions"])
            if action.startswith("search[<"):
                action = f"search[{' '.join(rng.sample(words, min(len(words), 6)))}]"
            if turns >= 12 and "click[buy now]" in info["admissible_actions"]:
                action = "click[buy now]"
            start = time.process_time()
            _, _, terminated, truncated, info = env.step(action)
            seconds[kind_of(action)].append(time.process_time() - start)
            ended, turns = terminated or truncated, turns + 1
    return seconds


def memory_mb() -> float:
    """Proportional set size of this process, in MB."""
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:")) / 1024


async def pool_memory(shop: Path, envs: int) -> float:
    """MB of the workers of a pool in which `envs` environments have each searched and opened a product."""
    import ray

    from agent_system.environments.pool import PoolConfig, start_pool
    from agent_system.environments.webshop.goals import Goals, Split
    from agent_system.environments.webshop.shop import Shop
    from agent_system.environments.webshop.tasks import shop_panel

    panel = shop_panel(Shop(shop), Goals.SYNTHETIC, Split.FIXED, "train", 0, envs)
    ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    config = PoolConfig(episodes_in_flight=envs, env_kwargs={"data_dir": str(shop)})
    pool = start_pool(config, f"memory-{envs}")
    try:
        sessions = [await pool.open(panel[i % len(panel)], 15) for i in range(envs)]
        for session in sessions:
            result = await session.step(f"search[{session.info['task'][:60]}]")
            listed = [action for action in result.info["admissible_actions"] if "back to" not in action]
            await session.step(listed[-1])
        used = ray.get([worker.__ray_call__.remote(lambda _: memory_mb()) for worker in pool._workers])
        return sum(used)
    finally:
        pool.close()
        ray.shutdown()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", help="folder of the published files (default: a generated catalogue)")
    parser.add_argument("--small", action="store_true", help="its 1,000-product catalogue")
    parser.add_argument("--products", type=int, default=1000, help="size of a generated catalogue")
    parser.add_argument("--episodes", type=int, default=300, help="episodes that are timed (default: 300)")
    parser.add_argument("--envs", type=int, nargs="*", default=[1, 64, 256], help="environments whose memory is taken")
    arguments = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    sys.path.insert(0, str(ROOT))
    from agent_system.environments.webshop.generator.catalogue import CatalogueSpec
    from agent_system.environments.webshop.prepare import ShopSpec, prepare_shop
    from agent_system.errors import HiPERError

    print(describe("numpy", "ray", "gymnasium"))
    with tempfile.TemporaryDirectory() as scratch:
        shop = Path(scratch) / "shop"
        spec = ShopSpec(arguments.source, CatalogueSpec(products=arguments.products), arguments.small)
        start = time.perf_counter()
        try:
            manifest = prepare_shop(shop, spec, progress=True)
        except HiPERError as error:
            parser.error(str(error))
        print(
            f"{manifest.products:,} products, {manifest.goals['synthetic']:,} goals, prepared in "
            f"{time.perf_counter() - start:.1f} s, {sum(manifest.files.values()) / 2**20:.1f} MiB"
        )
        play(shop, 20)  # opens files and fills caches
        seconds = play(shop, arguments.episodes)
        print("\n| | ms (mean) | p95 | a second | original, ms | times |\n|---|---|---|---|---|---|")
        for name in ("reset", "search", "click", "buy"):
            times = sorted(seconds[name])
            mean = statistics.mean(times)
            p95 = times[int(0.95 * (len(times) - 1))]
            cells = (name, f"{1e3 * mean:.3f}", f"{1e3 * p95:.3f}", f"{1 / mean:,.0f}", f"{ORIGINAL_MS[name]:.1f}")
            print("| " + " | ".join(cells) + f" | {ORIGINAL_MS[name] / (1e3 * mean):,.0f} |")
        steps = [t for name in ("search", "click", "buy") for t in seconds[name]]
        rate = len(steps) / sum(steps)
        print(f"\n{len(steps):,} steps: {rate:,.0f} a second ({rate / ORIGINAL_STEPS:,.0f} times the original's 44.3)")
        for envs in arguments.envs:
            print(f"{envs:4d} environments: {asyncio.run(pool_memory(shop, envs)):8,.0f} MB", flush=True)


if __name__ == "__main__":
    main()
