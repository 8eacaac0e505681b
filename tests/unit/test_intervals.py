# SPDX-License-Identifier: Apache-2.0
"""Intervals of the benchmarks, of the evaluation and of the credit lab, against published and recorded values."""

from __future__ import annotations

import sys
from math import inf
from pathlib import Path
from statistics import stdev

import numpy as np
import pytest

from recipe.hiper.cold_start.evaluate import wilson_interval
from recipe.hiper.credit_lab.statistics import bootstrap_mean

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

T_TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 7: 2.365, 10: 2.228, 29: 2.045, 60: 2.000, 120: 1.980}
"""97.5% quantiles of Student's t by degrees of freedom, from a printed table."""


@pytest.fixture(scope="module")
def intervals():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import intervals

        yield intervals
    finally:
        sys.path.remove(str(BENCHMARKS))
        sys.modules.pop("intervals", None)


@pytest.mark.parametrize(("degrees", "quantile"), T_TABLE.items())
def test_the_half_width_is_that_of_a_printed_table(intervals, degrees, quantile):
    values = [float(value) for value in range(degrees + 1)]
    centre, half = intervals.interval(values)
    assert centre == pytest.approx(degrees / 2)
    assert half == pytest.approx(quantile * stdev(values) / (degrees + 1) ** 0.5, rel=3e-4)


def test_one_value_has_no_interval(intervals):
    assert intervals.interval([3.0]) == (3.0, inf)


def test_a_difference_by_hand(intervals):
    """Both groups have variance 1, so the pooled deviation is 1 with 4 degrees of freedom."""
    groups = [1.0, 2.0, 3.0], [5.0, 6.0, 7.0]
    deviation, degrees = intervals.pooled_deviation(groups)
    assert (deviation, degrees) == (pytest.approx(1.0), 4)
    centre, half = intervals.difference(*groups, deviation, degrees)
    assert centre == pytest.approx(-4.0) and half == pytest.approx(2.776 * (2 / 3) ** 0.5, rel=3e-4)


@pytest.mark.parametrize(
    ("won", "games", "published"),
    [
        (45, 128, "27.4 43.8"),
        (95, 128, "66.0 81.0"),
        (82, 128, "55.5 71.9"),
        (62, 128, "40.0 57.0"),
        (11, 128, "4.9 14.7"),
    ],
)
def test_wilson_intervals_print_as_published(won, games, published):
    assert " ".join(f"{100 * end:.1f}" for end in wilson_interval(won, games)) == published


def test_the_bootstrap_is_that_of_means_over_drawn_groups():
    """The same groups are drawn as by this loop, so that pages written before show the same intervals."""
    random = np.random.default_rng(5)
    values, cluster = random.normal(size=200), random.integers(7, size=200)
    sums = np.array([values[cluster == group].sum() for group in range(7)])
    counts = np.array([(cluster == group).sum() for group in range(7)])
    generator, means = np.random.default_rng(0), []
    for _ in range(20):
        for drawn in generator.integers(7, size=(50, 7)):
            means.append(sums[drawn].sum() / counts[drawn].sum())
    interval = bootstrap_mean(values, cluster)
    assert interval.value == pytest.approx(values.mean())
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=1e-12)
