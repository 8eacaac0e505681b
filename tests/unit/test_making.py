# SPDX-License-Identifier: Apache-2.0
"""What programs that make large folders share."""

from __future__ import annotations

import os

import pytest

from agent_system.processes import usable_cpus


@pytest.mark.parametrize(("quota", "least"), [("150000 100000", 2), ("50000 100000", 1), ("1 100000", 1)])
def test_a_container_gets_what_it_was_given(tmp_path, monkeypatch, quota, least):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert usable_cpus(tmp_path / "cpu.max") == least


@pytest.mark.parametrize("content", ["max 100000\n", "", None])
def test_without_a_quota_there_is_none(tmp_path, monkeypatch, content):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    if content is not None:
        (tmp_path / "cpu.max").write_text(content)
    assert usable_cpus(tmp_path / "cpu.max") == 2
