# SPDX-License-Identifier: Apache-2.0
"""The shop's part of the configuration: what is refused, with what mends it, and what a run is given."""

from __future__ import annotations

import json

import gymnasium
import pytest
from made_config import composed, reference

import agent_system.environments  # noqa: F401
from agent_system.environments.webshop import tasks
from agent_system.environments.webshop.generator.catalogue import CatalogueSpec
from agent_system.environments.webshop.goals import Goals, Split
from agent_system.environments.webshop.prepare import ShopSpec, prepare_shop
from agent_system.environments.webshop.shop import open_shop
from agent_system.errors import ConfigError
from recipe.hiper.checks import check_config
from recipe.hiper.prepare import prepare
from recipe.hiper.prepare_webshop import shop_arguments, shop_panels

PROBLEMS = {
    "unknown split": (["env.webshop.split=random"], "not one of fixed, legacy", ["env.webshop.split=fixed"]),
    "training goals held out": (
        ["env.webshop.eval_dataset=train"],
        "not one of eval, test",
        ["env.webshop.eval_dataset=eval"],
    ),
    "no goals": (["env.webshop.train_goals=0"], "at least one is needed", ["env.webshop.train_goals=20000"]),
    "a penalty that rewards": (
        ["env.webshop.early_terminate_penalty=1"],
        "would reward a wrong purchase",
        ["env.webshop.early_terminate_penalty=0"],
    ),
    "an unknown tagger": (
        ["env.webshop.tagger=best"],
        "not one of lexicon, spacy",
        ["env.webshop.tagger=lexicon"],
    ),
    "an empty shop": (
        ["env.webshop.generated.products=5"],
        "a search must have something to find",
        ["env.webshop.generated.products=1000"],
    ),
    "an agent of another environment": (
        ["env.env_name=alfworld/AlfredTWEnvOptions"],
        "belongs to another environment than the one chosen with env=. env=alfworld",
        ["env.env_name=WebshopOptions"],
    ),
    "flat replies under hae": (
        ["env.env_name=Webshop"],
        "needs replies with sub-goals, but env.env_name=Webshop is flat. env.env_name=WebshopOptions",
        ["env.env_name=WebshopOptions"],
    ),
}


def shop_config(*overrides: str, profile: str = "cpu"):
    return composed(*overrides, profile=profile, environment="webshop")


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_is_named_with_what_mends_it(name):
    wrong, message, mended = PROBLEMS[name]
    with pytest.raises(ConfigError) as refusal:
        check_config(shop_config(*wrong), reference("cpu", "webshop"))
    assert message in str(refusal.value) and "(1 problem)" in str(refusal.value)
    check_config(shop_config(*wrong, *mended), reference("cpu", "webshop"))


def test_the_profiles_have_the_shops_own_values():
    cpu, gpu = shop_config(), shop_config(profile="gpu")
    assert (gpu.env.max_steps, gpu.data.max_prompt_length, gpu.env.prompt_style) == (15, 4096, "full")
    assert (cpu.env.max_steps, cpu.data.max_prompt_length, cpu.env.prompt_style) == (10, 960, "compact")
    assert not cpu.algorithm.hae.bootstrap_truncated and not gpu.algorithm.hae.bootstrap_truncated


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    monkeypatch.setenv("HIPER_CACHE", str(tmp_path / "cache"))

    def prepared(*overrides: str):
        fixed = ("actor_rollout_ref.model.path=somewhere", f"run_dir={tmp_path / 'run'}", "env.val_tasks=20")
        steps = ("trainer.total_training_steps=2", "trainer.critic_warmup=0")
        config = shop_config(*fixed, *steps, *overrides)
        check_config(config, reference("cpu", "webshop"))
        return prepare(config, progress=False)

    return prepared


def test_a_run_is_given_its_goals_and_its_shop(prepared, tmp_path):
    config = prepared("env.webshop.generated.products=200", "env.seed=4")
    train, val = (json.loads((tmp_path / "run" / "tasks" / f"{split}.json").read_text()) for split in ("train", "val"))
    assert len(val["tasks"]) == 20 and train["rows"] == 2 * 64
    assert not {task["task_id"] for task in train["tasks"]} & {task["task_id"] for task in val["tasks"]}
    assert config.env.kwargs.observation_mode == "compact" and config.env.kwargs.split == "fixed"
    task = val["tasks"][0]
    env = gymnasium.make(task["env_id"], max_steps=5, **config.env.kwargs)
    observation, info = env.reset(seed=task["seed"], options=task["options"])
    assert observation == "search page" and info["goal_index"] == task["options"]["goal_index"]
    assert info["task_kind"] == task["kind"]


def test_more_held_out_goals_than_there_are(prepared):
    with pytest.raises(ConfigError, match=r"env.val_tasks=900, but eval has \d+ goals. env.val_tasks=\d+"):
        prepared("env.webshop.generated.products=200", "env.val_tasks=900")


def test_legacy_says_how_much_of_its_test_is_trained_on(prepared, capsys):
    config = prepared("env.webshop.split=legacy", "env.seed=6")
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if "training goals too" in line]
    assert int(warning.split("%")[0]) > 90 and "env.webshop.split=fixed" in warning
    assert config.env.kwargs.seed == 6


def test_the_held_out_goals_of_legacy_are_the_same_in_every_run(tmp_path, monkeypatch):
    """Those of the peers at seed 0, whatever the seed and the size of the training panel."""
    prepare_shop(tmp_path, ShopSpec(catalogue=CatalogueSpec(products=400), tagger="lexicon"))
    monkeypatch.setattr(tasks, "LEGACY_WORKERS", 2)

    def panels(*overrides: str):
        config = shop_config("env.webshop.split=legacy", "env.val_tasks=40", *overrides)
        return shop_panels(config, tmp_path), shop_arguments(config, tmp_path)

    (first, _), (other, arguments) = panels(), panels("env.seed=6", "env.webshop.train_goals=20")
    assert other["val"].digest == first["val"].digest
    assert {task.seed for task in first["val"].tasks} == {1000, 1001}
    assert {task.seed for task in other["train"].tasks} == {6, 7} and len(other["train"]) == 20
    task = other["val"].tasks[-1]
    env = gymnasium.make(task.env_id, max_steps=5, **arguments)
    _, info = env.reset(seed=task.seed, options=task.options)
    goal = open_shop(tmp_path).goal(Goals.SYNTHETIC, Split.LEGACY, 1001, task.options["goal_index"])
    assert info["task"] == goal.instruction and arguments["seed"] == 6


def test_a_prepared_shop_is_used_as_it_is(prepared, tmp_path):
    first = prepared("env.webshop.generated.products=200")
    folder = first.env.kwargs.data_dir
    again = prepared(f"env.webshop.data_dir={folder}")  # although the generated catalogue would have 1,000 products
    assert again.env.kwargs.data_dir == folder
