# SPDX-License-Identifier: Apache-2.0
"""The section `env.webshop`: what is refused and what to type instead, and what a run in a shop is prepared with."""

from __future__ import annotations

import json

import gymnasium
import pytest
from made_config import check, composed, settings_of

import agent_system.environments  # noqa: F401
from agent_system.environments.check_env import environment_findings
from agent_system.environments.webshop import prepare as webshop_prepare
from agent_system.environments.webshop import tasks
from agent_system.environments.webshop.generator.catalogue import CatalogueSpec
from agent_system.environments.webshop.goals import Goals, Split
from agent_system.environments.webshop.nouns import LexiconTagger
from agent_system.environments.webshop.prepare import ShopSpec, prepare_shop
from agent_system.environments.webshop.shop import open_shop
from agent_system.errors import ConfigError
from recipe.hiper.tasks import webshop
from recipe.hiper.tasks.families import family_of
from recipe.hiper.tasks.preparation import prepare

PROBLEMS = {
    "unknown split": (["env.webshop.split=random"], "env.webshop.split=random: ", ["env.webshop.split=fixed"]),
    "training goals held out": (
        ["env.webshop.eval_dataset=train"],
        "env.webshop.eval_dataset=train: ",
        ["env.webshop.eval_dataset=eval"],
    ),
    "no goals": (["env.webshop.train_goals=0"], "env.webshop.train_goals=0: ", ["env.webshop.train_goals=20000"]),
    "a penalty that rewards": (
        ["env.webshop.early_terminate_penalty=1"],
        "would reward a wrong purchase",
        ["env.webshop.early_terminate_penalty=0"],
    ),
    "an unknown tagger": (
        ["env.webshop.tagger=best"],
        "env.webshop.tagger=best: ",
        ["env.webshop.tagger=lexicon"],
    ),
    "an empty shop": (
        ["env.webshop.generated.products=5"],
        "at least 100 are needed for searches to differ",
        ["env.webshop.generated.products=1000"],
    ),
    "spaCy without its packages": (
        ["env.webshop.tagger=spacy"],
        "spaCy or its model is not installed. Try: env.webshop.tagger=lexicon, or pip install spacy",
        ["env.webshop.tagger=lexicon"],
    ),
    "an agent of another environment": (
        ["env.env_name=alfworld/AlfredTWEnvOptions"],
        "belongs to another environment than the one chosen with env=. Try: env=alfworld",
        ["env.env_name=WebshopOptions"],
    ),
    "flat replies under hae": (
        ["env.env_name=Webshop"],
        "needs replies with sub-goals, but env.env_name=Webshop is flat. Try: env.env_name=WebshopOptions",
        ["env.env_name=WebshopOptions"],
    ),
}


def shop_config(*overrides: str, profile: str = "cpu"):
    return composed(*overrides, profile=profile, environment="webshop")


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_is_named_with_what_to_type(name, monkeypatch):
    monkeypatch.setattr(webshop, "SPACY_PACKAGES", ("no_such_model", "no_such_copy"))
    wrong, message, right = PROBLEMS[name]
    with pytest.raises(ConfigError) as refusal:
        check(shop_config(*wrong))
    assert message in str(refusal.value) and "(1 problem)" in str(refusal.value)
    check(shop_config(*wrong, *right))


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
        prepare(config, check(config), progress=False)
        return config

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
    with pytest.raises(ConfigError, match=r"env.val_tasks=900, but .*=eval has \d+ tasks. Try: env.val_tasks=\d+"):
        prepared("env.webshop.generated.products=200", "env.val_tasks=900")


def test_legacy_says_how_much_of_its_test_is_trained_on(prepared, capsys):
    config = prepared("env.webshop.split=legacy", "env.seed=6")
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if "training goals too" in line]
    assert int(warning.split("%")[0]) > 90 and "env.webshop.split=fixed" in warning
    assert config.env.kwargs.seed == 6


def test_the_held_out_goals_of_legacy_are_the_same_in_every_run(tmp_path, monkeypatch):
    """Those of the peers at seed 0, for any seed and size of the training panel."""
    prepare_shop(tmp_path, ShopSpec(catalogue=CatalogueSpec(products=400), tagger="lexicon"))
    monkeypatch.setattr(tasks, "LEGACY_WORKERS", 2)

    def panels(*overrides: str):
        config = shop_config("env.webshop.split=legacy", "env.val_tasks=40", *overrides)
        family = family_of(settings_of(config))
        return family.panels(tmp_path), family.environment_arguments(tmp_path)

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


class OtherTagger(LexiconTagger):
    """Replaces spaCy's tagger, whose model is not installed: every noun is found as by the lexicon."""

    name = "spacy:en_core_web_sm@3.8.0"


def test_a_shop_and_a_model_for_each_tagger(tmp_path, monkeypatch):
    """Both taggers used to share the folder of the model, and the second one ended the run."""
    by_name = webshop_prepare.tagger_by_name
    monkeypatch.setattr(
        webshop_prepare, "tagger_by_name", lambda name: OtherTagger() if name.startswith("spacy") else by_name(name)
    )
    shops, models = {}, {}
    for tagger in ("lexicon", "spacy", "lexicon"):
        config = shop_config(f"env.webshop.tagger={tagger}", "env.webshop.generated.products=100")
        family = family_of(settings_of(config))
        shop = family.prepare(tmp_path, progress=False)
        assert open_shop(shop).manifest.tagger.startswith(tagger)
        model = family.cold_start_spec(shop, settings_of(config).warm_start).digest
        assert shops.setdefault(tagger, shop) == shop and models.setdefault(tagger, model) == model
    assert len(set(shops.values())) == 2 and len(set(models.values())) == 2


def test_a_prepared_shop_keeps_its_tagger_and_that_is_mentioned(tmp_path):
    prepare_shop(tmp_path, ShopSpec(catalogue=CatalogueSpec(products=400), tagger="lexicon"))
    config = shop_config("env.webshop.tagger=spacy", f"env.webshop.data_dir={tmp_path}", "env.val_tasks=20")
    family = family_of(settings_of(config))
    assert list(family.validate(needs_model=False)) == [], "spaCy is not needed for a shop that is prepared"
    assert family.prepare(tmp_path / "cache", progress=False) == tmp_path
    panels = family.panels(tmp_path)
    arguments = family.environment_arguments(tmp_path)
    assert environment_findings(panels["val"], max_steps=10, episodes=5, seed=0, env_kwargs=arguments) == []
    (notice,) = family.inspect_panels(tmp_path, panels)
    assert "env.webshop.tagger=spacy is not read" in notice and "has nouns from lexicon@1" in notice
    assert "Try: env.webshop.data_dir=null" in notice
