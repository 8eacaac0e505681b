# SPDX-License-Identifier: Apache-2.0
"""Token advantages, loss masks and value targets of recorded episodes, to the last bit, for every estimator.

The episodes are such that the bits do not depend on the processor or the number of threads: see
`golden_episodes._of_the_model`. Sums elsewhere are taken in float64 and rounded to float32.
"""

from __future__ import annotations

import golden_files as files
import golden_values as values
import pytest
from golden_cases import ESTIMATORS

RECORDED = files.read(files.ADVANTAGES)
BATCHES = files.read(files.EPISODES)
SHOWN = 12


def test_every_case_is_recorded():
    assert list(RECORDED) == list(ESTIMATORS)


def test_cases_differ():
    """A case that equals another one records nothing of its own."""
    same = [
        (first, second)
        for number, first in enumerate(RECORDED)
        for second in list(RECORDED)[number + 1 :]
        if RECORDED[first] == RECORDED[second]
    ]
    # The preset released sets what the defaults already are, so it equals custom.
    assert all("custom" in first and first.replace("custom", "released") == second for first, second in same), same


@pytest.mark.parametrize("name", RECORDED)
def test_advantages(name):
    case = ESTIMATORS[name]
    recorded, actual = RECORDED[name], values.advantages(case, BATCHES)
    if actual == recorded:
        return
    rows = files.batch_rows(BATCHES[case.batch], case.bootstrap)
    lines = [
        f"{field}, row {number} ({row['episode']} turn {row['turn']})\n"
        f"  recorded {files.readable(before)}\n  now      {files.readable(after)}"
        for field in recorded
        for number, (row, before, after) in enumerate(zip(rows, recorded[field], actual.get(field, rows), strict=True))
        if before != after
    ]
    pytest.fail(f"{name}: {len(lines)} rows differ\n" + "\n".join(lines[:SHOWN]), pytrace=False)
