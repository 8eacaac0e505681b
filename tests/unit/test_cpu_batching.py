# SPDX-License-Identifier: Apache-2.0
"""Micro-batches: rows of similar length together or packed, logits of replies only, and no result changed by it."""

from __future__ import annotations

import math
import random
import time
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensordict import NonTensorStack, TensorDict
from transformers import Qwen2Config, Qwen2ForCausalLM
from verl.utils import tensordict_utils as tu
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead
from verl.workers.engine.utils import prepare_micro_batches
from verl.workers.utils.padding import no_padding_2_padding

from verl_plugins import reply_logits
from verl_plugins.batching import cut_micro_batches, partition_by_length, partition_by_tokens
from verl_plugins.cpu.engines import CPUFSDPEngineWithLMHead
from verl_plugins.packed import attention
from verl_plugins.packed.engines import PackedFSDPEngineWithLMHead

VOCABULARY = 50


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40),
    budget=st.integers(60, 300),
    share=st.floats(0, 1),
)
def test_parts_hold_every_row_once_and_stay_within_the_budget(lengths, budget, share):
    at_least = max(1, int(share * len(lengths)))
    parts = partition_by_length(lengths, budget, at_least)
    assert sorted(row for part in parts for row in part) == list(range(len(lengths)))
    assert len(parts) >= at_least and all(parts)
    for part in parts:
        assert len(part) * max(lengths[row] for row in part) <= budget


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40),
    budget=st.integers(30, 300),
    share=st.floats(0, 1),
)
def test_packed_parts_hold_every_row_once_and_stay_within_the_budget(lengths, budget, share):
    at_least = max(1, int(share * len(lengths)))
    parts = partition_by_tokens(lengths, budget, at_least)
    assert sorted(row for part in parts for row in part) == list(range(len(lengths)))
    assert len(parts) >= at_least and all(parts)
    for part in parts:
        assert len(part) == 1 or sum(lengths[row] for row in part) <= budget


def test_packed_parts_by_hand():
    """30 tokens in parts of 12: three are needed, and three are enough."""
    parts = partition_by_tokens([2, 7, 3, 8, 4, 6], budget=12)
    assert parts == [[3, 0], [1, 2], [5, 4]]  # 8+2, 7+3, 6+4
    assert partition_by_tokens([100, 5, 5], budget=50) == [[0], [1], [2]]
    with pytest.raises(ValueError, match="2 rows cannot be cut into 3"):
        partition_by_tokens([4, 4], budget=100, at_least=3)


def test_a_step_of_a_gpu_run_is_cut_in_no_time_into_as_few_parts_as_possible():
    """6,400 turns of about 850 tokens: verl's method takes seconds, in every pass, while the GPU waits."""
    generator = random.Random(0)
    lengths = [generator.randint(500, 1200) for _ in range(6400)]
    start = time.process_time()
    parts = partition_by_tokens(lengths, 32768)
    assert time.process_time() - start < 0.5
    sums = [sum(lengths[row] for row in part) for part in parts]
    assert len(parts) <= 1.02 * math.ceil(sum(lengths) / 32768)
    assert max(sums) <= 32768 and max(sums) - min(sums) < 1200


def test_packed_rows_are_cut_by_their_tokens_and_padded_ones_by_their_length():
    settings = {"use_dynamic_bsz": True, "max_token_len_per_gpu": 12}
    packed, _ = cut_micro_batches(made_rows([1, 9], [1, 1], use_remove_padding=True, **settings))
    padded, _ = cut_micro_batches(made_rows([1, 9], [1, 1], use_remove_padding=False, **settings))
    assert [len(part) for part in packed] == [2] and [len(part) for part in padded] == [1, 1]


def test_rows_of_a_part_are_neighbours_in_length():
    parts = partition_by_length([10, 50, 11, 49, 12, 48], budget=150)
    assert [sorted(part) for part in parts] == [[1, 3, 5], [0, 2, 4]]


def test_a_row_over_the_budget_is_alone():
    assert partition_by_length([100, 5, 5], budget=50) == [[0], [1, 2]]


def test_more_parts_than_rows_are_refused():
    with pytest.raises(ValueError, match="2 rows cannot be cut into 3"):
        partition_by_length([4, 4], budget=100, at_least=3)


def nested(rows):
    return torch.nested.as_nested_tensor([torch.as_tensor(row) for row in rows], layout=torch.jagged)


def made_rows(prompt_lengths, reply_lengths, seed=0, **settings) -> TensorDict:
    generator = torch.Generator().manual_seed(seed)
    prompts = [torch.randint(VOCABULARY, (length,), generator=generator) for length in prompt_lengths]
    replies = [torch.randint(VOCABULARY, (length,), generator=generator) for length in reply_lengths]
    rows = [torch.cat(pair) for pair in zip(prompts, replies, strict=True)]
    data = TensorDict(
        {
            "input_ids": nested(rows),
            "position_ids": nested([torch.arange(len(row)) for row in rows]),
            "prompts": nested(prompts),
            "responses": nested(replies),
            "value_low": torch.arange(len(rows)),
        },
        batch_size=len(rows),
    )
    defaults = {"use_remove_padding": False, "temperature": 0.7, "calculate_entropy": True}
    tu.assign_non_tensor(data, **(defaults | settings))
    return data


def test_split_rows_are_the_rows_verl_selects():
    data = made_rows([3, 9, 4, 8], [2, 1, 3, 1], use_dynamic_bsz=True, max_token_len_per_gpu=20)
    data["extra_fields"] = NonTensorStack(*[{"row": row} for row in range(4)])
    micro_batches, parts = cut_micro_batches(data)
    assert [len(part) for part in parts] == [2, 2]
    for micro_batch, part in zip(micro_batches, parts, strict=True):
        expected = tu.index_select_tensor_dict(data, part)
        for name in ("input_ids", "position_ids", "prompts", "responses"):
            assert torch.equal(micro_batch[name].values(), expected[name].values())
            assert torch.equal(micro_batch[name].offsets(), expected[name].offsets())
        assert micro_batch["value_low"].tolist() == part
        assert micro_batch["temperature"] == 0.7
        assert "extra_fields" not in micro_batch, "Python objects of rows are not copied"


def test_micro_batches_of_a_fixed_size_are_verls():
    data = made_rows([3, 9, 4, 8], [2, 1, 3, 1], use_dynamic_bsz=False, micro_batch_size_per_gpu=2)
    ours, indices = cut_micro_batches(data)
    theirs, _ = prepare_micro_batches(data)
    assert indices is None and len(ours) == len(theirs) == 2
    assert torch.equal(ours[1]["input_ids"].values(), theirs[1]["input_ids"].values())


def test_align_right():
    rows = torch.tensor([[1, 2, 3, 0], [4, 0, 0, 0], [5, 6, 7, 8]])
    aligned = reply_logits.align_right(rows, torch.tensor([3, 1, 4]), fill=9)
    assert aligned.tolist() == [[9, 1, 2, 3], [9, 9, 9, 4], [5, 6, 7, 8]]


def made_model(attention):
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        attn_implementation=attention,
    )
    return Qwen2ForCausalLM(config).double()


@pytest.fixture(scope="module")
def model():
    return made_model("sdpa")


@pytest.fixture(scope="module")
def packed_model():
    return made_model(attention.NAME)


def outputs(engine_class, model, micro_batch):
    """What the engine class makes of a micro-batch with this model, and the gradient of a sum over the replies."""
    engine = object.__new__(engine_class)  # only the two methods under test, without processes and FSDP
    engine.pad_to_length = engine.use_ulysses_sp = False
    engine.engine_config = SimpleNamespace(entropy_checkpointing=False)
    inputs, arguments = engine.prepare_model_inputs(micro_batch)
    raw = model(**inputs, use_cache=False)
    found = engine.prepare_model_outputs(raw, arguments, micro_batch, None)
    log_probs = no_padding_2_padding(found["log_probs"], micro_batch)
    entropy = no_padding_2_padding(found["entropy"], micro_batch)
    model.zero_grad()
    (log_probs.sin().sum() + entropy.cos().sum()).backward()
    return log_probs, entropy, [parameter.grad.clone() for parameter in model.parameters()], raw.logits.shape


shapes = pytest.mark.parametrize(
    ("prompts", "replies"),
    [([7, 3, 12, 1], [2, 5, 1, 4]), ([5, 5], [3, 3]), ([1], [1]), ([1, 20], [9, 1])],
    ids=["ragged", "even", "smallest", "a reply longer than the other row's"],
)


@shapes
@pytest.mark.parametrize("engine_class", [PackedFSDPEngineWithLMHead, CPUFSDPEngineWithLMHead])
def test_replies_and_gradients_are_those_of_verls_engine(model, engine_class, prompts, replies):
    micro_batch = made_rows(prompts, replies)
    ours = outputs(engine_class, model, micro_batch)
    theirs = outputs(FSDPEngineWithLMHead, model, micro_batch)
    torch.testing.assert_close(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], theirs[1])
    for ours_grad, theirs_grad in zip(ours[2], theirs[2], strict=True):
        torch.testing.assert_close(ours_grad, theirs_grad)
    assert ours[3][1] == max(replies) + 1, "logits of the prompts are not computed"


@shapes
@pytest.mark.parametrize("engine_class", [PackedFSDPEngineWithLMHead, CPUFSDPEngineWithLMHead])
def test_packed_replies_and_gradients_are_those_of_padded_rows(
    model, packed_model, engine_class, prompts, replies, monkeypatch
):
    monkeypatch.setattr(reply_logits, "CHUNK", 3)
    ours = outputs(engine_class, packed_model, made_rows(prompts, replies, use_remove_padding=True))
    theirs = outputs(FSDPEngineWithLMHead, model, made_rows(prompts, replies))
    # The temperature and the probabilities are float32 here, where verl's engine keeps the model's float64.
    torch.testing.assert_close(ours[0].double(), theirs[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours[1].double(), theirs[1], atol=1e-5, rtol=1e-5)
    for ours_grad, theirs_grad in zip(ours[2], theirs[2], strict=True):
        torch.testing.assert_close(ours_grad, theirs_grad, atol=1e-5, rtol=1e-4)
    assert ours[3] == (1, sum(replies), VOCABULARY), "logits of the prompts are not computed"


def test_entropies_are_computed_where_they_are_asked_for():
    logits, labels, temperature = torch.randn(5, 7), torch.arange(5), torch.ones(5)
    both = reply_logits.log_probs_and_entropy(logits, labels, temperature, entropy=True)
    (alone,) = reply_logits.log_probs_and_entropy(logits, labels, temperature, entropy=False)
    assert len(both) == 2 and torch.equal(both[0], alone)


@pytest.mark.parametrize("engine_class", [PackedFSDPEngineWithLMHead, CPUFSDPEngineWithLMHead])
@pytest.mark.parametrize("packed", [False, True])
def test_whole_rows_are_left_to_verl(engine_class, packed):
    micro_batch = made_rows([4, 6], [2, 3], use_remove_padding=packed)
    del micro_batch["responses"]
    engine = object.__new__(engine_class)
    engine.pad_to_length = engine.use_ulysses_sp = False
    inputs, _ = engine.prepare_model_inputs(micro_batch)
    assert "logits_to_keep" not in inputs
