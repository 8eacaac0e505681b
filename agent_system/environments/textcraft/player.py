# SPDX-License-Identifier: Apache-2.0
"""A scripted player that crafts from the task, the observations and the admissible actions alone.

Besides these it knows which items a material may be. It walks the recipe tree in post-order: what an item is made of is
obtained before the item. Its sub-goals name the item that is being made ("make stick"); they change when that item is
finished, or when a mistake has used it up. The plan is computed from the inventory on every turn: the player can advise
in the middle of any other player's episode.

If the observations do not show the inventory, it is followed from the answers.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from agent_system.environments.textcraft.game import INVENTORY
from agent_system.environments.textcraft.recipes import Ingredient, Recipe, recipe_book
from agent_system.errors import TaskError
from agent_system.plan_execute.advice import Advice

MAKE = "make "
_TASK = re.compile(r"craft (?P<goal>[a-z ]+)\. Commands: (?P<commands>.+)", re.DOTALL)
_COMMAND = re.compile(r"craft (\d+) ([a-z ]+) using (.+)")
_PART = re.compile(r"(\d+) ([a-z ]+)")
_GET = re.compile(r"get (\d+) ([a-z ]+)")
_CARRIED = re.compile(r"Inventory: ([^.]*)\.")
_GOT = re.compile(r"^Got (\d+) ([a-z ]+)\.")
_CRAFTED = re.compile(r"^Crafted (\d+) ([a-z ]+) from ([^.]*)\.")


@dataclass(frozen=True)
class Step:
    """What to do next: the item whose command it serves, and the action."""

    item: str
    action: str


def parse_task(task: str) -> tuple[str, tuple[Recipe, ...]]:
    """The goal and the commands of a task.

    Raises:
        TaskError: it is not the text of a crafting task.
    """
    match = _TASK.fullmatch(task.strip())
    commands = [_COMMAND.fullmatch(text.strip()) for text in match["commands"].split(";")] if match else [None]
    if match is None or not all(commands):
        raise TaskError(f"the player cannot read the task {task[:80]!r}: it is not the text of a crafting task")
    return match["goal"], tuple(Recipe(c[2], int(c[1]), tuple(_parts(c[3]))) for c in commands if c)


class Crafter:
    """Advice for one task.

    Args:
        task: the text of the task.
        rng: draws the habits.
        idle: share of turns on which it looks at the inventory instead of continuing. Never needed with a shown one.
        distracted: share of its own sub-goals before which it first makes something that the goal does not need, of raw
            items.

    Raises:
        TaskError: the task cannot be read.
    """

    def __init__(self, task: str, rng: random.Random, *, idle: float = 0.0, distracted: float = 0.0) -> None:
        self.goal, self._listed = parse_task(task)
        self._rng, self._idle, self._distracted = rng, idle, distracted
        self._raw: dict[str, list[int]] = {}
        """Raw items with the counts in which they are listed, ascending."""
        self._commands: dict[str, Recipe] = {}
        """A command for each item that the raw items and other commands suffice for."""
        self._inventory: Counter[str] = Counter()
        self._detour: str | None = None
        self._decided: set[str] = set()

    @property
    def subgoals(self) -> tuple[str, ...]:
        """A sub-goal for every item that a command of the task makes."""
        return tuple(dict.fromkeys(f"{MAKE}{recipe.item}" for recipe in self._listed))

    def advise(self, observation: str, admissible: Sequence[str], subgoal: str) -> Advice:
        """The recommended decision, sub-goal and action. Call it once for every observation of the episode."""
        self._observe(observation, admissible)
        step = self._detour_step() or self._next(self.goal)
        advice = Advice.towards(f"{MAKE}{step.item}", step.action, subgoal)
        if self._rng.random() < self._idle:
            return Advice.towards(subgoal or advice.subgoal, INVENTORY, subgoal)
        return advice

    def _observe(self, observation: str, admissible: Sequence[str]) -> None:
        if not self._commands:
            self._raw = _counts_of_gets(admissible)
            self._commands = _possible(self._listed, self._raw)
        if match := _GOT.search(observation):
            self._inventory[match[2]] += int(match[1])
        if match := _CRAFTED.search(observation):
            self._inventory.subtract({part.name: part.count for part in _parts(match[3])})
            self._inventory[match[2]] += int(match[1])
        if match := _CARRIED.search(observation):
            self._inventory = Counter({part.name: part.count for part in _parts(match[1])})

    def _detour_step(self) -> Step | None:
        """The next step towards an item that the goal does not need; None if there is no such detour now."""
        if self._detour and self._inventory[self._detour] > 0:
            self._detour = None
        if self._detour is None:
            item = self._next(self.goal).item
            if item in self._decided:
                return None
            self._decided.add(item)
            others = sorted(set(self._commands) - self._involved(self.goal) - set(+self._inventory))
            others = [other for other in others if len(self._involved(other)) == 1]
            if not others or self._rng.random() >= self._distracted:
                return None
            self._detour = self._rng.choice(others)
        return self._next(self._detour)

    def _next(self, target: str) -> Step:
        """The first step of a plan that makes one of the target, which is not carried, with what is carried."""
        step = self._obtain(target, 1, Counter(self._inventory), target)
        assert step is not None  # the target is not carried
        return step

    def _obtain(self, item: str, count: int, stock: Counter[str], purpose: str) -> Step | None:
        """The first step towards `count` of an item; None where the stock has them. Takes them from the stock.

        Args:
            purpose: the item that it is an ingredient of.
        """
        taken = min(stock[item], count)
        stock[item] -= taken
        missing = count - taken
        if not missing:
            return None
        if item not in self._commands:
            listed = self._raw.get(item, [])
            fitting = [number for number in listed if number <= missing]
            return Step(purpose, f"get {max(fitting) if fitting else min(listed, default=missing)} {item}")
        recipe = self._commands[item]
        times = -(-missing // recipe.count)
        parts = tuple(Ingredient(part.count, self._choice(part, stock)) for part in recipe.ingredients)
        # What must be crafted comes first.
        for part in sorted(parts, key=lambda part: part.name not in self._commands):
            if step := self._obtain(part.name, part.count * times, stock, item):
                return step
        return Step(item, str(Recipe(item, recipe.count, parts)))

    def _choice(self, part: Ingredient, stock: Mapping[str, int]) -> str:
        """The item to use for an ingredient: itself, or of a material the item of which most is in stock."""
        return max(self._choices(part.name), key=lambda item: (stock[item], -len(self._involved(item))))

    def _choices(self, name: str) -> list[str]:
        """The items that an ingredient of this name may be."""
        if name in self._raw or name in self._commands:
            return [name]
        return _of_material(name, self._commands)

    def _involved(self, item: str) -> set[str]:
        """The items that may be crafted on the way to an item, itself included."""
        involved: set[str] = set()
        open_items = [item]
        while open_items:
            name = open_items.pop()
            if name in self._commands and name not in involved:
                involved.add(name)
                open_items += [i for part in self._commands[name].ingredients for i in self._choices(part.name)]
        return involved


def _possible(commands: Iterable[Recipe], raw: Iterable[str]) -> dict[str, Recipe]:
    """A command for each item that can be made from the raw items by the commands."""
    possible: dict[str, Recipe] = {}
    left, known = list(commands), set(raw)
    while True:
        usable = [c for c in left if all(p.name in known or _of_material(p.name, possible) for p in c.ingredients)]
        if not usable:
            return possible
        for recipe in usable:
            possible.setdefault(recipe.item, recipe)
            known.add(recipe.item)
            left.remove(recipe)


def _of_material(name: str, items: Iterable[str]) -> list[str]:
    """Those of the items that a material may be; none where the name is not a material's."""
    members = recipe_book().materials.get(name, ())
    return [item for item in items if item in members]


def _parts(text: str) -> Iterator[Ingredient]:
    for part in text.split(","):
        if match := _PART.fullmatch(part.strip()):
            yield Ingredient(int(match[1]), match[2])


def _counts_of_gets(admissible: Iterable[str]) -> dict[str, list[int]]:
    """The counts of each raw item in the listed actions, ascending."""
    counts: dict[str, list[int]] = {}
    for action in admissible:
        if match := _GET.fullmatch(action):
            counts.setdefault(match[2], []).append(int(match[1]))
    return {item: sorted(of_item) for item, of_item in counts.items()}
