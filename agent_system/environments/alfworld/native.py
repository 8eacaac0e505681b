# SPDX-License-Identifier: Apache-2.0
"""The C library and the PDDL translator under TextWorld, called without side effects on the process."""

from __future__ import annotations

import contextlib
import struct
import sys
import tempfile
from collections.abc import Iterator
from ctypes import CDLL
from pathlib import Path

import fast_downward
from fast_downward import interface

_ELF64_LITTLE_ENDIAN = b"\x7fELF\x02\x01"
_PT_LOAD = 1


@contextlib.contextmanager
def process_state_kept() -> Iterator[None]:
    """Restores `sys.argv` and `sys.stdout`, both of which the PDDL translator overwrites."""
    arguments, stdout = sys.argv, sys.stdout
    try:
        yield
    finally:
        sys.argv, sys.stdout = arguments, stdout


_idle: list[CDLL] = []


def acquire_planner_library() -> CDLL:
    """A copy of the planner library that no other environment of this process uses.

    The planner keeps its game in global variables, so every environment needs a copy of its own. Copies are never
    unloaded (the process would crash: the library registers symbols that outlive it) but handed on: give them back with
    `release_planner_library`.
    """
    return _idle.pop() if _idle else _load_copy()


def release_planner_library(library: CDLL) -> None:
    """Lets the next environment of this process have the copy."""
    _idle.append(library)


def _load_copy() -> CDLL:
    # The copy occupies the temporary folder (memory, where that is a tmpfs) for as long as it is loaded. 32 of its
    # 33 MB are debugging symbols that are never mapped: they are left out.
    original = interface.DOWNWARD_LIB_PATH
    with tempfile.TemporaryDirectory() as folder:
        trimmed = Path(folder) / "planner.so"
        with open(original, "rb") as library:
            trimmed.write_bytes(library.read(_loadable_size(Path(original))))
        interface.DOWNWARD_LIB_PATH = str(trimmed)
        try:
            return fast_downward.load_lib()
        finally:
            interface.DOWNWARD_LIB_PATH = original


def _loadable_size(library: Path) -> int:
    """Bytes of a shared object up to the end of its last loadable segment (all of it if it is not 64-bit ELF)."""
    with open(library, "rb") as file:
        header = file.read(64)
        if not header.startswith(_ELF64_LITTLE_ENDIAN):
            return library.stat().st_size
        (table_offset,) = struct.unpack_from("<Q", header, 32)
        entry_size, entries = struct.unpack_from("<HH", header, 54)
        file.seek(table_offset)
        table = file.read(entry_size * entries)
    end = 0
    for start in range(0, len(table), entry_size):
        kind, _, offset, _, _, file_size = struct.unpack_from("<IIQQQQ", table, start)
        if kind == _PT_LOAD:
            end = max(end, offset + file_size)
    return end
