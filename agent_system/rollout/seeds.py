# SPDX-License-Identifier: Apache-2.0
"""Random seeds that depend on what they are for, not on when they are drawn."""

from __future__ import annotations

from hashlib import sha256


def derived_seed(*parts: int | str) -> int:
    """A seed from 0 to 2**63 - 1, the same for the same parts on every machine and in every process.

    Args:
        parts: what the random numbers are for, for example the run's seed, the step, the task, the sample, the turn.
    """
    digest = sha256("/".join(map(str, parts)).encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") >> 1
