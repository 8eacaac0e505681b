# SPDX-License-Identifier: Apache-2.0
"""Settings of all unit tests."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# A deadline per example is a timing, and timings on a shared machine fail at random. The examples are the same in every
# run, so that a change is judged by what it changes; HYPOTHESIS_PROFILE=random draws others.
settings.register_profile("unit", deadline=None, derandomize=True)
settings.register_profile("random", deadline=None, derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "unit"))


@pytest.fixture(autouse=True)
def no_other_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever Ray runs on this machine, of a test beside this one, is no cluster that a checked run would use."""
    monkeypatch.setenv("RAY_ADDRESS", "local")
