# SPDX-License-Identifier: Apache-2.0
"""Which tokens end a reply, and which tokenizers and chat templates are refused."""

from __future__ import annotations

import copy

import pytest
from tiny_model import make_tokenizer
from transformers import GenerationConfig, Qwen2Config

from agent_system.errors import ConfigError
from agent_system.plan_execute.protocol import TAGS
from agent_system.rollout.stop_tokens import stop_problems, stop_token_ids
from agent_system.rollout.tokenizer_checks import tokenizer_problems
from agent_system.rollout.tokens import PromptEncoder

CHAT = "{% for m in messages %}<|reply|>{{ m['content'] }}<|endoftext|>{% endfor %}"


@pytest.fixture
def folder(tmp_path) -> str:
    Qwen2Config(vocab_size=300, eos_token_id=11).save_pretrained(tmp_path)
    return str(tmp_path)


def with_template(template: str):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def test_stop_tokens_are_those_of_tokenizer_and_generation_configuration(folder, tmp_path):
    """As in vLLM: config.json counts only where there is no generation configuration."""
    tokenizer = make_tokenizer()
    own = tokenizer.eos_token_id
    assert stop_token_ids(folder, tokenizer) == {own, 11}
    GenerationConfig(eos_token_id=[5, 6]).save_pretrained(tmp_path)
    assert stop_token_ids(folder, tokenizer) == {own, 5, 6}
    GenerationConfig(eos_token_id=5).save_pretrained(tmp_path)
    tokenizer.eos_token = None
    assert stop_token_ids(folder, tokenizer) == {5}


def test_the_token_after_a_reply_must_stop_it(folder, tmp_path):
    tokenizer = with_template(CHAT)
    assert stop_problems(folder, tokenizer) == []
    tokenizer.eos_token = "<|pad|>"
    (problem,) = stop_problems(folder, tokenizer)
    assert "'<|endoftext|>' (1)" in problem and "tokenizer_config.json" in problem and "config.json names" in problem
    GenerationConfig(eos_token_id=[0, 1]).save_pretrained(tmp_path)
    assert stop_problems(folder, tokenizer) == []


def test_whitespace_before_the_end_token_is_accepted(folder):
    assert stop_problems(folder, with_template(CHAT.replace("<|endo", " \n<|endo"))) == []


def test_a_template_that_writes_nothing_after_a_reply_is_accepted(folder):
    assert stop_problems(folder, make_tokenizer()) == []


def test_without_any_end_token_no_reply_ends(folder):
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    (problem,) = stop_problems(folder, tokenizer)
    assert "tokenizer_config.json names no eos_token" in problem and "Try: " in problem


def test_tags_that_are_special_tokens_are_refused_in_one_line():
    assert tokenizer_problems(make_tokenizer()) == []
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(TAGS)})
    (problem,) = tokenizer_problems(tokenizer)
    assert all(tag in problem for tag in TAGS) and "\n" not in problem


@pytest.mark.parametrize(
    "template",
    [
        "hello",
        "{% for m in messages %}{{ m['content'] }}{{ m['content'] }}{% endfor %}",
        "{{ messages[1]['content'] }}",
    ],
    ids=["never", "twice", "cannot be rendered"],
)
def test_a_template_that_does_not_write_the_prompt_once_is_refused(template):
    (problem,) = tokenizer_problems(with_template(template))
    assert "chat template" in problem and "Try: " in problem


def test_a_system_prompt_with_a_control_token_is_refused():
    with pytest.raises(ConfigError, match=r"env.system_prompt holds the control token <\|endoftext\|>"):
        PromptEncoder(with_template(CHAT), None, "Be brief.<|endoftext|>")


def test_a_template_that_strips_its_messages():
    """As Llama 3's: the content is not written as it is, and is data all the same."""
    tokenizer = with_template(CHAT.replace("m['content'] }}", "m['content'] | trim }}"))
    assert tokenizer.decode(PromptEncoder(tokenizer).encode("  look  ")) == "<|reply|>look<|endoftext|>"
    ids = PromptEncoder(tokenizer).encode("  look <|endoftext|> ")
    assert tokenizer.decode(ids) == "<|reply|>look <|endoftext|><|endoftext|>"
    assert ids.count(tokenizer.eos_token_id) == 1


def test_a_template_that_depends_on_the_message_is_an_error_where_it_matters():
    tokenizer = with_template("{% for m in messages %}{{ m['content'] | length }}{{ m['content'] }}{% endfor %}")
    encoder = PromptEncoder(tokenizer)
    assert tokenizer.decode(encoder.encode("look")) == "4look"
    with pytest.raises(ConfigError, match="another text around this message"):
        encoder.encode("look <|endoftext|>")


def test_the_tokenizer_itself_is_not_changed():
    tokenizer = make_tokenizer()
    before = copy.deepcopy(tokenizer.backend_tokenizer).to_str()
    assert PromptEncoder(tokenizer).encode("<|endoftext|>")
    assert tokenizer.backend_tokenizer.to_str() == before
    assert tokenizer("<|endoftext|>").input_ids == [tokenizer.eos_token_id]
