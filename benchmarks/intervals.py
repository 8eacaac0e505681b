# SPDX-License-Identifier: Apache-2.0
"""Confidence intervals of a mean over seeds. A table, because SciPy is not among the pinned packages."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, sqrt
from statistics import mean, stdev

_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
      2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045)  # fmt: skip
"""97.5% quantiles of Student's t with 1, 2, ... degrees of freedom; beyond them the normal distribution's, 1.96."""


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half-width of its 95% interval (Student's t); infinite for one value."""
    if len(values) < 2:
        return mean(values), inf
    degrees = len(values) - 1
    return mean(values), (_T[degrees - 1] if degrees <= len(_T) else 1.96) * stdev(values) / sqrt(len(values))
