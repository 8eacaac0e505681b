# SPDX-License-Identifier: Apache-2.0
"""A tiny warm start, from games to a model that plays."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from agent_system.environments.alfworld.game_spec import GameSpec
from agent_system.environments.alfworld.games import find_games
from agent_system.errors import ConfigError, TaskError
from agent_system.plan_execute.protocol import Reply, parse_reply
from recipe.hiper.cold_start.build import MANIFEST, WarmStartSpec, make_warm_start, weights_digest
from recipe.hiper.cold_start.demonstrations import IDLE_ACTION, DemonstrationSpec, collect
from recipe.hiper.cold_start.evaluate import PlaySpec, panel, play
from recipe.hiper.cold_start.model import ModelSpec
from recipe.hiper.cold_start.train import TrainSpec

SPEC = WarmStartSpec(
    games=GameSpec(train=6, valid_seen=6, valid_unseen=6, seed=11),
    demonstrations=DemonstrationSpec(episodes=12),
    model=ModelSpec(hidden=32, layers=2, heads=2, intermediate=64),
    train=TrainSpec(steps=40, batch=8, lr=5e-3, warmup=5),
    held_out_episodes=6,
    threads=1,
)


def make(out: Path, games: Path, spec: WarmStartSpec = SPEC, workers: int = 2):
    return make_warm_start(out, games, spec, workers=workers, progress=False)


@pytest.fixture(scope="module")
def warm_start(tmp_path_factory, generated_games) -> Path:
    out = tmp_path_factory.mktemp("warm") / "model"
    make(out, generated_games)
    return out


def test_the_folder_loads_as_any_hugging_face_model(warm_start):
    model = AutoModelForCausalLM.from_pretrained(warm_start)
    tokenizer = AutoTokenizer.from_pretrained(warm_start)
    assert model.config.model_type == "qwen2" and model.dtype == torch.float32
    assert model.config.vocab_size == len(tokenizer) == model.get_output_embeddings().weight.shape[0]
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id
    recorded = json.loads((warm_start / MANIFEST).read_text())
    assert recorded["weights_digest"] == weights_digest(model)
    assert recorded["parameters"] == model.num_parameters()


def test_training_lowers_the_loss(warm_start):
    report = json.loads((warm_start / MANIFEST).read_text())["report"]
    assert report["last_loss"] < 0.6 * report["first_loss"]


def test_the_same_seed_gives_the_same_weights_and_another_one_others(warm_start, generated_games, tmp_path):
    make(tmp_path / "again", generated_games, workers=1)
    make(tmp_path / "other", generated_games, replace(SPEC, train=replace(SPEC.train, seed=1)))
    digests = [
        json.loads((folder / MANIFEST).read_text())["weights_digest"]
        for folder in (warm_start, tmp_path / "again", tmp_path / "other")
    ]
    assert digests[0] == digests[1] != digests[2]


def test_a_finished_folder_is_reused_and_a_foreign_one_is_refused(warm_start, generated_games, tmp_path):
    before = (warm_start / "model.safetensors").stat().st_mtime_ns
    report = make(warm_start, generated_games)
    assert report.last_loss == json.loads((warm_start / MANIFEST).read_text())["report"]["last_loss"]
    assert (warm_start / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="other settings"):
        make(warm_start, generated_games, replace(SPEC, max_vocabulary=500))
    with pytest.raises(ConfigError, match="not a warm start"):
        make(tmp_path, generated_games)
    damaged = tmp_path / "damaged"
    shutil.copytree(warm_start, damaged)
    (damaged / MANIFEST).write_text("{")
    with pytest.raises(TaskError, match="delete"):
        make(damaged, generated_games)


def test_demonstrations_do_not_depend_on_the_number_of_workers_and_parse(generated_games):
    games = [game.path for game in find_games(generated_games, "train")]
    spec = DemonstrationSpec(episodes=8, idle=0.0, hasty=0.0, slips=0.3, wrong_subgoals=0.2)
    one, two = (collect(games, spec, workers=workers, progress=False) for workers in (1, 2))
    assert one == two
    assert len(one) == 8 and sum(d.won for d in one) >= 7
    examples = [e for d in one for e in d.examples]
    assert all(parse_reply(e.reply).valid for e in examples)
    # Recoveries are shown: turns after an action that the environment did not understand.
    assert any("obs: Nothing happens." in e.prompt for e in examples)
    # Every demonstrated action can be copied from the prompt.
    assert all(parse_reply(e.reply).action in e.prompt.split("actions: ")[1] for e in examples)


def test_players_look_around_and_forget_as_often_as_the_spec_says(generated_games):
    games = [game.path for game in find_games(generated_games, "train") if "pick_clean" in str(game.path)]
    careful = DemonstrationSpec(episodes=8, idle=0.0, hasty=0.0, slips=0.0, wrong_subgoals=0.0, max_turns=60)

    def replies(**habits) -> list[list[Reply]]:
        played = collect(games, replace(careful, **habits), workers=1, progress=False)
        assert all(d.won for d in played)
        return [[parse_reply(e.reply) for e in d.examples] for d in played]

    assert not any(reply.action == IDLE_ACTION for episode in replies() for reply in episode)
    idle = [reply.action == IDLE_ACTION for episode in replies(idle=0.5) for reply in episode]
    assert 0.25 < sum(idle) / len(idle) < 0.75

    def first_plan(episode: list[Reply]) -> str:
        """The first word of the sub-goal that follows the first find."""
        return next(reply.subgoal.split()[0] for reply in episode if not reply.subgoal.startswith("find"))

    assert {first_plan(episode) for episode in replies()} == {"clean"}
    assert {first_plan(episode) for episode in replies(hasty=1.0)} == {"put"}


def test_the_evaluation_plays_the_whole_panel_and_is_reproducible(warm_start, generated_games):
    model = AutoModelForCausalLM.from_pretrained(warm_start).eval()
    tokenizer = AutoTokenizer.from_pretrained(warm_start)
    games = panel(generated_games, "valid_unseen", 6)
    spec = PlaySpec(max_turns=4)
    first, second = (play(model, tokenizer, games, spec, progress=False) for _ in range(2))
    assert [e.kind for e in first.episodes] == [t.kind for t in games.tasks]
    assert str(first) == str(second)
    assert all(e.turns == 4 or e.won for e in first.episodes)
    assert "6 tasks" in str(first) and "95% Wilson interval" in str(first)
    with pytest.raises(ConfigError, match="7"):
        panel(generated_games, "valid_unseen", 7)
