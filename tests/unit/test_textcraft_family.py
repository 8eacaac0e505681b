# SPDX-License-Identifier: Apache-2.0
"""TextCraft in a run: the family's tasks and messages, and the demonstrations of its scripted player."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest
from made_config import check, composed, settings_of

from agent_system.environments.textcraft.tasks import textcraft_panel
from agent_system.errors import ConfigError
from agent_system.plan_execute.prompts import PromptStyle
from agent_system.plan_execute.protocol import parse_reply
from recipe.hiper.cold_start.craft_demonstrations import (
    CraftDemonstrationSpec,
    _renaming,
    collect_crafting,
    demonstrate,
    exchanged_names,
    pretrained_demonstrations,
)
from recipe.hiper.tasks.families import family_of

SPEC = CraftDemonstrationSpec(episodes=24)


def family(*overrides: str, **options: str):
    return family_of(settings_of(composed(*overrides, environment="textcraft", **options)))


@pytest.fixture(scope="module")
def panels():
    return {"train": textcraft_panel("train", depths=[1, 2, 3], tasks=8, distractors=3)}


def turns(demonstrations):
    return [example for demonstration in demonstrations for example in demonstration.examples]


# --- the family


def test_tasks_of_the_cpu_profile(tmp_path):
    of_run = family()
    assert of_run.prepare(tmp_path, progress=False) is None and not list(tmp_path.iterdir())
    panels = of_run.panels(None)
    assert {name: len(panel) for name, panel in panels.items()} == {"train": 1200, "val": 128}
    kinds = [task.kind for task in panels["val"].tasks]
    assert {kind: kinds.count(kind) for kind in sorted(set(kinds))} == {"depth_1": 43, "depth_2": 43, "depth_3": 42}
    assert {task.options["distractors"] for task in panels["train"].tasks} == {3}
    assert of_run.environment_arguments(None) == {"show_inventory": True}
    assert of_run.describe(tmp_path) == "TextCraft, recipe trees of depth 1, 2, 3, 3 distractors, 128 of eval held out"


def test_held_out_tasks_do_not_depend_on_the_seed_of_the_run():
    assert len({family(f"env.seed={seed}").panels(None)["val"].digest for seed in (0, 1)}) == 1
    other = family("env.textcraft.eval_dataset=test").panels(None)["val"]
    assert all(task.task_id.startswith("test-") for task in other.tasks)


def test_more_held_out_tasks_than_there_are():
    with pytest.raises(ConfigError, match=r"\(1 problem\)") as refusal:
        check(composed("env.val_tasks=200", environment="textcraft"))
    remedies = ("env.textcraft.held_out_tasks=67", "env.val_tasks=192")
    assert f"Try: {remedies[0]}, or {remedies[1]}" in str(refusal.value)
    check(composed("env.val_tasks=200", remedies[0], environment="textcraft"))
    check(composed(remedies[1], environment="textcraft"))


def test_without_distractors_tasks_repeat_and_the_message_says_how_many_there_are():
    of_run = family("env.textcraft.distractors=0", "env.textcraft.depths=[4]", "env.val_tasks=64")
    with pytest.raises(ConfigError, match=r"env.val_tasks=64, but .*eval has \d+ tasks. Try: env.val_tasks="):
        of_run.panels(None)


def digest(*overrides: str, **options: str) -> str:
    config = composed(*overrides, environment="textcraft", **options)
    return family_of(settings_of(config)).cold_start_spec(None, settings_of(config).warm_start).digest


def test_each_setting_of_the_tasks_has_a_model_of_its_own():
    small = [
        digest(),
        digest("env.textcraft.distractors=2"),
        digest("env.textcraft.depths=[1,2]"),
        digest("env.textcraft.show_inventory=false"),
        digest("env.env_name=TextCraft"),
        digest("warm_start.steps=10"),
        digest(model="smollm2"),
    ]
    assert len(set(small)) == len(small)
    assert digest("env.seed=3") == digest("env.textcraft.eval_dataset=test") == small[0]


# --- demonstrations


def test_demonstrations_depend_on_tasks_and_spec_only(panels):
    one, two = (collect_crafting(panels, {}, "train", SPEC, workers=n, progress=False) for n in (1, 2))
    assert one == two and len(one) == 24
    other = collect_crafting(panels, {}, "train", replace(SPEC, seed=1), workers=1, progress=False)
    assert one != other
    assert all(parse_reply(example.reply).valid for example in turns(one))


def test_more_episodes_than_tasks_play_every_task_again(panels):
    played = collect_crafting(panels, {}, "train", replace(SPEC, episodes=60, renamed=0.0), workers=1, progress=False)
    tasks = [demonstration.examples[0].prompt.splitlines()[0] for demonstration in played]
    assert len(played) == 60 and len(set(tasks)) == 24 and sorted(tasks[:24]) == sorted(set(tasks))


@pytest.mark.parametrize("renamed", [0.0, 1.0])
def test_what_is_replied_can_be_read_in_the_prompt(panels, renamed):
    """Exchanged names or not: the action is listed, and a sub-goal names the item of a command."""
    spec = replace(SPEC, renamed=renamed)
    for number, task in enumerate(panels["train"].tasks):
        for example in demonstrate(task, number, spec, {}).examples:
            reply = parse_reply(example.reply)
            shown = dict(line.split(": ", 1) for line in example.prompt.splitlines())
            assert reply.action in shown["actions"].split(" | ")
            made = re.findall(r"craft \d+ ([a-z ]+) using", shown["task"])
            assert reply.subgoal.removeprefix("make ") in made
            assert shown["task"].startswith("craft ") and ". Commands: craft " in shown["task"]


def test_exchanged_names_are_whole_names_and_no_words_of_the_prompts():
    rename = _renaming(random.Random(0))
    words = "history none obs subgoal actions craft using get inventory nothing Inventory Got Crafted from Commands"
    assert rename(words) == words
    assert rename("2 dark oak planks, 1 wool") == "2 dark oak planks, 1 wool", "materials and their items are kept"
    mapped = [rename(name) for name in exchanged_names()]
    assert sorted(mapped) == list(exchanged_names()) and mapped != list(exchanged_names())
    assert rename("3 stone bricks") == f"3 {rename('stone bricks')}"


def test_demonstrations_without_sub_goals_are_the_same_episodes(panels):
    task = panels["train"].tasks[-1]
    planned = demonstrate(task, 3, SPEC, {})
    flat = demonstrate(task, 3, replace(SPEC, style=PromptStyle.FLAT_COMPACT), {})
    assert flat.won == planned.won
    for one, other in zip(flat.examples, planned.examples, strict=True):
        assert one.reply == f"<action>{parse_reply(other.reply).action}</action>"


def test_careful_demonstrations_win_and_careless_ones_take_longer(panels):
    careful = replace(SPEC, idle=0.0, distracted=0.0, slips=0.0, wrong_subgoals=0.0)
    played = {
        name: [demonstrate(task, n, spec, {}) for n, task in enumerate(panels["train"].tasks)]
        for name, spec in (("careful", careful), ("pretrained", pretrained_demonstrations()), ("small", SPEC))
    }
    assert all(demonstration.won for demonstration in played["careful"])
    lengths = [len(turns(demonstrations)) for demonstrations in played.values()]
    assert lengths[0] < lengths[1] < lengths[2]
