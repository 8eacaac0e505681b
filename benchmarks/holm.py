# SPDX-License-Identifier: Apache-2.0
"""Significance of many comparisons at once: two-sided p-values of Student's t, corrected by Holm's method.

Of 22 comparisons without any real difference about one has p < 0.05. Holm (1979) bounds the probability that even one
such error occurs, for any dependence between the comparisons.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import mean

from mpmath import betainc


def p_value(values: Sequence[float], others: Sequence[float], deviation: float, degrees: int) -> float:
    """Two-sided p-value of `mean(values) - mean(others)` under no difference.

    Args:
        deviation: standard deviation within groups (`intervals.pooled_deviation`), in the unit of the values; not 0.
        degrees: its degrees of freedom.
    """
    t = (mean(values) - mean(others)) / (deviation * sqrt(1 / len(values) + 1 / len(others)))
    # P(|T| > |t|) is the regularised incomplete beta function at degrees / (degrees + t^2).
    return float(betainc(degrees / 2, 0.5, 0, degrees / (degrees + t * t), regularized=True))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in the order of the input: a comparison is significant at `alpha` if its value is below it.

    The k-th smallest of m p-values (k from 0) is multiplied by m - k; adjusted values never decrease along the order
    of the p-values and never exceed 1.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for k, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - k) * p_values[index]))
        adjusted[index] = largest
    return adjusted
