# SPDX-License-Identifier: Apache-2.0
"""TextCraft: tasks and panels, the environment, and the scripted player."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from itertools import chain, combinations
from pathlib import Path

import gymnasium
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_system.environments import check_env as own_check
from agent_system.environments.tasks import HELD_OUT_SEED, held_out_subset
from agent_system.environments.textcraft.env import TextCraftEnv
from agent_system.environments.textcraft.player import Crafter, parse_task
from agent_system.environments.textcraft.recipes import recipe_book
from agent_system.environments.textcraft.tasks import (
    DEPTHS,
    PARTS,
    crafting_task,
    crafts_needed,
    goals_of,
    textcraft_panel,
)
from agent_system.errors import ConfigError, TaskError
from agent_system.plan_execute.protocol import KEEP, SWITCH

REPOSITORY = Path(__file__).resolve().parents[2]
CAKE = {"goal": "cake", "distractors": 2}
EPISODES = """
import random, sys
import gymnasium
import agent_system.environments
from agent_system.environments.textcraft.tasks import textcraft_panel

print(textcraft_panel("eval").digest)
for seed in range(3):
    env, rng = gymnasium.make("hiper/TextCraft-v0", max_steps=12, disable_env_checker=True), random.Random(seed)
    observation, info = env.reset(seed=seed)
    print(info["task"])
    ended = False
    while not ended:
        action = rng.choice(info["admissible_actions"])
        observation, reward, terminated, truncated, info = env.step(action)
        print(action, observation, reward, info)
        ended = terminated or truncated
print("loaded:", sorted({"torch", "textcraft"} & set(sys.modules)))
"""
"""The digest of a panel, and episodes whose task the seed draws."""


@pytest.fixture(scope="module")
def panels():
    return {part: textcraft_panel(part) for part in PARTS}


# --- tasks and panels


def test_a_task_shows_what_is_needed_and_distractors():
    book = recipe_book()
    task = crafting_task(book, "oak sign", 3, 5)
    assert [recipe.item for recipe in task.needed] == ["oak sign", "oak planks", "stick"]
    assert len(task.commands) == 8 and set(task.needed) < set(task.commands)
    made = {recipe.item for recipe in task.needed}
    assert not any(recipe.item in made for recipe in set(task.commands) - set(task.needed))
    assert task.text.startswith("craft oak sign. Commands: craft ") and task.text.count(" using ") == 8
    assert parse_task(task.text) == ("oak sign", task.commands)


def test_variants_differ_in_order_materials_and_distractors():
    book = recipe_book()
    tasks = [crafting_task(book, "wooden sword", variant, 4) for variant in range(40)]
    assert len({task.text for task in tasks}) == 40
    assert len({recipe.item for task in tasks for recipe in task.needed if recipe.item.endswith("planks")}) == 8
    assert tasks == [crafting_task(book, "wooden sword", variant, 4) for variant in range(40)]


def test_craft_actions_of_a_goal_by_hand():
    """Cake takes 2 sugar: two craft actions from sugar cane (1 each), or one from honey (3)."""
    book = recipe_book()
    crafts = {
        str(task.needed[1]): crafts_needed(book, task.needed)
        for task in (crafting_task(book, "cake", variant, 0) for variant in range(20))
    }
    assert crafts == {"craft 1 sugar using 1 sugar cane": 3, "craft 3 sugar using 1 honey bottle": 2}
    # A sign takes 6 oak planks, of which one action makes 4, and a stick of bamboo: 2 + 1 + 1.
    assert crafts_needed(book, crafting_task(book, "oak sign", 3, 5).needed) == 4


@pytest.mark.parametrize(
    ("options", "problem"), [(("sugar cane", 0, 1), "goal='sugar cane'"), (("cake", 0, -1), "distractors=-1")]
)
def test_a_task_that_there_is_not(options, problem):
    with pytest.raises(TaskError, match=f"{problem}.*Try: "):
        crafting_task(recipe_book(), *options)


def test_panels_are_the_same_on_every_machine(panels):
    assert {part: panel.digest[:16] for part, panel in panels.items()} == {
        "train": "beb164261cd11bde",
        "eval": "9879e2d029c270dd",
        "test": "ae4cf9f63008e552",
    }


def test_a_process_with_another_hash_seed_plays_the_same_episodes():
    printed = [
        subprocess.run(
            [sys.executable, "-c", EPISODES],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONHASHSEED": hash_seed},
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert printed[0] == printed[1] and printed[0].count("craft ") > 20
    assert printed[0].splitlines()[-1] == "loaded: []", "neither torch nor the package's engine"


def test_panels_are_disjoint(panels):
    goals = {part: {task.options["goal"] for task in panel.tasks} for part, panel in panels.items()}
    hashes = {part: set(panel.content_hashes) for part, panel in panels.items()}
    for first, second in combinations(PARTS, 2):
        assert not goals[first] & goals[second] and not hashes[first] & hashes[second]
    assert sum(map(len, goals.values())) == 542  # all but two
    assert sum(len(goals_of(recipe_book(), part, depth)) for part in PARTS for depth in DEPTHS) == 542
    for task in chain.from_iterable(panel.tasks for panel in panels.values()):
        assert task.kind == f"depth_{recipe_book().depths[task.options['goal']]}"


def test_panels_are_disjoint_within_each_depth():
    """Also with other settings, under which other variants are drawn."""
    for depth in DEPTHS:
        drawn = [textcraft_panel(part, depths=[depth], tasks=100, distractors=0).tasks for part in PARTS]
        goals = [{task.options["goal"] for task in tasks} for tasks in drawn]
        assert all(goals) and len(set().union(*goals)) == sum(map(len, goals))


def test_each_depth_has_tasks_in_every_part(panels):
    for part, panel in panels.items():
        kinds = [task.kind for task in panel.tasks]
        size = 400 if part == "train" else 64
        assert {kind: kinds.count(kind) for kind in kinds} == {f"depth_{depth}": size for depth in DEPTHS}
        assert len(set(panel.content_hashes)) == len(panel)
    drawn = held_out_subset(panels["eval"], 128, HELD_OUT_SEED)
    assert {kind: [task.kind for task in drawn.tasks].count(kind) for kind in ("depth_1", "depth_4")} == {
        "depth_1": 32,
        "depth_4": 32,
    }


def test_a_panel_has_fewer_tasks_where_they_would_repeat():
    panel = textcraft_panel("eval", depths=[1], tasks=5000, distractors=0)
    assert len(goals_of(recipe_book(), "eval", 1)) <= len(panel) < 5000


def test_panels_that_there_are_not():
    with pytest.raises(ConfigError, match=r"eval_dataset=validation .*Try: env.textcraft.eval_dataset=eval"):
        textcraft_panel("validation")
    with pytest.raises(ConfigError, match=r"depths=\[5\]: no recipe tree has depth 5. Try: env.textcraft.depths=\[1,2"):
        textcraft_panel("eval", depths=[5])


# --- environment


def test_gymnasiums_and_our_own_check(capsys, monkeypatch):
    check_env(gymnasium.make("hiper/TextCraft-v0").unwrapped, skip_render_check=True)
    monkeypatch.delitem(sys.modules, "torch", raising=False)  # of other tests in this process
    name = "agent_system.environments.textcraft.tasks:check_env_tasks"
    own_check.main([name, "--max-steps", "12", "--episodes", "3"])
    assert "no findings" in capsys.readouterr().out


def test_an_episode_by_hand():
    env = TextCraftEnv(max_steps=9)
    observation, info = env.reset(options=CAKE)
    assert observation == "Inventory: nothing." and info["task_kind"] == "depth_2" and not info["won"]
    observation, reward, terminated, truncated, info = env.step("get 1 egg")
    assert (observation, reward, terminated, truncated) == ("Got 1 egg. Inventory: 1 egg.", 0.0, False, False)
    for action in ("get 3 milk bucket", "get 3 wheat", "get 1 honey bottle", "craft 3 sugar using 1 honey bottle"):
        assert not env.step(action)[2]
    observation, reward, terminated, truncated, info = env.step(
        "craft 1 cake using 3 milk bucket, 2 sugar, 3 wheat, 1 egg"
    )
    assert observation.endswith("Inventory: 1 sugar, 1 cake.")
    assert (reward, terminated, truncated, info["won"], info["score"]) == (10.0, True, False, True, 1.0)
    with pytest.raises(ResetNeeded):
        env.step("inventory")


def test_the_step_limit_truncates_and_a_win_on_the_last_step_terminates():
    planks = {"goal": "oak planks"}
    for limit, last in ((1, (False, True)), (2, (True, False))):
        env = TextCraftEnv(max_steps=limit)
        env.reset(options=planks)
        results = [env.step(a) for a in ("get 1 oak logs", "craft 4 oak planks using 1 oak logs")[:limit]]
        assert results[-1][2:4] == last and results[-1][4]["won"] is last[0]
        with pytest.raises(ResetNeeded):
            env.step("inventory")


def test_without_the_inventory_observations_are_the_answers():
    env = TextCraftEnv(show_inventory=False)
    env.reset(options=CAKE)
    assert [env.step(a)[0] for a in ("get 1 egg", "inventory", "dance")] == [
        "Got 1 egg.",
        "Inventory: 1 egg.",
        "Nothing happens: an action is craft ... using ..., get ... or inventory.",
    ]


def test_a_seed_draws_the_task_where_none_is_named():
    tasks = [TextCraftEnv().reset(seed=seed)[1]["task"] for seed in (1, 1, 2, 3)]
    assert tasks[0] == tasks[1] and len(set(tasks)) == 3
    env = TextCraftEnv()
    assert [env.reset(seed=seed, options=CAKE)[1]["task"] for seed in (1, 2)].count(
        env.reset(options=CAKE)[1]["task"]
    ) == 2


@pytest.mark.parametrize("limit", [0, -1, True, 2.5])
def test_a_step_limit_that_is_none(limit):
    with pytest.raises(ConfigError, match=r"env.max_steps=.*Try: env.max_steps=40"):
        TextCraftEnv(max_steps=limit)


# --- player


def play(task, *, seed=0, limit=40, slips=0.0, show_inventory=True, **habits):
    """(won, turns, sub-goals) of an episode. Whatever the player is led to, its action is admissible."""
    env, rng = TextCraftEnv(limit, show_inventory), random.Random(seed)
    observation, info = env.reset(options=dict(task.options))
    player, subgoal, subgoals, turns, ended = Crafter(info["task"], rng, **habits), "", [], 0, False
    while not ended:
        actions = info["admissible_actions"]
        advice = player.advise(observation, actions, subgoal)
        assert advice.action in actions
        assert advice.switch == (KEEP if advice.subgoal == subgoal else SWITCH)
        subgoals += [advice.subgoal] if advice.switch == SWITCH else []
        subgoal = advice.subgoal
        action = rng.choice(actions) if rng.random() < slips else advice.action
        observation, _, terminated, truncated, info = env.step(action)
        turns, ended = turns + 1, terminated or truncated
    return info["won"], turns, subgoals


@pytest.mark.parametrize("part", PARTS)
def test_the_player_wins_every_task_of_every_panel(part, panels):
    for task in panels[part].tasks:
        won, turns, subgoals = play(task)
        assert won and turns <= 36, task
        assert len(subgoals) >= int(task.kind.removeprefix("depth_")), "a sub-goal for each item on the longest path"


def test_it_wins_without_seeing_the_inventory(panels):
    assert all(play(task, show_inventory=False)[0] for task in panels["eval"].tasks)


@given(st.integers(0, 255), st.integers(0, 10**6), st.booleans())
@settings(max_examples=60, deadline=None)
def test_it_wins_after_any_mistakes(panels, index, seed, show_inventory):
    task = panels["eval"].tasks[index]
    habits = {"idle": 0.2, "distracted": 0.5}
    assert play(task, seed=seed, limit=300, slips=0.3, show_inventory=show_inventory, **habits)[0]


def test_its_subgoals_are_the_items_in_post_order():
    env = TextCraftEnv()
    _, info = env.reset(options={"goal": "painting", "distractors": 3})
    goal, commands = parse_task(info["task"])
    player = Crafter(info["task"], random.Random(0))
    assert goal == "painting" and set(player.subgoals) == {f"make {recipe.item}" for recipe in commands}

    class Painting:
        options = {"goal": "painting", "distractors": 3}

    won, _, subgoals = play(Painting)
    assert won and subgoals[-1] == "make painting" and len(set(subgoals)) == len(subgoals)
    assert [name for name in subgoals if name.endswith(("planks", "stick"))][-1] == "make stick"


def test_habits_cost_turns_but_not_the_task(panels):
    tasks = panels["test"].tasks[:128]
    careful = [play(task, limit=200) for task in tasks]
    for habit in ({"idle": 0.4}, {"distracted": 1.0}):
        played = [play(task, limit=200, **habit) for task in tasks]
        assert all(won for won, *_ in played)
        assert sum(turns for _, turns, _ in played) > 1.2 * sum(turns for _, turns, _ in careful)


def test_the_text_of_another_game_is_refused():
    with pytest.raises(TaskError, match="the player cannot read the task 'put a mug in cabinet'"):
        Crafter("put a mug in cabinet", random.Random(0))
