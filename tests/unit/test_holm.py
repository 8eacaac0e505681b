# SPDX-License-Identifier: Apache-2.0
"""Comparisons of estimators, corrected for their number: worked by hand, and the figures of docs/results.md."""

from __future__ import annotations

import importlib
import random
import sys
from math import atan, pi, sqrt
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def benchmark():
    """The modules `holm` and `estimators` of benchmarks/, whose scripts import each other by their plain names."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    before = set(sys.modules)
    try:
        yield importlib.import_module("holm"), importlib.import_module("estimators")
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
        for name in set(sys.modules) - before:
            if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(ROOT / "benchmarks")):
                del sys.modules[name]


def test_the_smallest_of_m_counts_m_times_the_next_m_minus_1_times(benchmark):
    holm = benchmark[0].holm
    # Sorted: 0.01 * 4, 0.02 * 3, 0.03 * 2 = 0.06 (not below the 0.06 before it), 0.5 * 1.
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.04, 0.03]) == pytest.approx([0.06, 0.06])  # 0.03 * 2, then max(0.06, 0.04)
    assert holm([0.7, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_p_value_is_that_of_students_t(benchmark):
    p_value = benchmark[0].p_value
    # Means 3 and 1, deviation 2: t = 2 / (2 * sqrt(1/2 + 1/2)) = 1. One degree of freedom is Cauchy's distribution,
    # two: P(|T| > t) = 1 - t / sqrt(2 + t^2).
    assert p_value([2, 4], [0, 2], 2.0, 1) == pytest.approx(1 - 2 * atan(1) / pi)
    assert p_value([2, 4], [0, 2], 2.0, 2) == pytest.approx(1 - 1 / sqrt(3))
    assert p_value([0, 2], [2, 4], 2.0, 2) == pytest.approx(1 - 1 / sqrt(3))
    # 97.5% quantile with 33 degrees of freedom, from a printed table.
    assert p_value([2.0345 * sqrt(2)], [0.0], 1.0, 33) == pytest.approx(0.05, abs=1e-5)


def test_the_family_wise_error_is_bounded(benchmark):
    """Of 2,000 families of 22 comparisons without a difference at most 5% may hold a significant one."""
    draw = random.Random(0)
    errors = sum(min(benchmark[0].holm([draw.random() for _ in range(22)])) < 0.05 for _ in range(2000))
    assert 0.03 < errors / 2000 < 0.065  # 1 - (1 - 0.05 / 22)^22 = 4.9%; standard error 0.5%


def test_the_page_of_results_has_the_figures_of_the_recorded_runs(benchmark):
    """docs/results.md lists which of the 22 comparisons remain significant; docs/results/estimators.json decides."""
    estimators = benchmark[1]
    runs = estimators.read_known(ROOT / "docs" / "results" / "estimators.json")
    budget = min(run.turns[-1] for run in runs)
    table = estimators.significance(runs, budget)
    assert table.startswith("22 comparisons")
    assert table.split("\n\n")[1] in (ROOT / "docs" / "results.md").read_text("utf-8")
    lines = [line.split(" | ") for line in table.splitlines() if line.startswith("| ") and "variant" not in line]
    assert len(lines) == 22
    remaining = {(line[0].removeprefix("| "), line[1]) for line in lines if float(line[4].strip("<| ")) < 0.05}
    assert remaining == {
        ("grpo_flat", "turn_gae_1"),
        ("grpo_flat", "turn_gae_0.95"),
        ("gae_flat", "turn_gae_1"),
        ("gae_flat", "turn_gae_0.95"),
        ("hae_living_short", "turn_gae_0.95"),
        ("gigpo", "turn_gae_1"),
    }


def test_without_a_spread_or_a_control_there_is_nothing_to_correct(benchmark):
    estimators = benchmark[1]
    runs = estimators.read_known(ROOT / "docs" / "results" / "estimators.json")
    alone = [run for run in runs if run.seed == 0]
    assert estimators.significance(alone, 7000) == ""
    assert estimators.significance([run for run in runs if run.variant == "gigpo"], 7000) == ""
