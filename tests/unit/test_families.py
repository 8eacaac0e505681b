# SPDX-License-Identifier: Apache-2.0
"""Families of environments: their sections of the configuration, their data, and the names of the cache's folders."""

from __future__ import annotations

import inspect
import re
import textwrap

import pytest
from key_readers import keys_read
from made_config import CONFIG_FOLDER, check, composed, settings_of
from omegaconf import OmegaConf

from agent_system.environments.alfworld.game_spec import GameSpec
from agent_system.environments.alfworld.generate import MANIFEST
from agent_system.environments.alfworld.rooms import TaskKind
from agent_system.environments.webshop.shop import ShopManifest
from agent_system.errors import ConfigError
from agent_system.plan_execute.prompts import PromptStyle
from agent_system.rollout.agent_loop import EpisodeSettings
from agent_system.rollout.environment_registry import (
    ENVIRONMENTS,
    FAMILY_NAMES,
    EnvironmentSpec,
    environment_spec,
    plan_execute_name,
)
from recipe.hiper.cold_start.demonstrations import DemonstrationSpec
from recipe.hiper.cold_start.pretrained import PretrainedSpec
from recipe.hiper.configuration.section import Section, read_section
from recipe.hiper.configuration.settings import verl_config
from recipe.hiper.tasks import alfworld, webshop
from recipe.hiper.tasks.alfworld import ALFWorldSettings, GeneratedGames
from recipe.hiper.tasks.families import FAMILIES, SECTIONS, family_of
from recipe.hiper.tasks.preparation import cache_folder, small_model


@pytest.fixture(autouse=True)
def no_published_games(monkeypatch, tmp_path):
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    monkeypatch.setenv("HIPER_CACHE", str(tmp_path / "cache"))


def prepared_family(config):
    """The family of a configuration after its data folder was prepared."""
    family = family_of(settings_of(config))
    return family, family.prepare(cache_folder(), progress=False)


# ---------------------------------------------------------------------------------------------------------------------
# The tables.


def test_every_environment_belongs_to_a_family_and_every_family_has_environments():
    assert (
        {spec.family for spec in ENVIRONMENTS.values()} == set(FAMILY_NAMES) == set(SECTIONS) == set(FAMILIES) - {None}
    )
    assert {name: plan_execute_name(name) for name in FAMILY_NAMES} == {
        "alfworld": "alfworld/AlfredTWEnvOptions",
        "webshop": "WebshopOptions",
        "textcraft": "TextCraftOptions",
    }


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({}, "it has tasks=None and family=None"),
        ({"tasks": lambda split: None, "family": "webshop"}, "and family=webshop"),
        ({"family": "chess"}, "family=<one of alfworld, webshop, textcraft>"),
    ],
)
def test_an_environment_has_either_tasks_or_a_family(arguments, reason, monkeypatch):
    spec = EnvironmentSpec("a game", PromptStyle.PLAN_EXECUTE, PromptStyle.PLAN_EXECUTE_COMPACT, **arguments)
    monkeypatch.setattr(alfworld, "UNFIT", spec, raising=False)
    with pytest.raises(ConfigError, match=f"needs either tasks=.*{reason}.*Try: "):
        environment_spec("recipe.hiper.tasks.alfworld:UNFIT")


def test_prompts_of_ones_own_for_the_games_of_a_family(monkeypatch):
    spec = EnvironmentSpec("a house", PromptStyle.FLAT, PromptStyle.FLAT_COMPACT, family="alfworld")
    monkeypatch.setattr(alfworld, "HOUSE", spec, raising=False)
    assert isinstance(
        family_of(settings_of(composed("env.env_name=recipe.hiper.tasks.alfworld:HOUSE"))), FAMILIES["alfworld"]
    )


@pytest.mark.parametrize(
    ("overrides", "style"),
    [
        (["env.prompt_style=full"], "plan_execute_rules_first"),
        (["env.prompt_style=full", "env.prompt_layout=rules_last"], "plan_execute"),
        (["env.prompt_style=full", "env.short_keep=true"], "plan_execute_short_rules_first"),
        (["env.prompt_style=full", "env.env_name=alfworld/AlfredTWEnv"], "flat_rules_first"),
        (["env.prompt_style=compact"], "plan_execute_compact"),
        (["env.prompt_style=compact", "env.prompt_layout=rules_last"], "plan_execute_compact"),
    ],
)
def test_a_rollout_has_the_style_and_the_layout_of_the_configuration(overrides, style):
    assert EpisodeSettings.from_config(verl_config(composed(*overrides))).style.value == style


def test_demonstrations_in_another_layout_make_another_model():
    def digest(prompt_style: str, layout: str) -> str:
        style = environment_spec("alfworld/AlfredTWEnvOptions").style(prompt_style, layout)
        return PretrainedSpec("smollm2", DemonstrationSpec(style=style)).digest

    assert digest("full", "rules_first") != digest("full", "rules_last")
    assert digest("compact", "rules_first") == digest("compact", "rules_last")


@pytest.mark.parametrize("name", SECTIONS)
def test_the_defaults_of_a_section_are_those_of_the_shipped_configuration(name):
    shipped = OmegaConf.to_container(OmegaConf.load(CONFIG_FOLDER / "env" / f"{name}.yaml"))[name]
    assert SECTIONS[name]().model_dump() == shipped
    assert list(SECTIONS[name].model_fields) == list(shipped)


def leaves(section: type[Section], prefix: str = ""):
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def sections_in(section: type[Section], prefix: str = ""):
    yield section, prefix
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from sections_in(field.annotation, f"{prefix}{name}.")


@pytest.mark.parametrize("name", SECTIONS)
def test_every_key_of_a_section_is_described_and_read(name):
    source = textwrap.dedent(inspect.getsource(FAMILIES[name])).replace("self.settings", "config")
    read = keys_read(source)
    for section, prefix in sections_in(SECTIONS[name]):
        source = re.sub(r"\bself\b", "config", textwrap.dedent(inspect.getsource(section)))
        read |= {prefix + key for key in keys_read(source)}
    for key, field in leaves(SECTIONS[name]):
        assert field.description, f"{key} has no docstring"
        assert key in read, f"nothing reads {key}"


WRONG_VALUES = {
    "alfworld": {
        "data_dir": [3, ""],
        "games": ["mine", None],
        "eval_dataset": ["test", None],
        "generated.dir": [3, ""],
        "generated.receptacles": ["all", "4-6", 5, [5], [6, 4], [2, 6], [4.5, 6], [4, 6, 8]],
        "generated.same_kind": [0, 1.5, None],
        "generated.objects_per_receptacle": [0, True],
        "generated.max_instances": [0, "3"],
        "generated.task_types": [[], ["juggle"], ["look_at_obj_in_light"] * 2, 3],
        "generated.train": [0, 1.5],
        "generated.valid_seen": [-1, 1.5],
        "generated.valid_unseen": [-1, None],
        "generated.seed": [1.5, None],
    },
    "webshop": {
        "data_dir": [3, ""],
        "source": [3, ""],
        "use_small": [1, "yes"],
        "tagger": ["best", None],
        "human_goals": [1, None],
        "split": ["random", None],
        "eval_dataset": ["train", None],
        "train_goals": [0, 1.5, True],
        "early_terminate_penalty": [1, float("nan"), "-1"],
        "observation_mode": ["text", 1],
        "generated.products": [5, 99, 200.5],
        "generated.seed": [1.5, None],
    },
    "textcraft": {
        "depths": [[], [0], [5], [1, 1], [1.5], ["1"], 2, "all", None],
        "distractors": [-1, 1.5, None],
        "train_tasks": [0, 1.5, True],
        "held_out_tasks": [0, "64"],
        "eval_dataset": ["train", None],
        "show_inventory": [1, "yes", None],
    },
}


@pytest.mark.parametrize("name", SECTIONS)
def test_no_wrong_value_passes_and_each_message_says_what_to_type(name):
    assert set(WRONG_VALUES[name]) == {key for key, _ in leaves(SECTIONS[name])}
    for key, values in WRONG_VALUES[name].items():
        for value in values:
            *outer, last = key.split(".")
            section = {last: value} if not outer else {outer[0]: {last: value}}
            result, problems = read_section(SECTIONS[name], section, f"env.{name}")
            assert result is None and len(problems) == 1, (key, value)
            assert f"env.{name}.{key}" in problems[0] and f"Try: env.{name}.{key}=" in problems[0], problems[0]


# ---------------------------------------------------------------------------------------------------------------------
# Names of folders in the cache. A cache of an earlier version is used further: these names never change.


@pytest.mark.parametrize(
    ("overrides", "profile", "games", "model"),
    [
        ([], "cpu", "5b6125be170b", "bb617bfcb9aa"),
        (["env.env_name=alfworld/AlfredTWEnv"], "cpu", "5b6125be170b", "e2c0c4d26d65"),
        (["env.short_keep=true"], "cpu", "5b6125be170b", "8b23486955cc"),
        (
            [
                "warm_start.steps=10",
                "warm_start.episodes=20",
                "warm_start.model.hidden=64",
                "warm_start.seed=3",
                "env.history_length=2",
            ],
            "cpu",
            "5b6125be170b",
            "3c4b0a08fb4b",
        ),
        (
            [
                "env.alfworld.generated.task_types=look_at_obj_in_light",
                "env.alfworld.generated.receptacles=null",
            ],
            "cpu",
            "d432ea73a14a",
            "5f6b6f6df236",
        ),
        (["warm_start.enable=true", "actor_rollout_ref.model.path=null"], "gpu", "df85d504f75a", "2321baad2969"),
    ],
)
def test_folders_of_alfworld_keep_their_names(overrides, profile, games, model, tmp_path, monkeypatch):
    folders = []
    monkeypatch.setattr(alfworld, "generate_games", lambda folder, spec, **more: folders.append(folder))
    config = composed(*overrides, profile=profile)
    family, data_dir = prepared_family(config)
    assert folders == [data_dir] == [tmp_path / "cache" / "games" / f"alfworld-{games}"]
    data_dir.mkdir(parents=True)
    (data_dir / MANIFEST).write_text("{}")
    spec = family.cold_start_spec(data_dir, settings_of(config).warm_start)
    assert spec.digest[:12] == model


@pytest.mark.parametrize(
    ("override", "folder"),
    [
        ("env.seed=5", "e9a996b0110b"),
        ("env.webshop.generated.products=200", "923ccf38f3ad"),
        ("env.webshop.tagger=spacy", "d9c353eccf13"),
    ],
)
def test_folders_of_shops_keep_their_names(override, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(webshop, "prepare_shop", lambda folder, spec, **more: None)
    _, data_dir = prepared_family(composed(override, environment="webshop"))
    assert data_dir == tmp_path / "cache" / "shops" / folder


@pytest.mark.parametrize(
    ("env_name", "tagger", "model"),
    [
        ("WebshopOptions", "lexicon@1", "7d560ab10913"),
        ("Webshop", "lexicon@1", "9a18ce0dd486"),
    ],
)
def test_folders_of_models_of_a_shop_keep_their_names(env_name, tagger, model, monkeypatch):
    assert shop_model_digest(env_name, tagger, monkeypatch)[:12] == model


def test_each_tagger_has_a_model_of_its_own(monkeypatch):
    taggers = ("lexicon@1", "lexicon@2", "spacy:en_core_web_sm@3.8.0", "spacy:en_core_web_sm@3.9.0")
    digests = [shop_model_digest("WebshopOptions", tagger, monkeypatch) for tagger in taggers]
    assert len(set(digests)) == len(taggers)


def shop_model_digest(env_name: str, tagger: str, monkeypatch) -> str:
    class Shop:
        manifest = ShopManifest(1, {"items_shuffle.json": "abc"}, tagger, 0, {}, {})

    monkeypatch.setattr(webshop, "open_shop", lambda folder: Shop)
    config = composed(f"env.env_name={env_name}", environment="webshop")
    return family_of(settings_of(config)).cold_start_spec(None, settings_of(config).warm_start).digest


# ---------------------------------------------------------------------------------------------------------------------
# ALFWorld's games.


def test_published_games_that_are_not_there(tmp_path):
    family = family_of(settings_of(composed("env.alfworld.games=published")))
    (problem,) = family.validate(needs_model=False)
    assert "ALFWORLD_DATA is not set" in problem and "Try: env.alfworld.data_dir=<folder" in problem
    assert "env.alfworld.games=generated" in problem
    with pytest.raises(ConfigError, match="ALFWORLD_DATA is not set"):
        family.prepare(tmp_path, progress=False)
    config = composed("env.alfworld.games=published", f"env.alfworld.data_dir={tmp_path}")
    with pytest.raises(ConfigError, match=rf"env.alfworld.data_dir={tmp_path} holds no json_2.1.1.*Try: env"):
        family_of(settings_of(config)).prepare(tmp_path, progress=False)


def test_a_folder_in_alfworld_data_without_games(tmp_path, monkeypatch):
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    (problem,) = family_of(settings_of(composed("env.alfworld.games=published"))).validate(needs_model=False)
    assert f"ALFWORLD_DATA={tmp_path} holds no json_2.1.1" in problem and "Try: env.alfworld.data_dir=" in problem


def test_a_data_folder_without_games_is_not_silently_replaced(tmp_path):
    config = composed("env.alfworld.games=auto", f"env.alfworld.data_dir={tmp_path}")
    with pytest.raises(ConfigError, match=r"Try:.* or env.alfworld.data_dir=null env.alfworld.games=generated"):
        family_of(settings_of(config)).prepare(tmp_path, progress=False)
    with pytest.raises(ConfigError, match=r"\(1 problem\)(.|\n)*holds no json_2.1.1"):
        check(config)


@pytest.mark.parametrize(
    ("games", "folder", "notice"),
    [
        ("generated", "json_2.1.1", "is not read with env.alfworld.games=generated"),
        ("auto", "", "holds no json_2.1.1"),
    ],
)
def test_games_that_are_named_and_not_played_are_mentioned(games, folder, notice, tmp_path, monkeypatch):
    (tmp_path / folder).mkdir(exist_ok=True)
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    monkeypatch.setattr(alfworld, "generate_games", lambda folder, spec, **more: None)
    family, data_dir = prepared_family(composed(f"env.alfworld.games={games}"))
    (line,) = family.inspect_panels(data_dir, {})
    assert notice in line and f"ALFWORLD_DATA={tmp_path}" in line


def test_published_games_that_are_played_are_not_mentioned(tmp_path, monkeypatch):
    (tmp_path / "json_2.1.1").mkdir()
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    family, data_dir = prepared_family(composed("env.alfworld.games=auto"))
    assert data_dir == tmp_path and family.inspect_panels(data_dir, {}) == []


def test_zero_games(tmp_path):
    (tmp_path / "json_2.1.1" / "valid_unseen").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"0 playable ALFWorld games.*env.alfworld.data_dir="):
        family_of(settings_of(composed())).panels(tmp_path)


def test_an_unknown_split():
    with pytest.raises(
        ConfigError, match=r"env.alfworld.eval_dataset=test(.|\n)*Try: env.alfworld.eval_dataset=valid_"
    ):
        check(composed("env.alfworld.eval_dataset=test"))


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("valid_seen", "valid_seen"),
        ("valid_unseen", "valid_unseen"),
        ("eval_in_distribution", "valid_seen"),
        ("eval_out_of_distribution", "valid_unseen"),
    ],
)
def test_the_released_names_of_the_splits(name, split):
    assert ALFWorldSettings(eval_dataset=name).eval_split == split


def test_more_held_out_games_than_are_generated():
    with pytest.raises(ConfigError, match=r"\(1 problem\)") as refusal:
        check(composed("env.val_tasks=133"))
    assert "more than env.alfworld.generated.valid_unseen=132" in str(refusal.value)
    remedies = ("env.alfworld.generated.valid_unseen=133", "env.val_tasks=132")
    assert f"Try: {remedies[0]}, or {remedies[1]}" in str(refusal.value)
    check(composed("env.val_tasks=133", remedies[0]))
    check(composed(remedies[1]))


def test_one_kind_of_task_needs_no_brackets():
    family = family_of(settings_of(composed("env.alfworld.generated.task_types=look_at_obj_in_light")))
    assert family.settings.generated.spec().task_types == (TaskKind.LOOK_AT_IN_LIGHT,)


def test_the_default_games_of_the_cpu_profile_are_those_of_game_spec():
    assert family_of(settings_of(composed())).settings.generated.spec() == GameSpec()
    assert GeneratedGames(receptacles=None).spec().receptacles is None


def test_the_small_model_is_not_demonstrated_on_published_games(tmp_path, monkeypatch):
    (tmp_path / "json_2.1.1").mkdir()
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    config = composed("env.alfworld.games=auto")
    with pytest.raises(ConfigError, match="Try: env.alfworld.games=generated, or actor_rollout_ref.model.path="):
        small_model(settings_of(config), family_of(settings_of(config)), tmp_path)
    with pytest.raises(ConfigError, match=r"\(1 problem\)(.|\n)*Try: env.alfworld.games=generated"):
        check(config)
    check(composed("env.alfworld.games=auto", "actor_rollout_ref.model.path=somewhere"))
