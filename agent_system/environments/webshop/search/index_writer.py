# SPDX-License-Identifier: Apache-2.0
"""Writing the files of a search index, in bounded memory.

Two passes. The first analyses the documents in the order given and, every few million tokens, spills a run to disk: the
(term, document, count) triples of those documents, sorted. The second takes a range of terms at a time, gathers it from
all runs, and appends it to the postings. What a posting can contribute to a score depends on its count and on its
document's length code only, so it is stored as the number of that pair, in the order of the contributions.

Inside the index documents are numbered in the ascending order of their ids, which is the order in which equal scores
are listed.
"""

from __future__ import annotations

import json
import os
import shutil
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from agent_system.environments.webshop.search.analyzer import ANALYZER_VERSION, analyze

FORMAT = 1
"""To be raised with every change of the files."""
DESCRIPTION = "index.json"
"""Written last: a folder without it holds no index."""
K1, B = np.float32(0.9), np.float32(0.4)
_RUN_TOKENS = 1 << 22
_MERGED_POSTINGS = 1 << 22
"""Tokens of a run and postings of a merged range: some 200 MB of working memory each."""


VERSIONS = {"format": FORMAT, "analyzer": ANALYZER_VERSION, "k1": float(K1), "b": float(B)}
"""What has to be the same for a program to read an index."""


def length_codes(lengths: np.ndarray) -> np.ndarray:
    """Lucene's SmallFloat.intToByte4: document lengths as one byte, uint8 of the same shape.

    Exact up to 40. Beyond, the length less 24 keeps its four leading bits, rounded down.
    """
    small = np.minimum(lengths, 24)
    rest = lengths.astype(np.int64) - small
    bits = np.frexp(rest.astype(np.float64))[1]
    shift = np.maximum(bits - 4, 0)
    coded = np.where(bits < 4, rest, ((rest >> shift) & 7) | (shift + 1) << 3)
    return (small + coded).astype(np.uint8)


def length_values() -> np.ndarray:
    """The length that each code represents, float32 `[256]`."""
    codes = np.arange(256, dtype=np.int64)
    rest = np.maximum(codes - 24, 0)
    bits, shift = rest & 7, (rest >> 3) - 1
    value = np.where(shift < 0, bits, (bits | 8) << np.maximum(shift, 0))
    return (np.minimum(codes, 24) + value).astype(np.float32)


def inverse_norms(average_length: np.float32) -> np.ndarray:
    """`1 / (k1 * (1 - b + b * length / average))` of each length code in single precision, float32 `[256]`."""
    one = np.float32(1)
    return one / (K1 * ((one - B) + B * length_values() / average_length))


class _Numbering(dict):
    """Numbers terms in the order of their first lookup."""

    def __missing__(self, term: str) -> int:
        self[term] = number = len(self)
        return number


class _Runs:
    """The first pass: documents in, sorted runs out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asins: list[str] = []
        self.lengths = array("I")
        self.numbers = _Numbering()
        self.files: list[Path] = []
        self.pairs = np.empty(0, np.uint64)
        """All pairs of a count and a length code that occur, `count << 8 | code`, ascending."""
        self._tokens = array("I")
        self._first = 0

    def add(self, asin: str, contents: str) -> None:
        before = len(self._tokens)
        self._tokens.extend(map(self.numbers.__getitem__, analyze(contents)))
        self.lengths.append(len(self._tokens) - before)
        self.asins.append(asin)
        if len(self._tokens) >= _RUN_TOKENS:
            self.spill()

    def spill(self) -> None:
        lengths = np.array(self.lengths[self._first :], np.uint32)
        documents = np.repeat(np.arange(self._first, len(self.lengths), dtype=np.uint64), lengths)
        keys = np.array(self._tokens, np.uint64) << np.uint64(32) | documents
        self._tokens, self._first = array("I"), len(self.lengths)
        if not len(keys):
            return
        keys.sort()
        starts = np.flatnonzero(np.diff(keys, prepend=~keys[:1]))
        counts = np.diff(starts, append=len(keys)).astype(np.uint64)
        keys = keys[starts]
        codes = length_codes(lengths)[(keys & np.uint64(0xFFFFFFFF)) - np.uint64(self._first - len(lengths))]
        pairs = counts << np.uint64(8) | codes
        self.pairs = np.union1d(self.pairs, pairs)
        run = np.empty((3, len(keys)), np.uint32)
        run[0], run[1], run[2] = keys >> np.uint64(32), keys & np.uint64(0xFFFFFFFF), counts
        self.files.append(self.folder / f"run-{len(self.files)}.npy")
        np.save(self.files[-1], run)


def build_index(
    documents: Iterable[tuple[str, str]], folder: Path, *, total: int | None = None, progress: bool = False
) -> None:
    """Write the index of `documents`, pairs of an id and a text, into `folder`, in place of any index there.

    Args:
        total: number of documents, for the progress bar only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DESCRIPTION).unlink(missing_ok=True)
    scratch = folder / "runs"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        runs = _Runs(scratch)
        for asin, contents in _with_bar(documents, total, "indexing", "product", progress):
            runs.add(asin, contents)
        runs.spill()
        arrays = _write_arrays(runs, folder, progress)
    finally:
        shutil.rmtree(scratch)
    # As in Lucene, a document without any token does not count as one.
    content = {**VERSIONS, "filled_documents": sum(map(bool, runs.lengths)), "arrays": arrays}
    unfinished = folder / f"{DESCRIPTION}.part"
    unfinished.write_text(json.dumps(content, indent=1), encoding="utf-8")
    os.replace(unfinished, folder / DESCRIPTION)


def _with_bar(items: Iterable, total: int | None, label: str, unit: str, shown: bool) -> Iterable:
    if not shown:
        return items
    from tqdm import tqdm  # Not at the head: the processes that only search do without it.

    return tqdm(items, total=total, desc=label, unit=unit)


def _write_arrays(runs: _Runs, folder: Path, progress: bool) -> dict[str, dict]:
    """Writes all arrays and returns their shapes and types by name."""
    count = len(runs.asins)
    positions = np.array(sorted(range(count), key=runs.asins.__getitem__), np.int32)
    ranks = np.empty(count, np.int32)
    ranks[positions] = np.arange(count, dtype=np.int32)

    lengths = np.array(runs.lengths, np.uint32)
    average = np.float32(lengths[lengths > 0].mean(dtype=np.float64) if lengths.any() else 1)
    codes = length_codes(lengths)
    factor = (runs.pairs >> np.uint64(8)).astype(np.float32) * inverse_norms(average)[runs.pairs & np.uint64(255)]
    impacts, impact_of_pair = np.unique(factor, return_inverse=True)

    frequencies = np.zeros(len(runs.numbers), np.int64)
    opened = [np.load(file, mmap_mode="r") for file in runs.files]
    for run in opened:
        frequencies += np.bincount(run[0], minlength=len(frequencies))
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(frequencies)])

    impact_type = np.uint16 if len(impacts) <= 1 << 16 else np.uint32
    strongest = np.zeros(len(frequencies), impact_type)
    documents_writer = _ArrayWriter(folder / "posting_documents.npy", np.int32, int(offsets[-1]))
    impacts_writer = _ArrayWriter(folder / "posting_impacts.npy", impact_type, int(offsets[-1]))
    with documents_writer, impacts_writer:
        for first, last in _with_bar(list(_ranges(offsets)), None, "merging", "range", progress):
            bounds = np.array((first, last), np.uint32)  # The type of the runs: another one would copy them.
            slices = [run[:, slice(*np.searchsorted(run[0], bounds))] for run in opened]
            terms, documents, counts = np.concatenate(slices, axis=1)
            order = np.argsort(terms.astype(np.int64) << 32 | ranks[documents])
            documents, counts = documents[order], counts[order]
            pairs = counts.astype(np.uint64) << np.uint64(8) | codes[documents]
            impact = impact_of_pair[np.searchsorted(runs.pairs, pairs)].astype(impact_type)
            documents_writer.append(ranks[documents])
            impacts_writer.append(impact)
            strongest[first:last] = np.maximum.reduceat(impact, offsets[first:last] - offsets[first])

    spelled = sorted((term.encode("utf-8", "surrogatepass"), number) for term, number in runs.numbers.items())
    vocabulary = b"".join(term for term, _ in spelled)
    rest = {
        "positions": positions,
        "impacts": impacts,
        "offsets": offsets,
        "strongest": strongest,
        "vocabulary": np.frombuffer(vocabulary, np.uint8),
        "vocabulary_offsets": np.cumsum([0, *(len(term) for term, _ in spelled)], dtype=np.int64),
        "vocabulary_terms": np.array([number for _, number in spelled], np.uint32),
    }
    for name, values in rest.items():
        np.save(folder / f"{name}.npy", values)
    written = {"posting_documents": documents_writer, "posting_impacts": impacts_writer, **rest}
    return {name: {"shape": list(one.shape), "dtype": np.dtype(one.dtype).str} for name, one in written.items()}


def _ranges(offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of terms, each with some `_MERGED_POSTINGS` postings."""
    first, terms = 0, len(offsets) - 1
    while first < terms:
        last = int(np.searchsorted(offsets, offsets[first] + _MERGED_POSTINGS, side="right")) - 1
        last = min(max(last, first + 1), terms)
        yield first, last
        first = last


class _ArrayWriter:
    """A one-dimensional .npy file of known length, written piece by piece."""

    def __init__(self, file: Path, dtype: type, length: int) -> None:
        self.shape, self.dtype = (length,), np.dtype(dtype)
        self._file = file

    def __enter__(self) -> _ArrayWriter:
        self._stream = self._file.open("wb")
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_2_0(self._stream, header)
        return self

    def append(self, values: np.ndarray) -> None:
        self._stream.write(values.astype(self.dtype, copy=False).data)

    def __exit__(self, *_: object) -> None:
        self._stream.close()
