# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a model or its machine is known before games are generated and models are made."""

from __future__ import annotations

import json

import pytest
from made_config import composed, settings_of
from test_model_checks import make_model_folder

import recipe.hiper.cli.train
from agent_system.errors import ConfigError
from recipe.hiper.cli.train import make_ready


class Prepared(Exception):
    """Raised in place of the preparation, which takes minutes."""


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Records what the preparation would start, which ends there. The hub cannot be reached."""
    monkeypatch.setenv("HIPER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    calls = []

    def prepare(*_, **__):
        calls.append("games")
        raise Prepared

    monkeypatch.setattr(recipe.hiper.cli.train, "prepare", prepare)
    monkeypatch.setattr(recipe.hiper.cli.train, "make_smollm2", lambda *_, **__: calls.append("smollm2"))
    return calls


def ready(*overrides, **groups) -> None:
    config = composed(*overrides, **groups)
    make_ready(config, settings_of(config))


@pytest.mark.parametrize("path", ["nobody/no-such-model", "no-such-model"])
@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_a_model_that_the_hub_does_not_give(started, path, profile):
    with pytest.raises(ConfigError, match=f"actor_rollout_ref.model.path={path} cannot be read"):
        ready(f"actor_rollout_ref.model.path={path}", profile=profile)
    assert started == []


def test_a_base_that_the_hub_does_not_give(started, tmp_path):
    base = "warm_start.base=nobody/no-such-model"
    with pytest.raises(ConfigError, match=f"{base} cannot be read"):
        ready(base)
    assert started == []
    # A machine that trains later has what was made from it.
    made = tmp_path / "cache" / "models" / "warm-start-1"
    made.mkdir(parents=True)
    (made / "cold_start.json").write_text(json.dumps({"spec": {"base": "nobody/no-such-model"}}))
    with pytest.raises(Prepared):
        ready(base)
    assert started == ["games"]


def test_smollm2_is_downloaded_before_the_games_are_generated(started):
    with pytest.raises(Prepared):
        ready(model="smollm2")
    assert started == ["smollm2", "games"]


def test_a_model_of_other_lengths(started, tmp_path):
    overrides = make_model_folder(tmp_path, 100, 100, positions=64)
    with pytest.raises(ConfigError, match="holds no weights"):
        ready(*overrides)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ConfigError, match="exceeds the 64 positions"):
        ready(*overrides, "trainer.allow_padded_vocabulary=true")
    assert started == []
