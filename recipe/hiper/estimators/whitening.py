# SPDX-License-Identifier: Apache-2.0
"""Whitening of advantages over the turns that carry them."""

from __future__ import annotations

import torch
from torch import Tensor


def whiten(x: Tensor, mask: Tensor) -> Tensor:
    """Centre and scale the masked entries: `(x - mean) / sqrt(var + 1e-8)`, zero outside the mask.

    Mean and unbiased variance are taken in float64 over all masked entries, so the caller passes the *global* batch.
    When no two masked entries differ there is nothing to compare: the result is zero everywhere.

    Args:
        x: any shape.
        mask: same shape, bool or 0/1.

    Raises:
        ValueError: shapes differ.
    """
    if x.shape != mask.shape:
        raise ValueError(f"x has shape {tuple(x.shape)} but mask has {tuple(mask.shape)}")
    mask = mask.bool()
    result = torch.zeros_like(x)
    entries = x[mask].double()
    if len(entries) < 2 or entries.min() == entries.max():
        return result
    result[mask] = ((entries - entries.mean()) / torch.sqrt(entries.var() + 1e-8)).to(x.dtype)
    return result
