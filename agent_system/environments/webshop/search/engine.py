# SPDX-License-Identifier: Apache-2.0
"""Product search: BM25 with Lucene's arithmetic over memory-mapped postings, best documents first.

The score of a query is the sum over its distinct tokens t of

    w - w / (1 + tf * inv),   w = n * idf,   idf = ln(1 + (N - df + 0.5) / (df + 0.5)),
    inv = 1 / (k1 * (1 - b + b * L / average)),   k1 = 0.9, b = 0.4

where t occurs n times in the query and tf times in the document, L is the document's length as Lucene rounds it to one
byte, and N and the average count documents with at least one token. Terms are in single precision, their sum in double,
rounded to single; equal scores are in the ascending order of the ids (Robertson and Zaragoza, "The Probabilistic
Relevance Framework", 2009; Lucene's BM25Similarity for the arithmetic).

Only documents that can be among the best are scored. This is MaxScore (Turtle and Flood, "Query evaluation: strategies
and optimizations", 1995) on whole arrays: with a score that as many documents reach as are requested, a document that
contains none but the weakest tokens of the query need not be looked at when even the largest contributions of those
tokens do not add up to it.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agent_system.environments.webshop.search.analyzer import analyze
from agent_system.environments.webshop.search.index_writer import DESCRIPTION, VERSIONS, build_index
from agent_system.errors import TaskError

MAX_QUERY_CHARACTERS = 1 << 16
MAX_QUERY_TERMS = 1024
"""Lucene refuses queries of more clauses; here the first ones count."""

_SEED_DOCUMENTS = 4096
"""Postings of the rarest token from which the first threshold is read."""
_PRUNED_TERMS = 12
"""Of a longer query almost every document has a token that matters, and adding everything up is faster."""
_AGAIN = "Try: build the index again (--rebuild of the prepare command)"


@dataclass(frozen=True)
class _Term:
    """One token of a query: where its postings are, and what they contribute.

    Attributes:
        contributions: by number of the impact, float32.
        bound: the largest of them.
    """

    documents: np.ndarray
    impacts: np.ndarray
    contributions: np.ndarray
    bound: float

    def look_up(self, documents: np.ndarray) -> np.ndarray:
        """Contribution to each of `documents` (ascending), float32, 0 where the token does not occur."""
        places = np.searchsorted(self.documents, documents)
        np.minimum(places, len(self.documents) - 1, out=places)
        values = self.contributions[self.impacts[places]]
        values[self.documents[places] != documents] = 0
        return values

    def reaching(self, least: float) -> tuple[np.ndarray, np.ndarray]:
        """Documents, ascending, to which the token contributes at least `least`, and the contributions."""
        # Impacts are numbered in ascending order: small integers are compared, not scores.
        weakest = int(np.searchsorted(self.contributions.astype(np.float64), least))
        if weakest == 0:
            return self.documents, self.contributions[self.impacts]
        places = np.flatnonzero(self.impacts >= weakest)
        return self.documents[places], self.contributions[self.impacts[places]]


class SearchIndex:
    """A search index on disk, opened read-only. All processes of a node share one copy in the page cache."""

    def __init__(self, filled_documents: int, arrays: dict[str, np.ndarray]) -> None:
        self._positions = arrays["positions"]
        self._impacts = arrays["impacts"]
        self._offsets = arrays["offsets"]
        self._strongest = arrays["strongest"]
        self._posting_documents = arrays["posting_documents"]
        self._posting_impacts = arrays["posting_impacts"]
        self._vocabulary = arrays["vocabulary"].data
        self._vocabulary_offsets = arrays["vocabulary_offsets"]
        self._vocabulary_terms = arrays["vocabulary_terms"]
        self._filled = filled_documents

    @classmethod
    def build(
        cls, documents: Iterable[tuple[str, str]], folder: Path, *, total: int | None = None, progress: bool = False
    ) -> None:
        """Write the index of `documents`, pairs of an id and a text in catalogue order, into `folder`.

        Args:
            total: number of documents, for the progress bar only.
        """
        build_index(documents, folder, total=total, progress=progress)

    @classmethod
    def open(cls, folder: Path) -> SearchIndex:
        """Map the index in `folder` into memory.

        Raises:
            TaskError: a file is missing or truncated, or the index was made by another version.
        """
        file = folder / DESCRIPTION
        try:
            written = json.loads(file.read_text(encoding="utf-8"))
            versions = {name: written.get(name) for name in VERSIONS}
        except FileNotFoundError:
            raise TaskError(f"{file} is missing: {folder} holds no finished search index. {_AGAIN}") from None
        except (ValueError, AttributeError) as error:
            raise TaskError(f"{file}, the description of a search index, is damaged ({error}). {_AGAIN}") from error
        if versions != VERSIONS:
            raise TaskError(
                f"{file}: the search index is of version {versions}, this program's is {VERSIONS}. {_AGAIN}"
            )
        try:
            filled, described = written["filled_documents"], written["arrays"]
            arrays = {name: _map(folder / f"{name}.npy", about) for name, about in described.items()}
            return cls(filled, arrays)
        except KeyError as error:
            raise TaskError(f"{file}, the description of a search index, has no {error}. {_AGAIN}") from error

    def __len__(self) -> int:
        return len(self._positions)

    def search(self, query: str, top: int = 50) -> list[int]:
        """The positions of at most `top` documents in catalogue order, best first; all of them contain a query token.

        Any string is a query. Of one longer than `MAX_QUERY_CHARACTERS` the beginning counts, and of its distinct
        tokens the first `MAX_QUERY_TERMS`.
        """
        counts = Counter(analyze(query[:MAX_QUERY_CHARACTERS]))
        looked_up = [self._term(token, times) for token, times in list(counts.items())[:MAX_QUERY_TERMS]]
        terms = sorted((term for term in looked_up if term is not None), key=lambda term: -term.bound)
        if not terms or top < 1:
            return []
        candidates = self._candidates if len(terms) <= _PRUNED_TERMS else self._all_scores
        documents, scores = candidates(terms, top)
        best = np.lexsort((documents, -scores))[:top]
        return self._positions[documents[best]].tolist()

    def _term(self, token: str, times: int) -> _Term | None:
        number = self._number(token.encode("utf-8", "surrogatepass"))
        if number is None:
            return None
        postings = slice(int(self._offsets[number]), int(self._offsets[number + 1]))
        frequency = postings.stop - postings.start
        idf = np.float32(math.log(1 + (self._filled - frequency + 0.5) / (frequency + 0.5)))
        weight, one = np.float32(times) * idf, np.float32(1)
        strongest = int(self._strongest[number])
        contributions = weight - weight / (one + self._impacts[: strongest + 1])
        return _Term(
            self._posting_documents[postings],
            self._posting_impacts[postings],
            contributions,
            float(contributions[strongest]),
        )

    def _number(self, token: bytes) -> int | None:
        """Number of a term, by binary search in the sorted vocabulary."""
        words, offsets = self._vocabulary, self._vocabulary_offsets
        low, high = 0, len(self._vocabulary_terms)
        while low < high:
            middle = (low + high) // 2
            word = words[offsets[middle] : offsets[middle + 1]].tobytes()
            if word == token:
                return int(self._vocabulary_terms[middle])
            if word < token:
                low = middle + 1
            else:
                high = middle
        return None

    def _candidates(self, terms: list[_Term], top: int) -> tuple[np.ndarray, np.ndarray]:
        """Documents, ascending, with their scores in float32; the best `top` of the index are among them.

        `terms` are in the descending order of their bounds. A document enters with the first token that contributes so
        much that it can still reach the threshold, and leaves when it cannot any more. One that left and enters again
        with a later token lacks the earlier contributions: it is below the threshold in any case.
        """
        # What terms[i:] can add to a document at most.
        room = np.cumsum([0.0, *(term.bound for term in reversed(terms))])[::-1].tolist()
        threshold = _threshold(self._seed_scores(terms, top), top)
        documents, sums = np.empty(0, np.int32), np.empty(0)
        for term, left, left_after in zip(terms, room, room[1:], strict=False):
            threshold = max(threshold, _threshold(sums.astype(np.float32), top))
            kept = sums + left >= threshold
            documents, sums = documents[kept], sums[kept]
            sums += term.look_up(documents)
            if left >= threshold:
                documents, sums = _merged(documents, sums, *term.reaching(threshold - left_after))
        return documents, sums.astype(np.float32)

    def _all_scores(self, terms: list[_Term], top: int) -> tuple[np.ndarray, np.ndarray]:
        """The same as `_candidates`, from all postings of all tokens."""
        sums = np.zeros(len(self))
        for term in terms:
            sums[term.documents] += term.contributions[term.impacts]
        # The rarest token that as many documents contain gives a threshold without a look at all of them.
        rarest: np.ndarray | list[int] = next((term.documents for term in terms if len(term.documents) >= top), [])
        threshold = _threshold(sums[rarest].astype(np.float32), top) if len(rarest) else 0.0
        documents = np.flatnonzero(sums >= threshold) if threshold else np.flatnonzero(sums)
        return documents, sums[documents].astype(np.float32)

    def _seed_scores(self, terms: list[_Term], top: int) -> np.ndarray:
        """Scores of some documents with the rarest tokens, float32: a first idea of what is reached."""
        documents = np.empty(0, np.int32)
        for term in terms:
            documents = np.union1d(documents, term.documents[:_SEED_DOCUMENTS])
            if len(documents) >= top:
                break
        sums = np.zeros(len(documents))
        for term in terms:
            sums += term.look_up(documents)
        return sums.astype(np.float32)


def _merged(
    documents: np.ndarray, sums: np.ndarray, more: np.ndarray, contributions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`documents` and those of `more` that are not among them, ascending, with their sums."""
    if not len(documents):
        return more, contributions.astype(np.float64)
    places = np.searchsorted(documents, more)
    new = documents[np.minimum(places, len(documents) - 1)] != more
    places, more, contributions = places[new], more[new], contributions[new]
    return np.insert(documents, places, more), np.insert(sums, places, contributions)


def _threshold(scores: np.ndarray, top: int) -> float:
    """A sum in double below which a document cannot be among the best `top`: 0 if there are fewer `scores`.

    One step of single precision below the score itself: sums are compared before they are rounded.
    """
    if len(scores) < top:
        return 0.0
    return float(np.nextafter(np.partition(scores, -top)[-top], np.float32(0)))


def _map(file: Path, about: dict) -> np.ndarray:
    """The array in `file`, mapped into memory, if it matches the description."""
    shape, dtype = tuple(about["shape"]), np.dtype(about["dtype"])
    try:
        # Nothing can be mapped of an empty array.
        array = np.load(file, mmap_mode="r" if math.prod(shape) else None, allow_pickle=False)
    except FileNotFoundError:
        raise TaskError(f"{file}, a part of the search index, is missing. {_AGAIN}") from None
    except (ValueError, EOFError, OSError) as error:
        raise TaskError(f"{file}, a part of the search index, is truncated or damaged ({error}). {_AGAIN}") from error
    if array.shape != shape or array.dtype != dtype:
        raise TaskError(
            f"{file} holds {array.dtype} {array.shape}, but the search index needs {dtype} {shape}. {_AGAIN}"
        )
    return np.asarray(array)
