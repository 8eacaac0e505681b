# SPDX-License-Identifier: Apache-2.0
"""Checkpoints with the files of a real one and a few bytes in each."""

from __future__ import annotations

from pathlib import Path

from recipe.hiper.run_dir.checkpoints import POINTER_FILE, checkpoint_path
from recipe.hiper.run_dir.manifest import write_manifest

FILES = (
    "actor/model_world_size_1_rank_0.pt",
    "actor/optim_world_size_1_rank_0.pt",
    "actor/huggingface/config.json",
    "data.pt",
)


def make_checkpoint(checkpoints: Path, step: int, *, success: float | None = None, complete: bool = True) -> Path:
    """Write a checkpoint; without `complete` one whose save was interrupted before its last file."""
    folder = checkpoint_path(checkpoints, step)
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{name} of step {step}")
    if complete:
        write_manifest(folder, step, success)
    return folder


def set_pointer(checkpoints: Path, text: str) -> None:
    """Write verl's pointer file as it stands, whatever it says."""
    (checkpoints / POINTER_FILE).write_bytes(text.encode())
