# SPDX-License-Identifier: Apache-2.0
"""Tasks of TextCraft: an item to craft, and the commands that the agent is shown.

A task has three numbers and names: its goal, a variant, and how many distractors it has. Everything else follows from
them by hashes, without a random generator, so that a task is the same on every machine and under every version of
Python. The variant decides which of several equally shallow recipes and which item of a material are shown, which
recipes are added as distractors, and in which order all of them stand.

The goals of the three parts are disjoint. They are dealt out within each depth.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from typing import TypeVar

from agent_system.environments.base import TaskSpec
from agent_system.environments.tasks import TaskPanel
from agent_system.environments.textcraft.recipes import Recipe, RecipeBook, recipe_book
from agent_system.errors import ConfigError, TaskError

ENV_ID = "hiper/TextCraft-v0"
DEPTHS = (1, 2, 3, 4)
PARTS = ("train", "eval", "test")
DISTRACTORS = 10
"""The default; the published environment shows at most so many."""
TRAIN_TASKS, HELD_OUT_TASKS = 400, 64
"""The default number of tasks of each depth."""
_HELD_OUT_SHARE = 5
"""One goal in so many belongs to eval, and one to test; of each depth at least one."""
_MAX_CRAFTS = 24
"""Goals that take more craft actions belong to no part: two, which take 35 and 46. No other takes more than 23."""
_MAX_VARIANTS = 1000
_ALL = f"env.textcraft.depths={list(DEPTHS)}".replace(" ", "")
T = TypeVar("T")


@dataclass(frozen=True)
class CraftingTask:
    """One task.

    Attributes:
        goal: the item to craft.
        needed: a recipe for every item that must be crafted, the goal first; see `needed_recipes`.
        commands: what is shown: these and the distractors, in the order of the text.
    """

    goal: str
    needed: tuple[Recipe, ...]
    commands: tuple[Recipe, ...]

    @property
    def text(self) -> str:
        """The task in words."""
        return f"craft {self.goal}. Commands: {'; '.join(map(str, self.commands))}"


def crafting_task(book: RecipeBook, goal: str, variant: int, distractors: int) -> CraftingTask:
    """The task of a goal.

    Args:
        variant: any integer.
        distractors: recipes that are shown although they are not needed, as far as there are so many.

    Raises:
        TaskError: the goal cannot be crafted, or `distractors` is negative.
    """
    if not book.recipes_for(goal):
        raise TaskError(f"goal={goal!r} is not an item that can be crafted. Try: goal='cake'")
    if distractors < 0:
        raise TaskError(f"distractors={distractors} is negative. Try: distractors={DISTRACTORS}")
    stream = f"{goal}/{variant}"
    needed = needed_recipes(book, goal, stream)
    others = islice(_distractors(book, needed, stream), distractors)
    commands = _drawn([*needed, *others], f"{stream}/order")
    return CraftingTask(goal, needed, tuple(commands))


def needed_recipes(book: RecipeBook, goal: str, stream: str) -> tuple[Recipe, ...]:
    """One of the shallowest recipes of the goal and of every item in it that must be crafted, the goal first.

    Args:
        stream: draws among recipes and among the items of a material.
    """
    chosen: dict[str, Recipe] = {}
    open_items = [goal]
    while open_items:
        item = open_items.pop(0)
        if item in chosen or not book.recipes_for(item):
            continue
        recipe = chosen[item] = _drawn(_shallowest(book, item), f"{stream}/recipe")[0]
        for part in recipe.ingredients:
            least = book.depth_of(part.name)
            fitting = [choice for choice in book.choices(part.name) if book.depths[choice] == least]
            open_items.append(_drawn(fitting, f"{stream}/material")[0])
    return tuple(chosen.values())


def crafts_needed(book: RecipeBook, needed: Sequence[Recipe]) -> int:
    """Number of craft actions with which the first item is made by the recipes, without anything in the inventory."""
    recipes = {recipe.item: recipe for recipe in needed}
    demand: Counter[str] = Counter({needed[0].item: 1})
    crafts = 0
    for item in sorted(recipes, key=lambda item: -book.depths[item]):
        times = -(-demand[item] // recipes[item].count)
        crafts += times
        for part in recipes[item].ingredients:
            made = next((choice for choice in book.choices(part.name) if choice in recipes), part.name)
            demand[made] += part.count * times
    return crafts


def textcraft_panel(
    part: str, *, depths: Sequence[int] = DEPTHS, tasks: int | None = None, distractors: int = DISTRACTORS
) -> TaskPanel:
    """The tasks of one part.

    Args:
        part: "train", "eval" or "test".
        depths: of the recipe trees of the goals.
        tasks: of each depth, at most. The goals of a depth are played in turn, in one variant after the other, so that
            there are more tasks than goals; tasks with the same text are left out.
        distractors: in each task.

    Raises:
        ConfigError: unknown part, or a depth of which there are no goals.
    """
    if part not in PARTS:
        raise ConfigError(
            f"env.textcraft.eval_dataset={part} is not one of eval, test. Try: env.textcraft.eval_dataset=eval"
        )
    book = recipe_book()
    size = (TRAIN_TASKS if part == "train" else HELD_OUT_TASKS) if tasks is None else tasks
    specs: list[TaskSpec] = []
    hashes: list[str] = []
    for depth in depths:
        goals = goals_of(book, part, depth)
        if not goals:
            raise ConfigError(f"env.textcraft.depths={list(depths)}: no recipe tree has depth {depth}. Try: {_ALL}")
        for goal, variant, content in islice(_distinct(book, goals, distractors), size):
            specs.append(
                TaskSpec(
                    env_id=ENV_ID,
                    task_id=f"{part}-{goal.replace(' ', '-')}-{variant}-of-{distractors}",
                    kind=f"depth_{depth}",
                    seed=0,
                    options={"goal": goal, "variant": variant, "distractors": distractors},
                )
            )
            hashes.append(content)
    return TaskPanel(tuple(specs), tuple(hashes))


def goals_of(book: RecipeBook, part: str, depth: int) -> list[str]:
    """The goals of a part and a depth. Parts are disjoint; the order is drawn once and for all."""
    goals = _drawn([item for item, of_item in book.depths.items() if of_item == depth > 0], "goals")
    goals = [goal for goal in goals if crafts_needed(book, needed_recipes(book, goal, goal)) <= _MAX_CRAFTS]
    each = max(1, len(goals) // _HELD_OUT_SHARE)
    return {"eval": goals[:each], "test": goals[each : 2 * each], "train": goals[2 * each :]}[part]


def check_env_tasks(split: str) -> TaskPanel:
    """The tasks of "train" and "val" with the default settings, for `agent_system.environments.check_env`."""
    return textcraft_panel("train" if split == "train" else "eval")


def _distinct(book: RecipeBook, goals: Sequence[str], distractors: int) -> Iterator[tuple[str, int, str]]:
    """Goal, variant and a hash of the text of each task that differs from those before it."""
    seen: set[str] = set()
    for variant in range(_MAX_VARIANTS):
        before = len(seen)
        for goal in goals:
            task = crafting_task(book, goal, variant, distractors)
            content = sha256(task.text.encode()).hexdigest()
            if content not in seen:
                seen.add(content)
                yield goal, variant, content
        if len(seen) == before:
            return


def _shallowest(book: RecipeBook, item: str) -> list[Recipe]:
    """The recipes whose tree is as deep as that of the item."""

    def depth(recipe: Recipe) -> int:
        return 1 + max(book.depth_of(part.name) for part in recipe.ingredients)

    return [recipe for recipe in book.recipes_for(item) if depth(recipe) == book.depths[item]]


def _distractors(book: RecipeBook, needed: Sequence[Recipe], stream: str) -> Iterator[Recipe]:
    """Recipes of other items: first those that share an ingredient with the needed ones, then all others."""
    items = {recipe.item for recipe in needed}
    parts = [part.name for recipe in needed for part in recipe.ingredients]
    names = {name for part in parts for name in (part, *book.choices(part))}
    by_use: dict[bool, list[Recipe]] = defaultdict(list)
    for recipe in book.recipes:
        if recipe.item not in items:
            by_use[any(part.name in names for part in recipe.ingredients)].append(recipe)
    for shares in (True, False):
        yield from _drawn(by_use[shares], f"{stream}/distractors")


def _drawn(members: Iterable[T], stream: str) -> list[T]:
    """The members in an order that depends on their texts and the stream only."""
    return sorted(members, key=lambda member: sha256(f"textcraft/{stream}/{member}".encode()).digest())
