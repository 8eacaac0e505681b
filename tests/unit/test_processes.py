# SPDX-License-Identifier: Apache-2.0
"""The number of CPUs that a program may use."""

from __future__ import annotations

import os

import pytest

from agent_system.processes import usable_cpus


@pytest.mark.parametrize(("quota", "cpus"), [("150000 100000", 2), ("50000 100000", 1), ("1 100000", 1)])
def test_the_quota_of_a_container_limits_the_number(tmp_path, monkeypatch, quota, cpus):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert usable_cpus(tmp_path / "cpu.max") == cpus


@pytest.mark.parametrize("content", ["max 100000\n", "", None])
def test_without_a_quota_the_affinity_decides(tmp_path, monkeypatch, content):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    if content is not None:
        (tmp_path / "cpu.max").write_text(content)
    assert usable_cpus(tmp_path / "cpu.max") == 2
