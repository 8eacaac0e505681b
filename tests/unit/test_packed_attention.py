# SPDX-License-Identifier: Apache-2.0
"""Packed rows attend to themselves only, and get what each would get alone."""

import importlib.util

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen2Config, Qwen2ForCausalLM

from verl_plugins.packed.attention import NAME, Rows, packed_attention


def model(attention, layers=2, **settings):
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        attn_implementation=attention,
        **settings,
    )
    return Qwen2ForCausalLM(config).double()


def packed(sizes):
    torch.manual_seed(1)
    ids = torch.randint(64, (1, sum(sizes)))
    positions = torch.cat([torch.arange(size) for size in sizes]).unsqueeze(0)
    return ids, positions


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.booleans())
def test_a_packed_row_gets_the_logits_and_gradients_it_would_get_alone(sizes, checkpointed):
    ids, positions = packed(sizes)
    ours, reference = model(NAME), model("sdpa")
    if checkpointed:
        ours.train()
        ours.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    logits = ours(input_ids=ids, position_ids=positions, use_cache=False).logits.squeeze(0)
    alone = torch.cat([reference(input_ids=row, use_cache=False).logits.squeeze(0) for row in ids.split(sizes, dim=1)])
    torch.testing.assert_close(logits, alone, atol=1e-10, rtol=1e-8)

    weights = torch.randn_like(logits)
    (logits * weights).sum().backward()
    (alone * weights).sum().backward()
    for (name, ours_p), (_, reference_p) in zip(ours.named_parameters(), reference.named_parameters(), strict=True):
        torch.testing.assert_close(ours_p.grad, reference_p.grad, atol=1e-9, rtol=1e-7, msg=name)


def test_a_sliding_window_is_kept():
    windows = dict(use_sliding_window=True, sliding_window=3, max_window_layers=0)
    ids, positions = packed([8])
    ours = model(NAME, **windows)(input_ids=ids, position_ids=positions, use_cache=False).logits
    reference = model("sdpa", **windows)(input_ids=ids, position_ids=positions, use_cache=False).logits
    whole = model("sdpa")(input_ids=ids, position_ids=positions, use_cache=False).logits
    torch.testing.assert_close(ours, reference, atol=1e-10, rtol=1e-8)
    assert (ours - whole).abs().max() > 1e-6


def test_bounds_follow_the_positions_and_the_rows_of_the_batch():
    rows = Rows.of(torch.tensor([[0, 1, 2, 0, 1], [0, 0, 1, 2, 3]]))
    assert rows.bounds.tolist() == [0, 3, 5, 6, 10] and rows.longest == 4


def test_padded_batches_and_unknown_features_are_refused_with_the_override_that_mends_it():
    ids = torch.randint(64, (2, 4))
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    with pytest.raises(ValueError, match="use_remove_padding=True"):
        model(NAME)(input_ids=ids, attention_mask=mask, use_cache=False)
    q = torch.zeros(1, 1, 2, 4)
    positions = torch.arange(2).unsqueeze(0)
    with pytest.raises(ValueError, match="softcap"):
        packed_attention(None, q, q, q, None, position_ids=positions, softcap=30.0)
    with pytest.raises(ValueError, match="dropout"):
        packed_attention(None, q, q, q, None, position_ids=positions, dropout=0.1)


@pytest.mark.skipif(
    importlib.util.find_spec("flash_attn") is None or not torch.cuda.is_available(),
    reason="the package flash-attn, which is optional, and a GPU are needed",
)
def test_on_a_gpu_it_is_flash_attention():
    sizes = [300, 17, 845, 1]
    ids, positions = (x.cuda() for x in packed(sizes))
    logits = [
        model(attention).to("cuda", torch.bfloat16)(input_ids=ids, position_ids=positions, use_cache=False).logits
        for attention in (NAME, "flash_attention_2")
    ]
    torch.testing.assert_close(*logits, atol=2e-2, rtol=2e-2)
