# SPDX-License-Identifier: Apache-2.0
"""Between token ids and text."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from agent_system.plan_execute.protocol import parse_reply, token_spans
from agent_system.rollout.tokens import PromptEncoder, is_cut, reply_pieces

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{{ prefill | default('') }}{% endif %}"
)


def byte_level(texts: Iterator[str] | tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """A byte-level BPE, as Qwen's; without texts every token is one byte."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|end|>", "<|user|>", "<|assistant|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    backend.add_tokens([AddedToken("</switch>", special=False)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", chat_template=TEMPLATE)


BYTES = byte_level()
MERGED = byte_level(("<switch>KEEP</switch><subgoal>find mug</subgoal><action>look</action> 去厨房 😀",) * 50)
STOP = {BYTES.eos_token_id}
BOTH = pytest.mark.parametrize("tokenizer", [BYTES, MERGED], ids=["bytes", "merged"])


@BOTH
@given(text=st.text(max_size=60))
def test_the_pieces_joined_are_the_text(tokenizer, text):
    pieces = reply_pieces(tokenizer, tokenizer(text).input_ids, STOP)
    assert "".join(pieces) == text
    assert len(pieces) == len(tokenizer(text).input_ids)


@BOTH
@given(data=st.data())
def test_any_tokens_have_pieces(tokenizer, data):
    """A model may sample bytes that are no text, and may stop inside a character."""
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=30))
    pieces = reply_pieces(tokenizer, ids, STOP)
    assert len(pieces) == len(ids)
    text_ids = ids[:-1] if ids and ids[-1] in STOP else ids
    assert "".join(pieces) == tokenizer.decode(text_ids, skip_special_tokens=False)


def test_bytes_that_are_no_text_are_text_outside_the_format():
    """Dropping them would make the reply well formed."""
    ids = BYTES("<switch>KEEP</switch><subgoal>x</subgoal><action>look</action>").input_ids + BYTES("é").input_ids[:1]
    pieces = reply_pieces(BYTES, ids, STOP)
    assert pieces[-1] == "�" and not parse_reply("".join(pieces)).valid


def test_a_character_split_over_tokens_belongs_to_the_token_that_completes_it():
    ids = BYTES("é去😀").input_ids
    assert len(ids) == 2 + 3 + 4
    assert reply_pieces(BYTES, ids, STOP) == ["", "é", "", "", "去", "", "", "", "😀"]


@BOTH
def test_only_a_stop_token_at_the_end_adds_nothing(tokenizer):
    end, start = tokenizer.convert_tokens_to_ids(["<|end|>", "<|user|>"])
    ids = [start, *tokenizer("look").input_ids, end, end]
    pieces = reply_pieces(tokenizer, ids, STOP)
    assert pieces[0] == "<|user|>" and pieces[-1] == "" and "".join(pieces) == "<|user|>look<|end|>"
    assert "".join(reply_pieces(tokenizer, [*ids, start], STOP)).endswith("<|end|><|end|><|user|>")
    assert "".join(reply_pieces(tokenizer, [start], {end, start})) == "", "any of several stop tokens"
    assert reply_pieces(tokenizer, [], STOP) == []


def test_a_reply_is_cut_where_its_last_token_is_no_stop_token():
    assert not is_cut([5, 7], {7, 8}) and is_cut([7, 5], {7, 8})


@BOTH
def test_spans_found_in_the_text_are_spans_of_the_tokens(tokenizer):
    reply = "<switch>KEEP</switch>\n<subgoal>find 去 mug</subgoal>\n<action>look</action>"
    ids = [*tokenizer(reply).input_ids, tokenizer.eos_token_id]
    pieces = reply_pieces(tokenizer, ids, STOP)
    spans = token_spans(parse_reply("".join(pieces)), pieces)
    ranges = (spans.switch, spans.subgoal, spans.action)
    blocks = [tokenizer.decode(ids[start:end], skip_special_tokens=True).strip() for start, end in ranges]
    assert blocks == reply.splitlines()
    assert spans.action[1] == len(ids), "the end-of-sequence token is the executor's"


@BOTH
@given(text=st.text(max_size=40))
def test_a_prompt_is_the_template_around_the_text(tokenizer, text):
    encoder = PromptEncoder(tokenizer)
    ids = encoder.encode(text)
    assert tokenizer.decode(ids) == f"<|user|>{text}<|end|><|assistant|>"
    assert encoder.count(text) == len(ids)
    assert ids[0] == tokenizer.convert_tokens_to_ids("<|user|>"), "no special token is put before the template's own"


def test_template_options_reach_the_template():
    ids = PromptEncoder(BYTES, {"prefill": "I say "}).encode("hello")
    assert BYTES.decode(ids).endswith("<|assistant|>I say ")
