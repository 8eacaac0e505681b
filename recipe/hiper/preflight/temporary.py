# SPDX-License-Identifier: Apache-2.0
"""Temporary files and the clock."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from recipe.hiper.preflight.folders import FolderState, write_problems

EARLIEST = datetime(2025, 1, 1, tzinfo=UTC)
"""Before this project was written."""


def temporary_problems(chosen: FolderState | None, sockets: FolderState) -> Iterator[str]:
    """A message for each folder of temporary files that cannot be written.

    Args:
        chosen: TMPDIR; None: not set.
        sockets: /tmp, where verl puts the sockets of its weight sync whatever TMPDIR says.
    """
    if chosen is not None and chosen.path != sockets.path:
        yield from write_problems(chosen, "TMPDIR", "unset TMPDIR")
    yield from write_problems(
        sockets, "the sockets of verl's weight sync", f"as root: chmod 1777 {sockets.nearest}, or a tmpfs there"
    )


def clock_problems(now: datetime) -> Iterator[str]:
    """A message where the clock is years behind: downloads would fail, because no certificate would be valid yet."""
    if now < EARLIEST:
        yield f"the clock of this machine shows {now:%Y-%m-%d %H:%M} UTC. Try: sudo date -s '<the time>'"
