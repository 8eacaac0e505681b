# SPDX-License-Identifier: Apache-2.0
"""Attention's own backward pass on CPU, against PyTorch's in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM

from verl_plugins.cpu.attention import QUERIES, _Attention, attention

HEADS, KEY_HEADS, SIZE = 6, 2, 16


def _inputs(tokens: int, rows: int = 3, dtype: torch.dtype = torch.bfloat16) -> list[Tensor]:
    generator = torch.Generator().manual_seed(tokens)
    heads = (HEADS, KEY_HEADS, KEY_HEADS, HEADS)
    return [(2 * torch.randn(rows, h, tokens, SIZE, generator=generator)).to(dtype) for h in heads]


def _masks(tokens: int, rows: int = 3) -> dict[str, Tensor | None]:
    """Whether a query sees a key: rows padded on the right, rows padded on the left, a sliding window."""
    causal = torch.ones(tokens, tokens, dtype=torch.bool).tril()
    lengths = torch.linspace(tokens, max(1, tokens // 2), rows).long()
    real = torch.arange(tokens) < lengths[:, None]
    return {
        "none": None,
        "right": (causal & real[:, None, :])[:, None],
        "left": (causal & real.flip(1)[:, None, :])[:, None],
        "window": (causal & ~causal.tril(-7))[None, None],
    }


def _run(function, inputs: list[Tensor], mask: Tensor | None) -> tuple[Tensor, list[Tensor]]:
    *operands, gradient = inputs
    operands = [x.clone().requires_grad_() for x in operands]
    out = function(nn.Identity(), *operands, mask)[0]
    weight = gradient.transpose(1, 2)
    if mask is not None:  # the loss never reads tokens that see nothing
        weight = weight * mask.any(-1).transpose(1, 2)[..., None]
    (out * weight).sum().backward()
    return out.detach(), [x.grad for x in operands]


def _reference(module, query, key, value, mask):
    # A query that sees nothing has no defined result in float64; the loss does not read it
    bias = None if mask is None else mask | ~mask.any(-1, keepdim=True)
    out = F.scaled_dot_product_attention(query, key, value, bias, is_causal=bias is None, enable_gqa=True)
    return out.transpose(1, 2), None


@pytest.mark.parametrize("mask", ["none", "right", "left", "window"])
@pytest.mark.parametrize("tokens", [1, 7, QUERIES, QUERIES + 1, 3 * QUERIES - 5])
def test_gradients_are_those_of_attention(tokens, mask):
    """Each is wrong by one percent at most, what two roundings to bfloat16 may do."""
    inputs, visible = _inputs(tokens), _masks(tokens)[mask]
    out, gradients = _run(attention, inputs, visible)
    exact_out, exact = _run(_reference, [x.double() for x in inputs], visible)
    seen = slice(None) if visible is None else visible.any(-1)[:, 0].expand(3, -1)
    assert (out.double() - exact_out)[seen].norm() <= 4e-3 * exact_out[seen].norm()
    for name, found, right in zip("qkv", gradients, exact, strict=True):
        assert found.isfinite().all(), name
        # One token: the gradients of query and key are exactly 0, and differences of rounded numbers here
        assert (found.double() - right).norm() <= 1e-2 * max(right.norm(), exact[-1].norm()), name


@pytest.mark.parametrize("mask", ["none", "right"])
def test_the_forward_pass_is_the_kernel_of_pytorch(mask):
    """To the bit, with the gradient and without: log-probabilities do not depend on which of the two is computed."""
    *operands, _ = _inputs(150)
    visible = _masks(150)[mask]
    repeated = [operands[0], *(x.repeat_interleave(HEADS // KEY_HEADS, 1) for x in operands[1:])]
    kernel = F.scaled_dot_product_attention(*repeated, visible, is_causal=visible is None).transpose(1, 2)
    with_gradient = attention(nn.Identity(), *(x.clone().requires_grad_() for x in operands), visible)[0]
    assert torch.equal(with_gradient, kernel)
    assert torch.equal(attention(_Grouped(), *operands, visible)[0], kernel)


class _Grouped(nn.Module):
    num_key_value_groups = HEADS // KEY_HEADS


def _is_ours(out: Tensor) -> bool:
    nodes, names = [out.grad_fn], []
    while nodes:
        node = nodes.pop()
        if node is not None:
            names.append(type(node).__name__)
            nodes += [parent for parent, _ in node.next_functions]
    return f"{_Attention.__name__}Backward" in names


def test_what_it_does_not_do_is_left_to_pytorch():
    """Float32, dropout, queries behind a cache, and layers or masks that show what follows."""
    *operands, _ = _inputs(9)
    trained = [x.clone().requires_grad_() for x in operands]

    class Encoder(_Grouped):
        is_causal = False

    assert _is_ours(attention(_Grouped(), *trained, None)[0])
    assert not _is_ours(attention(_Grouped(), *(x.float().detach().requires_grad_() for x in operands), None)[0])
    assert not _is_ours(attention(_Grouped(), *trained, None, dropout=0.5)[0])
    assert not _is_ours(attention(Encoder(), *trained, None)[0])
    assert not _is_ours(attention(_Grouped(), *trained, None, is_causal=False)[0])
    assert not _is_ours(attention(_Grouped(), trained[0][:, :, -2:], *trained[1:], None)[0])
    prefix = torch.ones(9, 9, dtype=torch.bool).tril() | (torch.arange(9) < 4)
    assert not _is_ours(attention(_Grouped(), *trained, prefix[None, None])[0])


def test_models_of_transformers_train_with_it():
    """The same name as before (`sdpa`); gradients agree with float32 up to bfloat16, under autocast as well."""
    assert AttentionInterface()["sdpa"] is attention
    config = LlamaConfig(
        vocab_size=64, hidden_size=96, intermediate_size=128, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, attn_implementation="sdpa",
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    ids = torch.randint(64, (3, 40))
    mask = (torch.arange(40) < torch.tensor([40, 33, 21])[:, None]).long()

    def gradients(autocast: bool) -> Tensor:
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            out = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        assert _is_ours(out) == autocast
        (out.float().logsumexp(-1) * mask).sum().backward()
        return torch.cat([p.grad.flatten().clone() for p in model.parameters()])

    exact, found = gradients(False), gradients(True)
    assert F.cosine_similarity(exact, found, dim=0) > 0.999
