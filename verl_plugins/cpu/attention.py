# SPDX-License-Identifier: Apache-2.0
"""A faster backward pass of attention for training in bfloat16 on CPU.

The forward pass is PyTorch's own kernel (`scaled_dot_product_attention`), so log-probabilities are the same to the bit.
Its backward kernel multiplies small blocks with a matrix product that has no bfloat16 instructions on AMD, inside a
parallel region: in a profile of SmolLM2 it was a third of an update. The backward pass here is the same computation
(FlashAttention, https://arxiv.org/abs/2205.14135, algorithm 4) in matrix products of whole blocks of queries.

Importing this module makes it what transformers uses for `attn_implementation=sdpa`; the CPU engines import it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

QUERIES = 128
"""Queries of a block: a block's scores stay in the cache, and keys behind its last query are not computed."""


class _Attention(torch.autograd.Function):
    """`scaled_dot_product_attention` with the backward pass of this module.

    Shapes: B rows, H heads, K key heads (H = G K), T tokens, D head size. Query head h reads key head h // G.
    """

    @staticmethod
    def forward(ctx, query_BHTD: Tensor, key_BKTD: Tensor, value_BKTD: Tensor, visible: Tensor | None, scale: float):
        group = query_BHTD.shape[1] // key_BKTD.shape[1]
        bias = None
        if visible is not None:
            bias = torch.zeros_like(visible, dtype=query_BHTD.dtype).masked_fill_(~visible, -math.inf)
        out_BHTD, normalizer_BHT = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query_BHTD,
            key_BKTD.repeat_interleave(group, dim=1),
            value_BKTD.repeat_interleave(group, dim=1),
            0.0,
            visible is None,
            attn_mask=bias,
            scale=scale,
        )
        ctx.save_for_backward(query_BHTD, key_BKTD, value_BKTD, visible, out_BHTD, normalizer_BHT)
        ctx.scale = scale
        return out_BHTD

    @staticmethod
    @torch.autocast("cpu", enabled=False)
    def backward(ctx, *gradients: Tensor):
        (grad_BHTD,) = gradients
        query, key, value, visible, out, normalizer = ctx.saved_tensors
        tokens, group = query.shape[2], query.shape[1] // key.shape[1]
        key_float = key.float()
        delta_BHT = (grad_BHTD.float() * out.float()).sum(-1)
        grad_query = torch.empty_like(query)
        grad_key, grad_value = (torch.zeros(x.shape, dtype=torch.float32) for x in (key, value))
        block = math.ceil(tokens / math.ceil(tokens / QUERIES))
        for start in range(0, tokens, block):
            end = min(tokens, start + block)
            if visible is None:
                seen = torch.ones(end - start, end, dtype=torch.bool).tril(start)[None, None]
            else:
                seen = visible[:, :, start:end, :end]
            hidden = ~seen.repeat(1, 1, group, 1)
            query_block, grad_block, normalizer_block, delta_block = (
                # The queries of the heads that share a key head, one behind the other: [rows, key heads, queries, ...]
                x[:, :, start:end].unflatten(1, (-1, group)).flatten(2, 3)
                for x in (query, grad_BHTD, normalizer, delta_BHT)
            )
            keys, values = key[:, :, :end], value[:, :, :end]
            # Scores in float32: an exponent rounded to bfloat16 would make probabilities wrong by percents
            scores = query_block.float() @ key_float[:, :, :end].transpose(-1, -2)
            scores.mul_(ctx.scale).sub_(normalizer_block.unsqueeze(-1))
            probabilities = scores.exp_().masked_fill_(hidden, 0.0)
            grad_scores = (grad_block @ values.transpose(-1, -2)).float()
            grad_scores.sub_(delta_block.unsqueeze(-1)).mul_(probabilities).mul_(ctx.scale)
            grad_scores = grad_scores.to(query.dtype)
            grad_value[:, :, :end] += probabilities.to(query.dtype).transpose(-1, -2) @ grad_block
            grad_key[:, :, :end] += grad_scores.transpose(-1, -2) @ query_block
            grad_query[:, :, start:end] = (grad_scores @ keys).unflatten(2, (group, -1)).flatten(1, 2)
        return grad_query, grad_key.to(key.dtype), grad_value.to(value.dtype), None, None


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others,
) -> tuple[Tensor, None]:
    """See `sdpa_attention_forward` of transformers, which this replaces where it brings something: for training in
    bfloat16 on whole rows, causal, without dropout.

    Args:
        module: the layer; its `is_causal` counts.
        query: `[rows, heads, tokens, head size]`.
        key: `[rows, key heads, tokens, head size]`; key heads divide heads.
        value: like key.
        attention_mask: bool `[rows or 1, 1, tokens, tokens]`, whether a query (third axis) sees a key; None: each query
            sees itself and all before it.
        dropout: of the probabilities.
        scaling: of the scores; None: 1 / sqrt(head size).
        others: what transformers passes along.

    Returns:
        `[rows, tokens, heads, head size]`, and None in place of the probabilities.
    """
    if torch.is_autocast_enabled("cpu"):  # as for the kernel itself; this function is none that autocast knows
        query, key, value = (x.to(torch.get_autocast_dtype("cpu")) for x in (query, key, value))
    trains = torch.is_grad_enabled() and query.requires_grad and query.dtype == torch.bfloat16
    causal = others.get("is_causal") is not False and getattr(module, "is_causal", True)
    whole = query.shape[2] == key.shape[2] and query.shape[3] == value.shape[3]
    # Keys behind a block of queries are left out, so a mask that shows any (of a prefix, say) is not for us
    masked = attention_mask is None or (attention_mask.dtype == torch.bool and not attention_mask.triu(1).any())
    if not (trains and causal and whole and masked) or dropout:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **others)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = _Attention.apply(query, key, value, attention_mask, scale)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register("sdpa", attention)
