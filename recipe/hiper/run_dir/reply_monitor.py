# SPDX-License-Identifier: Apache-2.0
"""An alarm when replies are cut at the length limit, from the metrics of the latest steps. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

CUT_FRACTIONS = ("rollout/cut_fraction", "val/cut_fraction")
"""Fraction of the replies of a step, and of a validation, that reached `data.max_response_length` before their end."""

MOST_CUT = 0.1
"""A few cut replies are the model's doing. With more, the limit decides what is learned."""


def reply_alarm(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """The alarm that holds after the latest of `rows`, in one line that stays the same as long as it lasts.

    Args:
        rows: rows of metrics.jsonl, in the order of their steps. Rows without replies are ignored.
    """
    since = None
    for row in rows:
        fractions = [row[name] for name in CUT_FRACTIONS if row.get(name) is not None]
        if not fractions:
            continue
        if max(fractions) <= MOST_CUT:
            since = None
        elif since is None:
            since = row["step"]
    if since is None:
        return None
    return (
        f"Reply alarm: since step {since} more than {MOST_CUT:.0%} of the replies reach data.max_response_length "
        "before their end; they are cut there, and most of them are malformed. Try: "
        "data.max_response_length=<a larger number>"
    )
