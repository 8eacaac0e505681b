# SPDX-License-Identifier: Apache-2.0
"""The overrides of a run, recorded in its folder, so that a finished run is not reused for other settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

FILE = "overrides.json"


def read_overrides(folder: Path) -> list[str]:
    """The overrides that the run in this folder was started with."""
    return json.loads((folder / FILE).read_text(encoding="utf-8"))


def record_overrides(folder: Path, overrides: Sequence[str]) -> None:
    """Record the overrides of a new run, or compare them with those of the run in the folder.

    Raises:
        SystemExit: the run in the folder was started with other overrides.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / FILE).exists():
        (folder / FILE).write_text(json.dumps(list(overrides)), encoding="utf-8")
    elif (recorded := read_overrides(folder)) != list(overrides):
        raise SystemExit(
            f"{folder} holds a run with the overrides {' '.join(recorded)}, not {' '.join(overrides)}. "
            "Try: another folder with --out"
        )
