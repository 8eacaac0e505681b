# SPDX-License-Identifier: Apache-2.0
"""Settings of all unit tests."""

from __future__ import annotations

import os

from hypothesis import settings

# verl settles its platform when it is first imported.
os.environ.setdefault("VERL_PLATFORM", "cpu")

# A deadline per example is a timing, and timings on a shared machine fail at random.
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")
