# SPDX-License-Identifier: Apache-2.0
"""Settings of all unit tests."""

from __future__ import annotations

import os

from hypothesis import settings

# A deadline per example is a timing, and timings on a shared machine fail at random. The examples are the same in every
# run, so that a change is judged by what it changes; HYPOTHESIS_PROFILE=random draws others.
settings.register_profile("unit", deadline=None, derandomize=True)
settings.register_profile("random", deadline=None, derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "unit"))
