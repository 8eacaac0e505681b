# SPDX-License-Identifier: Apache-2.0
"""The shop before training: the scripted shopper, the warm start in a shop, and the panels of its goals."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from trainer_runs import module_command, run_command
from transformers import AutoModelForCausalLM

from agent_system.environments.tasks import TaskPanel
from agent_system.environments.webshop.env import WebShopEnv
from agent_system.environments.webshop.generator.catalogue import CatalogueSpec
from agent_system.environments.webshop.goals import Goals, Split
from agent_system.environments.webshop.prepare import ShopSpec, prepare_shop
from agent_system.environments.webshop.shop import open_shop
from agent_system.environments.webshop.shopper import BUY, FIND, Shopper
from agent_system.environments.webshop.tasks import parse_task_id, shop_panel
from agent_system.errors import ConfigError, TaskError
from agent_system.plan_execute.prompts import PromptStyle
from agent_system.plan_execute.protocol import parse_reply
from recipe.hiper.cold_start.build import MANIFEST, ShopWarmStartSpec, make_shop_warm_start
from recipe.hiper.cold_start.model import ModelSpec
from recipe.hiper.cold_start.shop_demonstrations import ShopDemonstrationSpec, collect_in_shop, shop_names
from recipe.hiper.cold_start.train import TrainSpec

GAMES = 200


@pytest.fixture(scope="module")
def shop(generated_shop):
    return generated_shop


def visit(env: WebShopEnv, goal: int, **habits: float) -> tuple[bool, list[str]]:
    """Whether a shopper wins a goal, and its sub-goals."""
    page, info = env.reset(options={"goal_index": goal})
    shopper = Shopper(info["task"], random.Random(goal), **habits)
    subgoals, ended = [""], False
    while not ended:
        advice = shopper.advise(page, info["admissible_actions"], subgoals[-1])
        assert parse_reply(advice.reply).valid
        subgoals.append(advice.subgoal)
        page, _, terminated, truncated, info = env.step(advice.action)
        ended = terminated or truncated
    return info["won"], subgoals[1:]


def test_a_careful_shopper_wins_most_goals_and_a_careless_one_few(shop):
    env = WebShopEnv(shop, observation_mode="compact", max_steps=10)
    careful = [visit(env, goal) for goal in range(GAMES)]
    careless = [visit(env, goal, hasty=0.4, blind=0.25, curious=0.2) for goal in range(GAMES)]
    shares = [sum(won for won, _ in visits) / GAMES for visits in (careful, careless)]
    assert shares[0] > 0.65 and 0.2 < shares[1] < 0.5
    won = next(subgoals for has_won, subgoals in careful if has_won and len(subgoals) > 3)
    assert won[0] == FIND and won[-1] == BUY and any(subgoal.startswith("choose ") for subgoal in won)


def test_a_shopper_that_is_handed_a_visit_goes_on_with_it(shop):
    """Whatever was clicked before: its advice depends on the page alone."""
    env = WebShopEnv(shop, observation_mode="compact", max_steps=40)
    won = 0
    for goal in range(60):
        page, info = env.reset(options={"goal_index": goal})
        rng, ended = random.Random(goal), False
        shopper = Shopper(info["task"], rng)
        for turn in range(40):
            admissible = info["admissible_actions"]
            clicks = [action for action in admissible if action.startswith("click[") and "buy" not in action]
            is_clumsy = turn < 6 and clicks and rng.random() < 0.5
            action = rng.choice(clicks) if is_clumsy else shopper.advise(page, admissible, "").action
            page, _, terminated, truncated, info = env.step(action)
            if ended := terminated or truncated:
                break
        assert ended
        won += info["won"]
    assert won > 35


def test_demonstrations_depend_on_the_shop_and_the_spec_only(shop):
    spec = ShopDemonstrationSpec(episodes=40)
    one, two = (collect_in_shop(shop, "train", spec, workers=workers, progress=False) for workers in (1, 2))
    assert one == two and len(one) == 40
    assert one != collect_in_shop(shop, "train", replace(spec, seed=1), workers=1, progress=False)
    examples = [example for demonstration in one for example in demonstration.examples]
    assert all(parse_reply(example.reply).valid for example in examples)
    assert any("history: none\nobs: search page" in example.prompt for example in examples)


def test_renamed_demonstrations_can_be_followed_by_reading_and_not_by_heart(shop):
    """What is clicked is in the task and in the list all the same, and colors are no longer the names of colors."""
    plain, renamed = (
        collect_in_shop(shop, "train", ShopDemonstrationSpec(episodes=60, renamed=share), workers=1, progress=False)
        for share in (0.0, 1.0)
    )
    colors = []
    for demonstrations in (plain, renamed):
        colors.append(set())
        for example in (example for one in demonstrations for example in one.examples):
            reply = parse_reply(example.reply)
            if reply.subgoal.startswith("choose ") and reply.switch == "SWITCH":
                value = reply.action.removeprefix("click[").removesuffix("]")
                task, *_, listed = (" ".join(line.split()) for line in example.prompt.splitlines())
                assert value in task and f"| {reply.action}" in listed
                if reply.subgoal == f"choose color: {value}":
                    colors[-1].add(value)
    offered = {value for number in range(1000) for value in open_shop(shop).product(number).options.get("color", ())}
    assert colors[0] and colors[0] <= offered and not colors[1] <= offered
    assert "color" in shop_names(shop).groups


def test_a_flat_demonstration_is_the_same_episode_without_sub_goals(shop):
    spec = ShopDemonstrationSpec(episodes=10)
    flat = collect_in_shop(shop, "train", replace(spec, style=PromptStyle.FLAT_COMPACT), workers=1, progress=False)
    planned = collect_in_shop(shop, "train", spec, workers=1, progress=False)
    for one, other in zip(flat, planned, strict=True):
        for example, with_subgoal in zip(one.examples, other.examples, strict=True):
            assert "subgoal" not in example.prompt + example.reply
            assert example.reply == f"<action>{parse_reply(with_subgoal.reply).action}</action>"


def test_a_short_demonstration_is_the_same_episode_without_kept_sub_goals(shop):
    spec = ShopDemonstrationSpec(episodes=10)
    short_style = spec.style.with_short_keep
    short = collect_in_shop(shop, "train", replace(spec, style=short_style), workers=1, progress=False)
    copied = collect_in_shop(shop, "train", spec, workers=1, progress=False)
    kept = 0
    for one, other in zip(short, copied, strict=True):
        for example, with_copy in zip(one.examples, other.examples, strict=True):
            reply = parse_reply(example.reply, short_keep=True)
            assert example.prompt == with_copy.prompt and reply.valid
            assert reply.leaves_subgoal_out == (reply.switch == "KEEP")
            assert reply.action == parse_reply(with_copy.reply).action
            kept += reply.leaves_subgoal_out
    assert kept


def test_a_model_is_made_reused_and_refused_in_another_shop(shop, tmp_path):
    spec = ShopWarmStartSpec(
        demonstrations=ShopDemonstrationSpec(episodes=20),
        model=ModelSpec(hidden=32, layers=1, heads=1, intermediate=64),
        train=TrainSpec(steps=20, batch=8, lr=5e-3, warmup=5),
        max_vocabulary=600,
        held_out_episodes=4,
        threads=1,
    )
    report = make_shop_warm_start(tmp_path / "model", shop, spec, workers=1, progress=False)
    assert report.last_loss < report.first_loss
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "model").num_parameters() > 0
    assert make_shop_warm_start(tmp_path / "model", shop, spec, workers=1, progress=False) == report
    other = tmp_path / "other"
    prepare_shop(other, ShopSpec(catalogue=CatalogueSpec(products=100, seed=9), tagger="lexicon"))
    with pytest.raises(ConfigError, match="other settings or other data"):
        make_shop_warm_start(tmp_path / "model", other, spec, workers=1, progress=False)
    assert json.loads((tmp_path / "model" / MANIFEST).read_text())["spec"]["held_out_episodes"] == 4


# ---------------------------------------------------------------- panels


def wishes(shop, panel: TaskPanel, split: Split) -> set[tuple[int, int]]:
    found = set()
    for task in panel.tasks:
        goals, named_split, seed, index = parse_task_id(task.task_id)
        assert (goals, named_split, index) == (Goals.SYNTHETIC, split, task.options["goal_index"])
        table = open_shop(shop).goals(goals, split, seed)
        found.add((int(table.product[index]), int(table.choice[index])))
    return found


def test_panels_of_the_fixed_split_are_disjoint_and_the_same_for_every_seed(shop):
    opened = open_shop(shop)
    panels = [shop_panel(opened, Goals.SYNTHETIC, Split.FIXED, part, 0, 10**6) for part in ("train", "eval", "test")]
    parts = [wishes(shop, panel, Split.FIXED) for panel in panels]
    assert [len(panel) for panel in panels] == [len(part) for part in parts]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    again = shop_panel(opened, Goals.SYNTHETIC, Split.FIXED, "train", 77, 10**6)
    assert again.digest == panels[0].digest
    fewer = shop_panel(opened, Goals.SYNTHETIC, Split.FIXED, "train", 0, 50)
    assert len(fewer) == 50 and {task.task_id for task in fewer.tasks} < {task.task_id for task in panels[0].tasks}


def test_panels_of_the_legacy_split_overlap(shop):
    train = shop_panel(open_shop(shop), Goals.SYNTHETIC, Split.LEGACY, "train", 6, 20_000)
    test = shop_panel(open_shop(shop), Goals.SYNTHETIC, Split.LEGACY, "test", 6, 1280)
    assert {task.seed for task in train.tasks} == set(range(6, 134))
    assert {task.seed for task in test.tasks} == set(range(1000, 1128))
    held_out = wishes(shop, test, Split.LEGACY)
    assert len(held_out & wishes(shop, train, Split.LEGACY)) > 0.9 * len(held_out)


@pytest.mark.parametrize("name", ["pick_and_place-3", "synthetic-fixed-", "synthetic-other-1", "human-fixed-1-2-3"])
def test_names_of_other_tasks_are_refused(name):
    with pytest.raises(TaskError, match="not the name of a WebShop task"):
        parse_task_id(name)


def test_a_model_is_measured_on_held_out_goals(shop, tiny_model, tmp_path):
    arguments = ["--model", str(tiny_model), "--shop", str(shop), "--episodes", "6", "--max-turns", "2"]
    printed = run_command(module_command("recipe.hiper.cold_start.evaluate", *arguments), tmp_path / "log.txt")
    assert "success" in printed and "6 tasks)" in printed and "score" in printed
