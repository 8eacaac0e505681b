# SPDX-License-Identifier: Apache-2.0
"""The last file of a checkpoint: the size and the digest of every other one. Without it a checkpoint is incomplete.

A save that is interrupted leaves files that look like a checkpoint, and verl would load them or fail after minutes.
"""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent_system.processes import usable_cpus

MANIFEST_FILE = "manifest.json"

VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """What a complete checkpoint holds.

    Attributes:
        step: the training step.
        success: success rate on the held-out tasks after this step; None where it was not evaluated.
        files: size in bytes and SHA-256 of every file, by its path in the checkpoint.
    """

    step: int
    success: float | None
    files: dict[str, tuple[int, str]]


def write_manifest(checkpoint: Path, step: int, success: float | None) -> Manifest:
    """List every file of a checkpoint that has just been written. It is complete from then on.

    Raises:
        OSError: a file cannot be read, or the disk is full.
    """
    paths = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != MANIFEST_FILE)
    for path in paths:
        _flush(path)
    digests = _digests(paths)
    files = {
        path.relative_to(checkpoint).as_posix(): (path.stat().st_size, digest)
        for path, digest in zip(paths, digests, strict=True)
    }
    manifest = Manifest(step, success, files)
    temporary = checkpoint / (MANIFEST_FILE + ".part")
    temporary.write_text(json.dumps({"version": VERSION, **vars(manifest)}, indent=1), encoding="utf-8")
    _flush(temporary)
    os.replace(temporary, checkpoint / MANIFEST_FILE)
    return manifest


def read_manifest(checkpoint: Path) -> Manifest | None:
    """The manifest of a checkpoint; None where it is missing or unreadable."""
    try:
        content: dict[str, Any] = json.loads((checkpoint / MANIFEST_FILE).read_text(encoding="utf-8"))
        files = {str(name): (int(size), str(digest)) for name, (size, digest) in content["files"].items()}
        success = None if content["success"] is None else float(content["success"])
        return Manifest(int(content["step"]), success, files) if content["version"] == VERSION else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def damage(checkpoint: Path, *, digests: bool = False) -> str | None:
    """What is wrong with a checkpoint, to follow its name in a message; None where it is complete.

    Args:
        checkpoint: a folder `global_step_<number>`.
        digests: also read every file and compare its digest: about a second for each gigabyte and core.
    """
    if not (checkpoint / MANIFEST_FILE).exists():
        return f"has no {MANIFEST_FILE}, so its save was interrupted (or HiPER 0.1.0 or older wrote it)"
    manifest = read_manifest(checkpoint)
    if manifest is None:
        return f"has an unreadable {MANIFEST_FILE}"
    if checkpoint.name != f"global_step_{manifest.step}":
        return f"holds step {manifest.step} according to its {MANIFEST_FILE}"
    for name, (size, _) in manifest.files.items():
        path = checkpoint / name
        if not path.is_file():
            return f"lacks {name}"
        if path.stat().st_size != size:
            return f"has {path.stat().st_size} of {size} bytes of {name}"
    if digests:
        found = _digests([checkpoint / name for name in manifest.files])
        for (name, (_, digest)), now in zip(manifest.files.items(), found, strict=True):
            if now != digest:
                return f"has changed bytes in {name}"
    return None


def _digests(paths: list[Path]) -> list[str]:
    # hashlib releases the interpreter lock
    with ThreadPoolExecutor(usable_cpus()) as threads:
        return list(threads.map(_digest, paths))


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Wait until the file is on the disk: a manifest must not survive a power failure that the weights do not."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
