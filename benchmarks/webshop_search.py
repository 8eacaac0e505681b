# SPDX-License-Identifier: Apache-2.0
"""The search engine of WebShop: what building an index costs, how fast it answers, and whether it agrees with Lucene.

    python benchmarks/webshop_search.py                              # 1,000 and 100,000 generated products
    python benchmarks/webshop_search.py --docs 1000 100000 1000000   # some ten minutes, 1.5 GB of disk
    python benchmarks/webshop_search.py --docs --data DIR            # agreement with Lucene only

Documents are drawn to match the published 1,000 products: lengths (log-normal, 107 tokens on average), frequencies of
words (Zipf-Mandelbrot over a vocabulary of syllables) and repetition inside a document. Half of the queries are words
of one document, as those of an agent with an instruction; the other half are words drawn without regard to one.
Building and searching run in processes of their own. Times of queries are CPU time of the second round over the same
queries: the first brings the index into the page cache. "own" memory is one searching process's, "shared" is the
page cache's and the same for all processes of a node.

DIR holds items_shuffle_1000.json, items_ins_v2_1000.json and, beside them, lucene_top50.json, a list of {"query",
"top50": ids}; each may be compressed (.gz).
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from agent_system.environments.webshop.products import read_products
from agent_system.environments.webshop.search.engine import SearchIndex
from benchmarks.machine import describe

SEED = 0
QUERIES = 400
TOP = 50
MEAN_LOG_LENGTH, SPREAD_LOG_LENGTH = math.log(76.0), 0.83
SHIFT, BEND = 15.0, 12_000.0
"""The word of rank r is drawn with probability proportional to 1 / ((r + SHIFT) * (1 + r / BEND)): Zipf-Mandelbrot, and
the steeper fall of rare words that keeps frequent ones as frequent in a large catalogue as in a small one."""
REPEATED = 0.35
"""Share of the words of a document that repeat one of its earlier words."""
AT_ONCE = 2000


# --- synthetic products ----------------------------------------------------------------------------------------------


def vocabulary(size: int) -> list[str]:
    """`size` different words; every tenth one is a number or a measure, as in product texts."""
    rng = random.Random(SEED)
    onsets = [
        *("b", "bl", "br", "c", "ch", "cl", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "l", "m", "n", "p", "pl"),
        *("pr", "qu", "r", "s", "sh", "sl", "sp", "st", "t", "tr", "v", "w", "z"),
    ]
    vowels, codas = ["a", "e", "i", "o", "u", "ea", "oo", "ai"], ["", "", "n", "r", "l", "t", "m", "sh", "ck", "nd"]
    endings = ["", "", "", "s", "er", "ing", "ed", "able", "ness", "ly"]
    words: dict[str, None] = {}
    while len(words) < size:
        if rng.random() < 0.1:
            word = f"{rng.randrange(1, 5000) / rng.choice((1, 1, 10)):g}{rng.choice(('', '', 'oz', 'inch', 'ml', 'x'))}"
        else:
            parts = [rng.choice(group) for _ in range(rng.randint(1, 4)) for group in (onsets, vowels, codas)]
            word = "".join(parts) + rng.choice(endings)
        words.setdefault(word)
    return list(words)


def words_of_documents(count: int, words: int) -> Iterator[list[np.ndarray]]:
    """Word numbers of `count` documents, in chunks."""
    rng = np.random.default_rng(SEED + 1)
    ranks = np.arange(words) + 1
    cumulative = np.cumsum(1 / ((ranks + SHIFT) * (1 + ranks / BEND)))
    for first in range(0, count, AT_ONCE):
        lengths = np.exp(rng.normal(MEAN_LOG_LENGTH, SPREAD_LOG_LENGTH, min(AT_ONCE, count - first)))
        lengths = np.clip(lengths, 4, 2000).astype(np.int64)
        drawn = np.searchsorted(cumulative, rng.random(lengths.sum()) * cumulative[-1])
        starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
        places = np.arange(len(drawn))
        earlier = starts + (rng.random(len(drawn)) * (places - starts)).astype(np.int64)
        drawn = np.where(rng.random(len(drawn)) < REPEATED, drawn[earlier], drawn)
        yield np.split(drawn, np.cumsum(lengths)[:-1])


def documents(count: int) -> Iterator[tuple[str, str]]:
    words = vocabulary(vocabulary_size(count))
    ids = np.random.default_rng(SEED + 2).permutation(count)
    number = 0
    for chunk in words_of_documents(count, len(words)):
        for document in chunk:
            yield f"B{ids[number]:09d}", " ".join([words[word] for word in document.tolist()])
            number += 1


def vocabulary_size(count: int) -> int:
    """The published 1,000 products have 12,074 different tokens; Heaps' law with exponent 0.45 from there."""
    return int(12_000 * (count / 1000) ** 0.45)


def queries(count: int) -> list[str]:
    """Some six different words each, see the head of the file."""
    rng = np.random.default_rng(SEED + 3)
    words = vocabulary(vocabulary_size(count))
    pool = [np.unique(document) for document in next(words_of_documents(min(count, AT_ONCE), len(words)))]
    everything = np.concatenate(pool)
    made = []
    for number in range(QUERIES):
        source = everything if number % 2 else pool[rng.integers(len(pool))]
        picked = rng.choice(source, min(int(rng.integers(3, 10)), len(source)), replace=False)
        made.append(" ".join(words[word] for word in picked))
    return made


# --- in processes of their own ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Built:
    minutes: float
    disk_mb: float
    peak_mb: float


@dataclass(frozen=True)
class Searched:
    milliseconds: list[float]
    own_mb: float
    shared_mb: float
    results: list[list[int]]


def memory_mb(field: str) -> float:
    """A field of /proc/self/status in MB."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(f"{field}:")) / 1024


def build(count: int, folder: Path) -> Built:
    start = time.perf_counter()
    SearchIndex.build(documents(count), folder, total=count, progress=True)
    minutes = (time.perf_counter() - start) / 60
    disk = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
    return Built(minutes, disk, memory_mb("VmHWM"))


def search(folder: Path, queries: list[str]) -> Searched:
    index = SearchIndex.open(folder)
    for query in queries:
        index.search(query, TOP)
    times, results = [], []
    for query in queries:
        start = time.process_time()
        results.append(index.search(query, TOP))
        times.append(1e3 * (time.process_time() - start))
    return Searched(times, memory_mb("RssAnon"), memory_mb("RssFile"), results)


Result = TypeVar("Result")


def apart(function: Callable[..., Result], *arguments: object) -> Result:
    """`function` in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


# --- agreement with Lucene -------------------------------------------------------------------------------------------


def unpacked(folder: Path, name: str, into: Path) -> Path:
    if (folder / name).exists():
        return folder / name
    with gzip.open(folder / f"{name}.gz") as packed, (into / name).open("wb") as plain:
        shutil.copyfileobj(packed, plain)
    return into / name


def agreement(data: Path, scratch: Path) -> str:
    names = ("items_shuffle_1000.json", "items_ins_v2_1000.json", "lucene_top50.json")
    items, attributes, oracle = (unpacked(data, name, scratch) for name in names)
    products = list(read_products(items, attributes))
    SearchIndex.build(((product.asin, product.searched_text) for product in products), scratch / "published")
    reference = json.loads(oracle.read_text(encoding="utf-8"))
    searched = apart(search, scratch / "published", [entry["query"] for entry in reference])
    pairs = [
        ([products[number].asin for number in numbers], one["top50"])
        for numbers, one in zip(searched.results, reference, strict=True)
    ]
    same_10 = sum(ours[:10] == lucene[:10] for ours, lucene in pairs) / len(pairs)
    same_50 = sum(ours == lucene for ours, lucene in pairs) / len(pairs)
    return (
        f"Lucene, {len(products)} products, {len(pairs)} queries: same ordered top 10 on {same_10:.2%}, "
        f"top 50 on {same_50:.2%}"
    )


def row(count: int, folder: Path) -> str:
    built = apart(build, count, folder)
    searched = apart(search, folder, queries(count))
    shutil.rmtree(folder)
    middle, slow = np.percentile(searched.milliseconds, (50, 95))
    per_second = 1e3 * len(searched.milliseconds) / sum(searched.milliseconds)
    return (
        f"{count:>10,}{built.minutes:>12.2f}{built.disk_mb:>10.0f}{built.peak_mb:>14.0f}{per_second:>12.0f}"
        f"{middle:>9.2f}{slow:>9.2f}{searched.own_mb:>9.0f}{searched.shared_mb:>11.0f}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=int, nargs="*", default=[1000, 100_000], help="numbers of generated products")
    parser.add_argument("--data", type=Path, help="folder of the published files: adds the agreement with Lucene")
    arguments = parser.parse_args()
    if arguments.data is not None and not arguments.data.is_dir():
        parser.error(f"--data {arguments.data} is not a folder")

    print(describe("numpy", "regex"))
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.data is not None:
            print(agreement(arguments.data, Path(scratch)))
        rows = [row(count, Path(scratch) / "index") for count in arguments.docs]
    if rows:
        print(f"{QUERIES} queries each, top {TOP}, one process; building includes making the texts; memory in MB")
        print("  products   build min   disk MB    build peak   queries/s   p50 ms   p95 ms      own     shared")
        print("\n".join(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
