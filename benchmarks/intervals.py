# SPDX-License-Identifier: Apache-2.0
"""Confidence intervals of means over seeds. A table, because SciPy is not among the pinned packages."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, sqrt
from statistics import mean, stdev, variance

_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
      2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045)  # fmt: skip
"""97.5% quantiles of Student's t with 1, 2, ... degrees of freedom."""


def _quantile(degrees: int) -> float:
    # Beyond the table: the first terms of the expansion around the normal distribution's, right to 0.001 there.
    return _T[degrees - 1] if degrees <= len(_T) else 1.960 + 2.372 / degrees + 2.82 / degrees**2


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half-width of its 95% interval (Student's t); infinite for one value."""
    if len(values) < 2:
        return mean(values), inf
    return mean(values), _quantile(len(values) - 1) * stdev(values) / sqrt(len(values))


def pooled_deviation(groups: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Standard deviation within groups, assumed to be the same in all of them, and its degrees of freedom.

    Few runs of each of many kinds say little about the spread of one kind, but together they do: the residual
    deviation of a one-way analysis of variance.

    Raises:
        ValueError: no group has two values.
    """
    of = [group for group in groups if len(group) > 1]
    if not of:
        raise ValueError("no group has two values: nothing is known about the spread within a group")
    degrees = sum(len(group) - 1 for group in of)
    return sqrt(sum((len(group) - 1) * variance(group) for group in of) / degrees), degrees


def difference(values: Sequence[float], others: Sequence[float], deviation: float, degrees: int) -> tuple[float, float]:
    """Mean of `values` minus that of `others`, and half-width of its 95% interval (Student's t, `pooled_deviation`)."""
    half = _quantile(degrees) * deviation * sqrt(1 / len(values) + 1 / len(others))
    return mean(values) - mean(others), half
