# SPDX-License-Identifier: Apache-2.0
"""Seeds depend on what they are for, and on nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent_system.rollout.seeds import derived_seed

PARTS = st.lists(st.integers(0, 10**6), min_size=1, max_size=5)


def test_the_same_on_every_machine():
    assert derived_seed(0, "train", 1, 2, 0) == 6866114794357647288


@given(PARTS, PARTS)
def test_every_part_counts(first, second):
    assert (derived_seed(*first) == derived_seed(*second)) == (first == second)
    assert 0 <= derived_seed(*first) < 2**63
