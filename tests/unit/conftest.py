# SPDX-License-Identifier: Apache-2.0
"""Settings of all unit tests."""

from __future__ import annotations

from hypothesis import settings

# A deadline per example is a timing, and timings on a shared machine fail at random.
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")
