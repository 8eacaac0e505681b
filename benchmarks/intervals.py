# SPDX-License-Identifier: Apache-2.0
"""Confidence intervals of means over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, sqrt
from statistics import mean, stdev, variance

from scipy.stats import t as student_t


def _quantile(degrees: int) -> float:
    """97.5% quantile of Student's t distribution."""
    return float(student_t.ppf(0.975, degrees))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half-width of its 95% interval (Student's t); infinite for one value."""
    if len(values) < 2:
        return mean(values), inf
    return mean(values), _quantile(len(values) - 1) * stdev(values) / sqrt(len(values))


def pooled_deviation(groups: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Standard deviation within groups, assumed to be the same in all of them, and its degrees of freedom.

    This is the residual deviation of a one-way analysis of variance. A few runs of each kind determine the spread
    within one kind poorly; all kinds together determine it better.

    Raises:
        ValueError: no group has two values.
    """
    larger = [group for group in groups if len(group) > 1]
    if not larger:
        raise ValueError("no group has two values, so the spread within a group cannot be estimated")
    degrees = sum(len(group) - 1 for group in larger)
    return sqrt(sum((len(group) - 1) * variance(group) for group in larger) / degrees), degrees


def difference(values: Sequence[float], others: Sequence[float], deviation: float, degrees: int) -> tuple[float, float]:
    """Mean of `values` minus that of `others`, and half-width of its 95% interval (Student's t, `pooled_deviation`)."""
    half = _quantile(degrees) * deviation * sqrt(1 / len(values) + 1 / len(others))
    return mean(values) - mean(others), half
