# SPDX-License-Identifier: Apache-2.0
"""The small model of TextCraft, made from nothing by demonstrations."""

from __future__ import annotations

import json
from functools import partial

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from agent_system.environments.textcraft import SETTING
from agent_system.environments.textcraft.tasks import textcraft_panel
from agent_system.errors import ConfigError
from recipe.hiper.cold_start.build import MANIFEST
from recipe.hiper.cold_start.craft_build import CraftWarmStartSpec, make_craft_warm_start
from recipe.hiper.cold_start.craft_demonstrations import CraftDemonstrationSpec, collect_crafting
from recipe.hiper.cold_start.evaluate import PlaySpec, play
from recipe.hiper.cold_start.model import ModelSpec
from recipe.hiper.cold_start.train import TrainSpec


def test_a_model_is_made_reused_refused_and_played(tmp_path):
    panels = {
        split: textcraft_panel(part, depths=[1], tasks=6, distractors=1)
        for split, part in (("train", "train"), ("held_out", "eval"))
    }
    spec = CraftWarmStartSpec(
        demonstrations=CraftDemonstrationSpec(episodes=20),
        model=ModelSpec(hidden=32, layers=1, heads=1, intermediate=64),
        train=TrainSpec(steps=20, batch=8, lr=5e-3, warmup=5),
        max_vocabulary=600,
        held_out_episodes=4,
        threads=1,
    )
    make = partial(make_craft_warm_start, tmp_path / "model", partial(collect_crafting, panels, {}), spec=spec)
    report = make("data", workers=1, progress=False)
    assert report.last_loss < report.first_loss
    assert make("data", workers=1, progress=False) == report
    with pytest.raises(ConfigError, match="other settings or other data"):
        make("other data", workers=1, progress=False)
    assert json.loads((tmp_path / "model" / MANIFEST).read_text())["spec"]["demonstrations"]["renamed"] == 0.5

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    text = "craft 1 cake using 3 milk bucket, 2 sugar; craft 1 sugar using 1 sugar cane"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    played = play(
        model, tokenizer, panels["held_out"], PlaySpec(max_turns=2, environment=SETTING, max_prompt=512), progress=False
    )
    assert [episode.kind for episode in played.episodes] == ["depth_1"] * 6
