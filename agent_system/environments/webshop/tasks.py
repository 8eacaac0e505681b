# SPDX-License-Identifier: Apache-2.0
"""Goals of a shop as panels of tasks.

Under `fixed` a panel holds the goals of one split. Under `legacy` it holds the tasks of verl-agent's environment
workers: worker k draws its goals from its own shuffle (seed `seed + k` in training, `1000 + k` in validation), so a
task is a worker's seed and an index in that worker's order. In verl-agent the validation goals depend on the run's
seed; here they are those of seed 0, so that runs with different seeds are compared on the same goals.
"""

from __future__ import annotations

import random
import re
from hashlib import sha256

from agent_system.environments.base import TaskSpec
from agent_system.environments.tasks import TaskPanel
from agent_system.environments.webshop.goals import FIXED_SEED, Goals, Split
from agent_system.environments.webshop.shop import Shop
from agent_system.errors import ConfigError, TaskError

ENV_ID = "hiper/WebShop-v0"
PARTS = ("train", "eval", "test")
LEGACY_WORKERS = 128
"""Environment workers in the published scripts, in training and in validation."""
LEGACY_VALIDATION = 1000
"""Seed of the first validation worker."""
HELD_OUT_LIMIT = 20_000
"""`limit` for held-out parts: the default of `env.webshop.train_goals`, but independent of that key."""
_TASK_ID = re.compile(r"(synthetic|human)-(fixed|legacy)(-?\d*)-(\d+)")


def shop_panel(shop: Shop, goals: Goals, split: Split, part: str, seed: int, limit: int) -> TaskPanel:
    """The tasks of one part.

    Args:
        part: "train", "eval" or "test".
        seed: `env.seed`; counts for the training goals of `legacy` only.
        limit: largest number of tasks in the panel; more goals are sampled with a fixed seed.

    Raises:
        ConfigError: unknown part, or too few goals.
    """
    if part not in PARTS:
        raise ConfigError(
            f"env.webshop.eval_dataset={part} is not one of eval, test. Try: env.webshop.eval_dataset=test"
        )
    indices = shop.ranges(goals, split)[part]
    if split is Split.FIXED:
        chosen = indices if len(indices) <= limit else sorted(random.Random(FIXED_SEED).sample(indices, limit))
        pairs = [(FIXED_SEED, index) for index in chosen]
    else:
        first = seed if part == "train" else LEGACY_VALIDATION
        each = min(len(indices), max(1, limit // LEGACY_WORKERS))
        pairs = [
            (worker, index)
            for worker in range(first, first + LEGACY_WORKERS)
            for index in random.Random(worker).sample(indices, each)
        ]
    tasks, hashes = [], []
    for worker, index in pairs:
        goal = shop.goal(goals, split, worker, index)
        options = {"goal_index": index} if split is Split.FIXED else {"goal_index": index, "seed": worker}
        tasks.append(
            TaskSpec(
                env_id=ENV_ID,
                task_id=task_id(goals, split, worker, index),
                kind=goal.product.category,
                seed=worker,
                options=options,
            )
        )
        hashes.append(sha256(f"{goal.product.asin}\t{goal.instruction}\t{goal.price_upper}".encode()).hexdigest())
    return TaskPanel(tuple(tasks), tuple(hashes))


def task_id(goals: Goals, split: Split, seed: int, index: int) -> str:
    """Name of a task; `parse_task_id` is the inverse."""
    return f"{goals.value}-{split.value}{seed if split is Split.LEGACY else ''}-{index}"


def parse_task_id(name: str) -> tuple[Goals, Split, int, int]:
    """(goals, split, seed, index) of a task's name.

    Raises:
        TaskError: it is not the name of a shopping task.
    """
    match = _TASK_ID.fullmatch(name)
    if match is None:
        raise TaskError(f"{name!r} is not the name of a WebShop task. Try: synthetic-fixed-17")
    return Goals(match[1]), Split(match[2]), int(match[3] or FIXED_SEED), int(match[4])
