# SPDX-License-Identifier: Apache-2.0
"""The rules of TextCraft: what an action does to the inventory, what it is answered, and which actions are listed.

    get <count> <item>                                 takes a raw item, any number of times
    craft <count> <item> using <count> <item>, ...     uses up the ingredients and makes what the recipe makes
    inventory                                          names what is carried

Every recipe of the book may be crafted and every raw item taken, whether a command of the task names it or not. The
ingredients may stand in any order, with exactly the counts of the recipe; items must be named where a recipe has a
material. As in the published environment, the count of the crafted item is not compared and may be left out.

Nothing that is carried is ever lost but as an ingredient, and raw items never run out: a task can be won from every
state, so that no state ends it but the crafted goal.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from agent_system.environments.textcraft.recipes import Ingredient, Recipe, RecipeBook

MAX_COUNT = 64
"""Of one raw item in one action."""
INVENTORY = "inventory"
NOT_UNDERSTOOD = "Nothing happens: an action is craft ... using ..., get ... or inventory."
_GET = re.compile(r"get (?P<count>\d{1,4}) (?P<item>.+)")
_CRAFT = re.compile(r"craft (?:\d{1,4} )?(?P<item>\S.*?) using (?P<ingredients>.+)")
_INGREDIENT = re.compile(r"(\d{1,4}) (\S.*)")


@dataclass(frozen=True)
class Outcome:
    """What an action did.

    Attributes:
        answer: one sentence.
        crafted: the item that was crafted; None if none was.
        done: whether the action was carried out.
    """

    answer: str
    crafted: str | None = None
    done: bool = True


class Game:
    """One game.

    Args:
        book: what can be crafted and what can be taken.
        commands: the recipes that the task names. `admissible_actions` lists these only.
    """

    def __init__(self, book: RecipeBook, commands: Sequence[Recipe]) -> None:
        self._book = book
        self._commands = tuple(commands)
        self._gets = tuple(dict.fromkeys(self._get_actions()))
        self.inventory: Counter[str] = Counter()
        """Items with their counts, in the order in which they were obtained; each count is positive."""

    def act(self, action: str) -> Outcome:
        """Play one action. Text that is no action, and an action that is impossible, changes nothing."""
        text = " ".join(action.lower().split())
        if text == INVENTORY:
            return Outcome(self.inventory_text())
        if match := _GET.fullmatch(text):
            return self._get(int(match["count"]), match["item"])
        if match := _CRAFT.fullmatch(text):
            parts = [_INGREDIENT.fullmatch(part.strip()) for part in match["ingredients"].split(",")]
            if all(parts):
                return self._craft(match["item"], [Ingredient(int(part[1]), part[2]) for part in parts if part])
        return Outcome(NOT_UNDERSTOOD, done=False)

    def inventory_text(self) -> str:
        """What is carried, in one sentence."""
        carried = ", ".join(f"{count} {item}" for item, count in self.inventory.items())
        return f"Inventory: {carried or 'nothing'}."

    def admissible_actions(self) -> list[str]:
        """The actions that are listed, each of which can be carried out:

        - the commands of the task for which everything is carried, one for each item that a material may be;
        - get, for every raw item in a command of the task with the count in the command;
        - inventory.
        """
        return [*dict.fromkeys(self._craft_actions()), *self._gets, INVENTORY]

    def _get(self, count: int, item: str) -> Outcome:
        if item not in self._book.items:
            problem = _is_material(item) if item in self._book.materials else f"There is no {item}."
        elif item not in self._book.raw_items:
            problem = f"{item} cannot be taken: it must be crafted."
        elif not 1 <= count <= MAX_COUNT:
            problem = f"Take 1 to {MAX_COUNT} at a time."
        else:
            self.inventory[item] += count
            return Outcome(f"Got {count} {item}.")
        return Outcome(problem, done=False)

    def _craft(self, item: str, ingredients: list[Ingredient]) -> Outcome:
        fitting = (recipe for recipe in self._book.recipes_for(item) if self._fits(recipe, ingredients))
        recipe = next(fitting, None)
        if recipe is None:
            material = next((part.name for part in ingredients if part.name in self._book.materials), None)
            return Outcome(_is_material(material) if material else f"No recipe makes {item} of this.", done=False)
        for part in ingredients:
            if self.inventory[part.name] < part.count:
                return Outcome(f"Not enough {part.name}: {self.inventory[part.name]} of {part.count}.", done=False)
        for part in ingredients:
            self.inventory[part.name] -= part.count
        self.inventory[item] += recipe.count
        self.inventory = +self.inventory
        used = ", ".join(map(str, ingredients))
        return Outcome(f"Crafted {recipe.count} {item} from {used}.", crafted=item)

    def _fits(self, recipe: Recipe, ingredients: Sequence[Ingredient]) -> bool:
        """Whether these are the ingredients of the recipe, in any order."""
        if len(ingredients) != len(recipe.ingredients) or len({part.name for part in ingredients}) < len(ingredients):
            return False
        # Items before materials: an item that a recipe names is not available for its material.
        wanted = sorted(recipe.ingredients, key=lambda part: part.name in self._book.materials)
        left = list(ingredients)
        for part in wanted:
            choices = self._book.choices(part.name)
            match = next((one for one in left if one.name in choices and one.count == part.count), None)
            if match is None:
                return False
            left.remove(match)
        return True

    def _craft_actions(self) -> Iterator[str]:
        for recipe in self._commands:
            carried = [
                [item for item in self._book.choices(part.name) if self.inventory[item] >= part.count]
                for part in recipe.ingredients
            ]
            for items in product(*carried):
                if len(set(items)) == len(items):
                    parts = tuple(
                        Ingredient(part.count, item) for part, item in zip(recipe.ingredients, items, strict=True)
                    )
                    yield str(Recipe(recipe.item, recipe.count, parts))

    def _get_actions(self) -> Iterator[str]:
        for recipe in self._commands:
            for part in recipe.ingredients:
                if part.name in self._book.raw_items:
                    yield f"get {part.count} {part.name}"


def _is_material(name: str) -> str:
    return f"{name} is a material: name one item, such as the one that a command makes."
