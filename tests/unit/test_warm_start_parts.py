# SPDX-License-Identifier: Apache-2.0
"""The warm start's tokenizer and the arithmetic of its training and evaluation."""

from __future__ import annotations

import unicodedata

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer
from transformers.utils import logging as transformers_logging

from agent_system.plan_execute.advice import Advice
from agent_system.plan_execute.protocol import parse_reply, token_spans
from recipe.hiper.cold_start.build import WarmStartSpec, _save
from recipe.hiper.cold_start.demonstrations import Example
from recipe.hiper.cold_start.evaluate import wilson_interval
from recipe.hiper.cold_start.model import ModelSpec, build_model
from recipe.hiper.cold_start.tokenizer import MIN_COUNT, NUMBERS, TAGS, find_phrases, train_tokenizer
from recipe.hiper.cold_start.train import EncodedExample, TrainReport, TrainSpec, encode, held_out_measures, train

PROMPT = (
    "task: put a clean mug in desk\nhistory: none\nobs: You arrive at drawer 2. The drawer 2 is closed.\n"
    "subgoal: find mug\nactions: examine drawer 2 | go to desk 1 | go to drawer 1 | open drawer 2\n"
)
TINY = ModelSpec(hidden=16, layers=1, heads=2, intermediate=16)
REPLY = Advice("SWITCH", "find mug", "open drawer 2").reply


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A tokenizer as it is used: saved beside a model's configuration, and loaded by `AutoTokenizer`."""
    folder = tmp_path_factory.mktemp("tokenizer")
    made = train_tokenizer([PROMPT + REPLY] * MIN_COUNT, max_vocabulary=600, model_max_length=512, max_phrases=4)
    made.save_pretrained(folder)
    build_model(TINY, len(made), 0, 1, seed=0).save_pretrained(folder)
    loaded = AutoTokenizer.from_pretrained(folder)
    assert loaded(PROMPT + REPLY).input_ids == made(PROMPT + REPLY).input_ids
    return loaded


@pytest.fixture
def one_thread():
    """Two threads that wait for each other on a busy machine are far slower than one, with models of this size."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


texts = st.one_of(st.text(), st.lists(st.sampled_from([*TAGS, *NUMBERS, " ", "\n", "drawer", "é", "<"])).map("".join))


def test_saving_the_model_draws_no_progress_bar(tokenizer, tmp_path, capfd):
    """It would be printed between the lines of a run whose output is not a terminal."""
    assert transformers_logging.is_progress_bar_enabled()
    model = build_model(TINY, len(tokenizer), 0, 1, seed=0)
    _save(tmp_path / "model", model, tokenizer, WarmStartSpec(), "digest of the games", TrainReport(2.0, 1.0, 1.0, 0.5))
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""
    assert transformers_logging.is_progress_bar_enabled()
    # and there is one to suppress
    model.save_pretrained(tmp_path / "again")
    assert "Writing model shards" in capfd.readouterr().err


@given(texts)
def test_any_text_comes_back(tokenizer, text):
    composed = unicodedata.normalize("NFC", text)
    assert tokenizer.decode(tokenizer(composed, add_special_tokens=False).input_ids) == composed


def test_ids_are_dense_and_padding_differs_from_the_end(tokenizer):
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_a_name_is_two_tokens_and_a_tag_is_one(tokenizer):
    assert [tokenizer.decode([i]) for i in tokenizer(" drawer 2").input_ids] == [" drawer", " 2"]
    for tag in TAGS:
        assert len(tokenizer(tag).input_ids) == 1


def pieces_of(tokenizer, text):
    return [tokenizer.decode([i]) for i in tokenizer(text).input_ids]


def test_repeated_phrases_are_one_token_and_end_before_names(tokenizer):
    assert pieces_of(tokenizer, " | go to drawer 1 | go to desk 1") == [
        " | go to", " drawer", " 1", " | go to", " desk", " 1",
    ]  # fmt: skip


def test_phrases_keep_out_of_names_kinds_tags_and_lines():
    texts = [
        "obs: You see a mug 12 and a big red mug.\nYou see a pan 1 | take it | take it<action>take it</action>"
    ] * MIN_COUNT
    phrases = find_phrases(texts, limit=100)
    assert {" | take it", " and a big red", "obs: You see a", "take it"} <= set(phrases)
    for phrase in phrases:
        assert not any(bad in phrase for bad in ("mug", "pan", "1", "\n", "<", ">"))
        assert phrase.count("|") <= 1 and phrase.rfind("|") < 2, "a list is cut before each of its marks"
    assert "obs: You see a" not in find_phrases(texts[1:], limit=100), "too rare"
    assert len(find_phrases(texts, limit=2)) == 2


def test_given_names_are_one_token_wherever_they_stand_alone():
    text = "task: a mug with color: dark green\nactions: click[cawa] | click[dark green] | click[green]\n"
    made = train_tokenizer([text] * MIN_COUNT, 600, 512, 8, ["cawa", "dark green"], apart=":")
    names = {name: made.convert_tokens_to_ids(name) for name in ("cawa", "dark green")}
    assert made.unk_token_id not in names.values()
    ids = made(text, add_special_tokens=False).input_ids
    assert ids.count(names["dark green"]) == 2 and ids.count(names["cawa"]) == 1
    assert made.decode(ids) == text
    assert names["cawa"] not in made("click[cawas]", add_special_tokens=False).input_ids
    phrases = find_phrases([text] * MIN_COUNT, 8, ["cawa", "dark green"], apart=":")
    assert phrases and not [phrase for phrase in phrases if "cawa" in phrase or "dark green" in phrase or ":" in phrase]


def test_a_chat_is_exactly_the_prompt(tokenizer):
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": PROMPT}], add_generation_prompt=True, return_dict=False
    )
    assert chat == tokenizer(PROMPT).input_ids


def test_the_blocks_of_a_reply_begin_and_end_between_tokens(tokenizer):
    ids = [*tokenizer(REPLY).input_ids, tokenizer.eos_token_id]
    pieces = [tokenizer.decode([i], skip_special_tokens=True) for i in ids]
    spans = token_spans(parse_reply(REPLY), pieces)
    assert spans.switch == (0, 3)
    assert spans.subgoal == (3, 7)
    assert spans.action == (7, len(ids))
    assert spans.value_low == 7


def test_prompts_and_replies_are_encoded_as_the_model_will_see_them(tokenizer):
    (example,) = encode([Example(PROMPT, REPLY)], tokenizer)
    assert tokenizer.decode(example.prompt) == PROMPT
    assert tokenizer.decode(example.reply) == REPLY + tokenizer.eos_token


def test_held_out_measures_against_one_example_at_a_time(tokenizer):
    model = build_model(TINY, len(tokenizer), 0, 1, seed=3).eval()
    examples = [EncodedExample((5, 6, 7), (8, 1)), EncodedExample((9, 5), (6, 7, 8, 1))]
    loss, exact = held_out_measures(model, examples)
    log_probs, expected_exact = [], 0
    for example in examples:
        ids = torch.tensor([example.prompt + example.reply])
        scores = model(input_ids=ids).logits[0].log_softmax(-1)
        at = range(len(example.prompt), example.length)
        log_probs += [scores[i - 1, ids[0, i]].item() for i in at]
        expected_exact += all(scores[i - 1].argmax() == ids[0, i] for i in at)
    assert loss == pytest.approx(-sum(log_probs) / len(log_probs), abs=1e-5)
    assert exact == expected_exact / 2


def test_training_learns_a_reply_by_heart_and_is_reproducible(tokenizer, one_thread):
    spec = TrainSpec(steps=60, batch=4, lr=1e-2, warmup=5)
    examples = encode([Example(PROMPT, REPLY)] * 8, tokenizer)
    sizes = ModelSpec(hidden=32, layers=1, heads=2, intermediate=32)
    models = [build_model(sizes, len(tokenizer), 0, 1, seed=0) for _ in range(2)]
    reports = [train(model, examples, examples, spec, progress=False) for model in models]
    assert reports[0] == reports[1]
    assert reports[0].held_out_exact == 1.0 and reports[0].last_loss < 0.1 < reports[0].first_loss
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_wilson_interval_of_a_known_case():
    # 10 of 20 at 95%: centre 1/2, half-width 1.96 sqrt(1/80 + 1.96^2/1600) / (1 + 1.96^2/20) = 0.2007
    low, high = wilson_interval(10, 20)
    assert (low, high) == pytest.approx((0.2993, 0.7007), abs=1e-4)
    assert wilson_interval(0, 128)[0] == 0.0 and wilson_interval(128, 128)[1] == pytest.approx(1.0)
