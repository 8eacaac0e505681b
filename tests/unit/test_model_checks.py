# SPDX-License-Identifier: Apache-2.0
"""The model: where it is, and whether it fits its tokenizer and the lengths of the run."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_config import check, composed
from omegaconf import OmegaConf
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, Qwen2Config

from agent_system.errors import ConfigError
from recipe.hiper.configuration.model import (
    CPU_HEAD_SIZES,
    check_model,
    expand_model_paths,
    is_folder_name,
)


def make_model_folder(folder, vocabulary: int, tokens: int, positions: int = 1024, template: str | None = "x"):
    words = {f"w{index}": index for index in range(tokens)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="w1", pad_token="w2", unk_token="w0", chat_template=template
    ).save_pretrained(folder)
    Qwen2Config(
        vocab_size=vocabulary, hidden_size=32, num_attention_heads=1, max_position_embeddings=positions
    ).save_pretrained(folder)
    return [f"actor_rollout_ref.model.path={folder}"]


def size_of_tokenizer(folder) -> int:
    from transformers import AutoTokenizer

    return len(AutoTokenizer.from_pretrained(folder))


def test_a_model_that_fits_its_tokenizer_is_accepted(tmp_path):
    make_model_folder(tmp_path, 100, 100)
    overrides = make_model_folder(tmp_path, size_of_tokenizer(tmp_path), 100)
    check_model(composed(*overrides))


def test_a_vocabulary_longer_than_the_tokenizer_has_to_be_accepted(tmp_path):
    overrides = make_model_folder(tmp_path, 500, 100)
    with pytest.raises(ConfigError, match=r"vocabulary \(500\) is longer.*Try: trainer.allow_padded_vocabulary=true"):
        check_model(composed(*overrides))
    check_model(composed(*overrides, "trainer.allow_padded_vocabulary=True"))


def test_a_vocabulary_shorter_than_the_tokenizer_is_never_accepted(tmp_path):
    overrides = make_model_folder(tmp_path, 50, 100)
    with pytest.raises(ConfigError, match="does not belong to this tokenizer"):
        check_model(composed(*overrides, "trainer.allow_padded_vocabulary=True"))


def test_what_else_can_be_wrong_with_a_model_is_reported_together(tmp_path):
    overrides = make_model_folder(tmp_path, 500, 100, positions=256, template=None)
    with pytest.raises(ConfigError) as refused:
        check_model(composed(*overrides))
    message = str(refused.value)
    assert "(3 problems)" in message and "no chat template" in message
    assert "= 304 exceeds the 256 positions of the model. Try: data.max_prompt_length=208" in message


@pytest.mark.parametrize("path", ["/models/x", "./x", "../x", "~/x", "a/b/c", ".", "~"])
def test_names_of_folders(path):
    assert is_folder_name(path)


@pytest.mark.parametrize("path", ["Qwen/Qwen2.5-1.5B-Instruct", "gpt2", "somewhere"])
def test_names_of_the_hub(path):
    assert not is_folder_name(path)
    check(composed(f"actor_rollout_ref.model.path={path}"))


def test_a_folder_is_looked_into_whatever_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="actor_rollout_ref.model.path=folder: holds no config.json"):
        check(composed("actor_rollout_ref.model.path=folder"))
    (tmp_path / "folder" / "config.json").write_text("{}")
    check(composed("actor_rollout_ref.model.path=folder"))


def test_a_model_in_the_home_folder(tmp_path, monkeypatch):
    """transformers would take ~/model for a name on the hub."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    config = composed('actor_rollout_ref.model.path="~/model"')
    check(config)
    expand_model_paths(config)
    assert config.actor_rollout_ref.model.path == config.critic.model.path == str(tmp_path / "model")
    untouched = composed()
    expand_model_paths(untouched)
    assert OmegaConf.is_interpolation(untouched.critic.model, "path")


def test_a_model_that_cannot_be_read_is_no_traceback(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "no_such_model"}')
    with pytest.raises(ConfigError, match="cannot be read .*Try: actor_rollout_ref.model.path="):
        check_model(composed(f"actor_rollout_ref.model.path={tmp_path}"))


def test_head_sizes_are_those_of_vllm():
    """Read from the source: the import would start vLLM's platform."""
    import vllm

    source = (Path(vllm.__file__).parent / "v1" / "attention" / "backends" / "cpu_attn.py").read_text(encoding="utf-8")
    assert f"return {list(CPU_HEAD_SIZES)}" in source
