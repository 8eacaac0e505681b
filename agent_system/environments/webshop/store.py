# SPDX-License-Identifier: Apache-2.0
"""Records on disk, mapped into memory: one copy in the page cache for any number of processes and environments."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from agent_system.errors import TaskError


def write_lines(file: Path, lines: Iterable[str], *, append_after: int = 0) -> int:
    """Write one record per line and, in a second file, the offset of each (`LineStore` reads them).

    Args:
        append_after: number of existing records to keep; the new ones are written after them.

    Returns:
        The number of records in the file.
    """
    with file.open("r+b" if append_after else "wb") as stream:
        starts = [0]
        for _ in range(append_after):
            starts.append(starts[-1] + len(stream.readline()))
        stream.seek(starts[-1])
        stream.truncate()
        for line in lines:
            starts.append(starts[-1] + stream.write(line.encode("utf-8") + b"\n"))
    np.save(offsets_file(file), np.array(starts, dtype=np.int64))
    return len(starts) - 1


def complete_lines(file: Path) -> int:
    """Number of complete records in a file whose writing may have been interrupted."""
    if not file.exists():
        return 0
    with file.open("rb") as stream:
        return sum(line.endswith(b"\n") for line in stream)


def offsets_file(file: Path) -> Path:
    """The file of the offsets of a file of records."""
    return file.with_suffix(".offsets.npy")


class LineStore:
    """Records by number, mapped into memory.

    Raises:
        TaskError: a file is missing, or the two do not match.
    """

    def __init__(self, file: Path) -> None:
        self._starts = open_array(offsets_file(file))
        size = file.stat().st_size if file.exists() else -1
        if not len(self._starts) or int(self._starts[-1]) != size:
            raise TaskError(f"{file} is missing or incomplete. Try: --rebuild of the prepare command")
        with file.open("rb") as stream:
            self._bytes = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) if size else b""

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, number: int) -> bytes:
        return self._bytes[self._starts[number] : self._starts[number + 1]]


def open_array(file: Path) -> np.ndarray:
    """An array that `numpy.save` wrote, mapped into memory, read-only.

    Raises:
        TaskError: it is missing or damaged.
    """
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise TaskError(f"{file} is missing or damaged ({error}). Try: --rebuild of the prepare command") from error
