# SPDX-License-Identifier: Apache-2.0
"""Micro-batches on CPU: rows of similar length together, and logits of replies only, without changing a result."""

from __future__ import annotations

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

from verl_plugins.cpu.batching import align_right, micro_batches_by_length, partition_by_length
from verl_plugins.cpu.engines import CPUFSDPEngineWithLMHead

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
    tu.assign_non_tensor(data, use_remove_padding=False, temperature=0.7, calculate_entropy=True, **settings)
    return data


def test_split_rows_are_the_rows_verl_selects():
    data = made_rows([3, 9, 4, 8], [2, 1, 3, 1], use_dynamic_bsz=True, max_token_len_per_gpu=20)
    data["extra_fields"] = NonTensorStack(*[{"row": row} for row in range(4)])
    micro_batches, parts = micro_batches_by_length(data)
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
    ours, indices = micro_batches_by_length(data)
    theirs, _ = prepare_micro_batches(data)
    assert indices is None and len(ours) == len(theirs) == 2
    assert torch.equal(ours[1]["input_ids"].values(), theirs[1]["input_ids"].values())


def test_align_right():
    rows = torch.tensor([[1, 2, 3, 0], [4, 0, 0, 0], [5, 6, 7, 8]])
    aligned = align_right(rows, torch.tensor([3, 1, 4]), fill=9)
    assert aligned.tolist() == [[9, 1, 2, 3], [9, 9, 9, 4], [5, 6, 7, 8]]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
    )
    return Qwen2ForCausalLM(config).double()


def outputs(engine_class, model, micro_batch):
    """What the engine class makes of a micro-batch with this model, and the gradient of a sum over the replies."""
    engine = object.__new__(CPUFSDPEngineWithLMHead)  # only the two methods under test, without processes and FSDP
    engine.pad_to_length = False
    engine.engine_config = SimpleNamespace(entropy_checkpointing=False)
    inputs, arguments = engine_class.prepare_model_inputs(engine, micro_batch)
    raw = model(**inputs, use_cache=False)
    found = engine_class.prepare_model_outputs(engine, raw, arguments, micro_batch, None)
    log_probs = no_padding_2_padding(found["log_probs"], micro_batch)
    entropy = no_padding_2_padding(found["entropy"], micro_batch)
    model.zero_grad()
    (log_probs.sin().sum() + entropy.cos().sum()).backward()
    return log_probs, entropy, [parameter.grad.clone() for parameter in model.parameters()], raw.logits.shape


@pytest.mark.parametrize(
    ("prompts", "replies"),
    [([7, 3, 12, 1], [2, 5, 1, 4]), ([5, 5], [3, 3]), ([1], [1]), ([1, 20], [9, 1])],
    ids=["ragged", "even", "smallest", "a reply longer than the other row's"],
)
def test_replies_and_gradients_are_those_of_verls_engine(model, prompts, replies):
    micro_batch = made_rows(prompts, replies)
    ours = outputs(CPUFSDPEngineWithLMHead, model, micro_batch)
    theirs = outputs(FSDPEngineWithLMHead, model, micro_batch)
    torch.testing.assert_close(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], theirs[1])
    for ours_grad, theirs_grad in zip(ours[2], theirs[2], strict=True):
        torch.testing.assert_close(ours_grad, theirs_grad)
    assert ours[3][1] == max(replies) + 1, "logits of the prompts are not computed"


def test_whole_rows_are_left_to_verl(model):
    micro_batch = made_rows([4, 6], [2, 3])
    del micro_batch["responses"]
    engine = object.__new__(CPUFSDPEngineWithLMHead)
    engine.pad_to_length = False
    inputs, _ = engine.prepare_model_inputs(micro_batch)
    assert "logits_to_keep" not in inputs
