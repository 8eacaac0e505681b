# SPDX-License-Identifier: Apache-2.0
"""The model: where it is, and whether it fits its tokenizer and the lengths of the run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from made_config import check, composed
from omegaconf import OmegaConf
from tiny_model import make_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config

from agent_system.errors import ConfigError
from agent_system.rollout.environment_registry import FAMILY_NAMES
from recipe.hiper.configuration.model import (
    CPU_HEAD_SIZES,
    check_model,
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


# ---------------------------------------------------------------------------------------------------------------------
# Models that were taught by demonstrations.


def taught(folder, file="cold_start.json", **changes) -> list[str]:
    """A model folder as `cold_start.pretrained` leaves it, for the prompts of env=alfworld with profile=cpu."""
    make_model_folder(folder, 100, 100)
    overrides = make_model_folder(folder, size_of_tokenizer(folder), 100)
    demonstrations = {"style": "plan_execute_compact", "history_length": 1, **changes}
    (folder / file).write_text(json.dumps({"spec": {"base": "smollm2", "demonstrations": demonstrations}}))
    return overrides


@pytest.mark.parametrize("file", ["cold_start.json", "warm_start.json"])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            "env.prompt_style=full",
            "plan_execute_compact, but this run has plan_execute_rules_first .*Try: env.prompt_style=compact",
        ),
        ("env.short_keep=true", "but this run has plan_execute_compact_short .*env.short_keep=false"),
        ("env.history_length=3", "with 1 earlier turns .* env.history_length=3. Try: env.history_length=1"),
        (
            "env.history_observations=0",
            "with observations in all earlier turns, .*history_observations=0. Try: env.history_observations=null",
        ),
        (
            "+data.apply_chat_template_kwargs.enable_thinking=true",
            r"with data.apply_chat_template_kwargs={}, but this run has {enable_thinking:true}",
        ),
    ],
)
def test_a_run_with_other_prompts_than_the_model_was_taught_with_is_refused(tmp_path, file, changed, message):
    overrides = taught(tmp_path, file)
    check_model(composed(*overrides))
    with pytest.raises(ConfigError, match=rf"(?s:.*){message}"):
        check_model(composed(*overrides, changed))


def test_a_style_of_another_environment_has_no_remedy_but_another_model(tmp_path):
    overrides = taught(tmp_path, style="flat_nothink")
    with pytest.raises(ConfigError, match="style flat_nothink, .*Try: actor_rollout_ref.model.path=<another model>"):
        check_model(composed(*overrides))


def test_a_damaged_record_is_named(tmp_path):
    overrides = taught(tmp_path)
    (tmp_path / "cold_start.json").write_text("{")
    with pytest.raises(ConfigError, match="cold_start.json cannot be read"):
        check_model(composed(*overrides))


# ---------------------------------------------------------------------------------------------------------------------
# Prompts and tokenizer.


def with_bytes(folder) -> list[str]:
    """A model whose tokenizer makes a token of nearly every byte."""
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder)
    Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, num_attention_heads=1, max_position_embeddings=8192
    ).save_pretrained(folder)
    return [f"actor_rollout_ref.model.path={folder}"]


def test_the_rules_of_full_prompts_must_leave_room_for_a_turn(tmp_path):
    """They take 259 tokens of SmolLM2's; with 320 in all the run would end at its first turn."""
    overrides = [*with_bytes(tmp_path), "data.max_prompt_length=960"]
    check_model(composed(*overrides))
    with pytest.raises(ConfigError, match="env.prompt_style=full and the chat template take 9.. tokens") as refused:
        check_model(composed(*overrides, "env.prompt_style=full"))
    (enough,) = re.findall(r"Try: (data.max_prompt_length=\d+), or env.prompt_style=compact", str(refused.value))
    check_model(composed(*overrides[:1], "env.prompt_style=full", enough))


def test_a_critic_that_cannot_be_read_or_knows_fewer_tokens(tmp_path):
    for name, size in (("policy", 100), ("critic", 50)):
        (tmp_path / name).mkdir()
        make_model_folder(tmp_path / name, size, 100)
    policy = f"actor_rollout_ref.model.path={tmp_path / 'policy'}"
    padded = "trainer.allow_padded_vocabulary=True"
    with pytest.raises(ConfigError, match="critic knows 50 tokens, but it reads those of .*Try: critic.model.path="):
        check_model(composed(policy, padded, f"critic.model.path={tmp_path / 'critic'}"))
    (tmp_path / "critic" / "config.json").write_text('{"model_type": "no_such_model"}')
    with pytest.raises(ConfigError, match="critic.model.path=.*cannot be read"):
        check_model(composed(policy, padded, f"critic.model.path={tmp_path / 'critic'}"))


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


def test_adapters_need_a_model_to_be_added_to():
    with pytest.raises(ConfigError, match=r"warm_start.lora_rank=8: .*Try: warm_start.lora_rank=0, or model=smollm2"):
        check(composed("warm_start.lora_rank=8"))


@pytest.mark.parametrize("environment", FAMILY_NAMES)
def test_the_positions_of_the_small_model_do_not_bound_another(environment):
    """The published pages of the shop are longer than the small model's positions."""
    check(composed("env.val_tasks=6", environment=environment, model="smollm2"))
