# SPDX-License-Identifier: Apache-2.0
"""The model: where it is, and whether it fits its tokenizer and the lengths of the run."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_config import check, composed
from omegaconf import OmegaConf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from agent_system.errors import ConfigError
from recipe.hiper.configuration.model import (
    CPU_HEAD_SIZES,
    check_model,
    checkpoint_bytes,
    expand_model_paths,
    is_folder_name,
)

TEMPLATE = "{% for m in messages %}{{ m['content'] }}<end>{% endfor %}"


def make_model_folder(
    folder, vocabulary: int, tokens: int, positions: int = 1024, template: str | None = TEMPLATE, **special_tokens: str
):
    """A model without weights, and a byte-level tokenizer with two special tokens, <end> and <pad>."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *(f"w{index}" for index in range(tokens - len(alphabet) - 2))]
    tokenizer = Tokenizer(models.BPE(vocab={word: index for index, word in enumerate(words)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>", "<pad>"])
    special_tokens = {"eos_token": "<end>", "pad_token": "<pad>", **special_tokens}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=template, **special_tokens).save_pretrained(
        folder
    )
    Qwen2Config(
        vocab_size=vocabulary, hidden_size=32, num_attention_heads=1, max_position_embeddings=positions
    ).save_pretrained(folder)
    return [f"actor_rollout_ref.model.path={folder}"]


def size_of_tokenizer(folder) -> int:
    from transformers import AutoTokenizer

    return len(AutoTokenizer.from_pretrained(folder))


def test_a_model_that_fits_its_tokenizer_is_accepted(tmp_path):
    make_model_folder(tmp_path, 300, 300)
    overrides = make_model_folder(tmp_path, size_of_tokenizer(tmp_path), 300)
    check_model(composed(*overrides))


def test_a_vocabulary_longer_than_the_tokenizer_has_to_be_accepted(tmp_path):
    overrides = make_model_folder(tmp_path, 500, 300)
    with pytest.raises(ConfigError, match=r"vocabulary \(500\) is longer.*Try: trainer.allow_padded_vocabulary=true"):
        check_model(composed(*overrides))
    check_model(composed(*overrides, "trainer.allow_padded_vocabulary=True"))


def test_a_vocabulary_shorter_than_the_tokenizer_is_never_accepted(tmp_path):
    overrides = make_model_folder(tmp_path, 50, 300)
    with pytest.raises(ConfigError, match="does not belong to this tokenizer"):
        check_model(composed(*overrides, "trainer.allow_padded_vocabulary=True"))


def test_what_else_can_be_wrong_with_a_model_is_reported_together(tmp_path):
    overrides = make_model_folder(tmp_path, 500, 300, positions=256, template=None)
    with pytest.raises(ConfigError) as refused:
        check_model(composed(*overrides))
    message = str(refused.value)
    assert "(3 problems)" in message and "no chat template" in message
    assert "= 304 exceeds the 256 positions of the model. Try: data.max_prompt_length=208" in message


def test_a_chat_template_that_ends_replies_with_another_token_is_refused(tmp_path):
    """Every reply would run to the length limit."""
    overrides = make_model_folder(tmp_path, 400, 300, eos_token="<pad>")
    GenerationConfig(eos_token_id=7).save_pretrained(tmp_path)
    accepted = [*overrides, "trainer.allow_padded_vocabulary=True"]
    with pytest.raises(ConfigError) as refused:
        check_model(composed(*accepted))
    message = str(refused.value)
    assert "(1 problem)" in message and str(tmp_path) in message
    assert "ends a reply with '<end>' (298)" in message and "tokenizer_config.json names eos_token='<pad>'" in message
    assert "generation_config.json names eos_token_id=" in message and "(7)" in message and "add 298" in message
    GenerationConfig(eos_token_id=[7, 298]).save_pretrained(tmp_path)
    check_model(composed(*accepted))


def test_a_tokenizer_in_which_a_tag_is_hidden_is_refused(tmp_path):
    overrides = make_model_folder(tmp_path, 400, 300, additional_special_tokens=["<switch>", "</switch>"])
    with pytest.raises(ConfigError, match=r"<switch> </switch> decode to another text.*Try: \"special\": false"):
        check_model(composed(*overrides, "trainer.allow_padded_vocabulary=True"))


def test_a_system_prompt_that_the_template_does_not_write_is_refused(tmp_path):
    template = "{% for m in messages if m['role'] != 'system' %}{{ m['content'] }}<end>{% endfor %}"
    overrides = make_model_folder(tmp_path, 400, 300, template=template)
    overrides.append("trainer.allow_padded_vocabulary=True")
    check_model(composed(*overrides))
    with pytest.raises(ConfigError, match=r"does not write every message exactly once.*env.system_prompt=null"):
        check_model(composed(*overrides, "env.system_prompt=Be brief."))


def test_the_small_model_has_no_system_prompt():
    with pytest.raises(ConfigError, match=r"env.system_prompt='Be brief.'.*Try: env.system_prompt=null"):
        check(composed("env.system_prompt=Be brief."))
    check(composed("env.system_prompt="))  # an empty message, which its template does not show


@pytest.mark.parametrize(
    ("override", "remedy"),
    [
        ("actor_rollout_ref.rollout.ignore_eos=true", "actor_rollout_ref.rollout.ignore_eos=false"),
        ("actor_rollout_ref.model.custom_chat_template=x", "actor_rollout_ref.model.custom_chat_template=null"),
    ],
)
def test_what_changes_replies_or_prompts_in_the_rollout_alone_is_refused(override, remedy):
    with pytest.raises(ConfigError, match=f"Try: {remedy}"):
        check(composed(override))


def test_the_size_of_a_checkpoint_is_estimated_from_the_weights(tmp_path):
    """Policy and critic, each with float32 weights and the two moments of AdamW."""
    sizes = dict(vocab_size=11, hidden_size=4, intermediate_size=6, num_attention_heads=1, num_key_value_heads=1)
    config = Qwen2Config(**sizes, num_hidden_layers=1, tie_word_embeddings=True)
    config.save_pretrained(tmp_path)
    parameters = sum(parameter.numel() for parameter in Qwen2ForCausalLM(config).parameters())
    assert parameters == 11 * 4 + 4 * (4 * 4) + 3 * 4 + 3 * 4 * 6 + 3 * 4, "the tied output layer is stored once"
    assert checkpoint_bytes(str(tmp_path), with_critic=True) == parameters * 4 * 3 * 2
    assert checkpoint_bytes(str(tmp_path), with_critic=False) == parameters * 4 * 3


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
