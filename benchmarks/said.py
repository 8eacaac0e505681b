# SPDX-License-Identifier: Apache-2.0
"""What a run was told, kept in its folder, so that nobody takes the result of other settings for that of these."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

FILE = "overrides.json"


def said(folder: Path) -> list[str]:
    """The overrides that the run in this folder was given."""
    return json.loads((folder / FILE).read_text(encoding="utf-8"))


def require_same(folder: Path, overrides: Sequence[str]) -> None:
    """Note the overrides of a new run, or compare them with those of the run that is there.

    Raises:
        SystemExit: the run in the folder was given others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / FILE).exists():
        (folder / FILE).write_text(json.dumps(list(overrides)), encoding="utf-8")
    elif (before := said(folder)) != list(overrides):
        raise SystemExit(
            f"{folder} holds a run of {' '.join(before)}; now it is {' '.join(overrides)}. --out elsewhere"
        )
