# SPDX-License-Identifier: Apache-2.0
"""Attention over rows packed one behind the other, with what PyTorch itself brings: `attn_implementation=torch_varlen`.

verl packs the rows of a micro-batch without padding (`use_remove_padding`) and asks transformers for flash_attention_2,
whose package has no built wheels on PyPI: every user would compile it or look for a build that fits. The same kernels
are part of PyTorch (`torch.nn.attention.varlen`, here in 2.11). Importing this module makes them known to
transformers; verl imports it where `model.external_lib` names it.

Where the kernels do not apply (CPU, float32) each row goes through scaled_dot_product_attention by itself: the same
numbers, row by row.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import flash_attention_mask

NAME = "torch_varlen"


@dataclass(frozen=True)
class Rows:
    """Where packed rows start and end.

    Attributes:
        bounds: int32 `[rows + 1]`, 0 and the end of each row.
        longest: tokens of the longest row.
    """

    bounds: Tensor
    longest: int

    @classmethod
    def of(cls, position_ids_BT: Tensor) -> Rows:
        """A row starts with each row of the batch, and where a position does not follow the one before it."""
        begins_BT = torch.ones_like(position_ids_BT, dtype=torch.bool)
        begins_BT[:, 1:] = position_ids_BT.diff(dim=1) != 1
        begins_R = begins_BT.flatten().nonzero().flatten()
        bounds = F.pad(begins_R, (0, 1), value=position_ids_BT.numel()).to(torch.int32)
        return cls(bounds, int(bounds.diff().max()))


_latest: tuple[weakref.ref, Rows] | None = None


def _rows(position_ids_BT: Tensor) -> Rows:
    """`Rows.of`, once for all layers: finding the bounds waits for the GPU."""
    global _latest
    if _latest is None or _latest[0]() is not position_ids_BT:
        _latest = (weakref.ref(position_ids_BT), Rows.of(position_ids_BT))
    return _latest[1]


def packed_attention(
    module: nn.Module | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    position_ids: Tensor | None = None,
    **others,
) -> tuple[Tensor, None]:
    """Causal attention within each packed row, as transformers calls it.

    Args:
        module: the attention layer; unused.
        query: `[batch, heads, tokens, head size]`.
        key: `[batch, key heads, tokens, head size]`; key heads divide heads (grouped queries).
        value: like key.
        attention_mask: must be None: rows are packed, not padded.
        scaling: of the scores; None: 1 / sqrt(head size).
        dropout: must be 0.
        sliding_window: each token sees so many tokens, itself included; None: the whole row before it.
        position_ids: `[batch, tokens]`, counting up by one within a row.
        others: what transformers passes along; things that would change the result are refused.

    Returns:
        `[batch, tokens, heads, head size]`, and None in place of the weights, which are never formed.

    Raises:
        ValueError: the rows are not packed, or an option is not supported by these kernels.
    """
    if attention_mask is not None or position_ids is None:
        raise ValueError(
            f"attn_implementation={NAME} needs packed rows. Try: actor_rollout_ref.model.use_remove_padding=True, or "
            "actor_rollout_ref.model.override_config.attn_implementation=sdpa (for a critic: critic.model)"
        )
    refused = [name for name in ("softcap", "s_aux") if others.get(name) is not None]
    if refused or dropout:
        raise ValueError(
            f"attn_implementation={NAME} does not support {', '.join([*refused, *(['dropout'] if dropout else [])])}, "
            "which this model uses. Try: actor_rollout_ref.model.override_config.attn_implementation=flash_attention_2 "
            "(for a critic: critic.model), which needs the package flash-attn"
        )
    batch, _, tokens, _ = query.shape
    query, key, value = (x.transpose(1, 2).flatten(0, 1) for x in (query, key, value))  # [tokens, heads, head size]
    if torch.is_autocast_enabled(query.device.type):
        query, key, value = (x.to(torch.get_autocast_dtype(query.device.type)) for x in (query, key, value))
    rows = _rows(position_ids.expand(batch, tokens) if position_ids.shape[0] != batch else position_ids)
    attend = _kernel if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16) else _row_by_row
    attended = attend(query, key, value, rows, scaling, sliding_window)
    return attended.unflatten(0, (batch, tokens)), None


def _kernel(query: Tensor, key: Tensor, value: Tensor, rows: Rows, scaling: float | None, window: int | None) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    before = -1 if window is None else window - 1
    bounds, longest = rows.bounds, rows.longest
    attended = varlen_attn(query, key, value, bounds, bounds, longest, longest, scale=scaling, window_size=(before, 0))
    return cast(Tensor, attended)  # a tuple only where the log-sum-exp is requested


def _row_by_row(
    query: Tensor, key: Tensor, value: Tensor, rows: Rows, scaling: float | None, window: int | None
) -> Tensor:
    sizes = rows.bounds.diff().tolist()
    attended = []
    for q, k, v in zip(query.split(sizes), key.split(sizes), value.split(sizes), strict=True):
        q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))  # [1, heads, tokens, head size]
        mask = None
        if window is not None:
            places = torch.arange(q.shape[2], device=q.device)
            back = places.unsqueeze(1) - places
            mask = (back >= 0) & (back < window)
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
        )
        attended.append(out.squeeze(0).transpose(0, 1))
    return torch.cat(attended)


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, flash_attention_mask)  # no mask of tokens by tokens: None where nothing is padded
