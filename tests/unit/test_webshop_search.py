# SPDX-License-Identifier: Apache-2.0
"""The search index: Lucene's own rankings, BM25 by hand and by a slow loop, and files that are not an index."""

from __future__ import annotations

import gzip
import json
import math
import random
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_system.environments.webshop.products import read_products
from agent_system.environments.webshop.search import engine, index_writer
from agent_system.environments.webshop.search.analyzer import analyze
from agent_system.environments.webshop.search.engine import SearchIndex
from agent_system.environments.webshop.search.index_writer import length_codes, length_values
from agent_system.errors import TaskError

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "webshop"
DOCUMENTS = (
    ("B03", "red cotton shirt"),
    ("B01", "red red shoes for women with a red sole"),
    ("B02", "a lamp"),
    ("B00", "of the"),
)


def made(folder: Path, documents: Sequence[tuple[str, str]]) -> SearchIndex:
    SearchIndex.build(documents, folder)
    return SearchIndex.open(folder)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> SearchIndex:
    return made(tmp_path_factory.mktemp("small"), DOCUMENTS)


# ---------------------------------------------------------------------------------------------------------------------
# The reference: every document, one token at a time, in the arithmetic of the formula.


tokens_of = cache(analyze)


def rounded_length(length: int) -> int:
    """What is left of a length in Lucene's one byte."""
    if length < 40:
        return length
    step = 1 << ((length - 24).bit_length() - 4)
    return 24 + (length - 24) // step * step


def ranking(documents: Sequence[tuple[str, str]], query: str, top: int) -> list[int]:
    f32 = np.float32
    tokens = [tokens_of(text) for _, text in documents]
    filled = [found for found in tokens if found]
    average = f32(sum(map(len, filled)) / len(filled)) if filled else f32(1)
    totals = {}
    for token, times in Counter(analyze(query)).items():
        df = sum(token in found for found in tokens)
        weight = f32(times) * f32(math.log(1 + (len(filled) - df + 0.5) / (df + 0.5)))
        for number, found in enumerate(tokens):
            if tf := found.count(token):
                share = f32(0.4) * f32(rounded_length(len(found))) / average
                inverse = f32(1) / (f32(0.9) * ((f32(1) - f32(0.4)) + share))
                score = weight - weight / (f32(1) + f32(tf) * inverse)
                totals[number] = totals.get(number, 0.0) + float(score)
    best = sorted(totals, key=lambda number: (-float(f32(totals[number])), documents[number][0]))
    return best[:top]


# ---------------------------------------------------------------------------------------------------------------------
# Lucene.


@pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is absent")
def test_rankings_are_those_of_lucene(tmp_path):
    for name in ("items_shuffle_1000.json", "items_ins_v2_1000.json", "lucene_top50.json"):
        (tmp_path / name).write_bytes(gzip.decompress((DATA / f"{name}.gz").read_bytes()))
    products = list(read_products(tmp_path / "items_shuffle_1000.json", tmp_path / "items_ins_v2_1000.json"))
    index = made(tmp_path / "index", [(product.asin, product.searched_text) for product in products])
    oracle = json.loads((tmp_path / "lucene_top50.json").read_text(encoding="utf-8"))
    assert (len(index), len(oracle)) == (1000, 1500)
    ours = [[products[number].asin for number in index.search(one["query"])] for one in oracle]
    assert sum(a[:10] == one["top50"][:10] for a, one in zip(ours, oracle, strict=True)) >= 0.999 * len(oracle)
    assert sum(a == one["top50"] for a, one in zip(ours, oracle, strict=True)) >= 0.995 * len(oracle)


# ---------------------------------------------------------------------------------------------------------------------
# Scores.


def test_lengths_are_exact_to_40_and_then_in_steps():
    lengths = np.arange(41)
    assert length_values()[length_codes(lengths)].tolist() == lengths.tolist()
    assert length_codes(np.array([40, 41, 42, 55, 56, 59, 60, 87, 88, 95, 96])).tolist() == [
        *(40, 40, 41, 47, 48, 48, 49, 55, 56, 56, 57),
    ]
    assert length_values()[38:66].tolist() == [
        *(38, 39, 40, 42, 44, 46, 48, 50, 52, 54, 56, 60, 64, 68, 72, 76, 80, 84, 88),
        *(96, 104, 112, 120, 128, 136, 144, 152, 168),
    ]
    assert length_codes(np.array([2**31 - 1])).tolist() == [255]
    assert length_values()[255] == np.float32(2013265944)


@given(st.integers(0, 2**31 - 1))
def test_lengths_are_rounded_as_the_reference_does(length):
    assert length_values()[length_codes(np.array([length]))[0]] == np.float32(rounded_length(length))


def test_contributions_by_hand(small):
    # Three documents with tokens: red cotton shirt (3), red red shoe women red sole (6), lamp (1); 10 / 3 on average.
    (red,) = (small._term(token, 1) for token in analyze("red"))
    idf = math.log(1 + 1.5 / 2.5)
    by_document = dict(zip(red.documents.tolist(), red.contributions[red.impacts].tolist(), strict=True))
    # Inside the index documents are in the order of their ids: B00, B01, B02, B03.
    assert by_document == {
        1: pytest.approx(idf * (1 - 1 / (1 + 3 / (0.9 * (0.6 + 0.4 * 6 / (10 / 3))))), rel=1e-6),
        3: pytest.approx(idf * (1 - 1 / (1 + 1 / (0.9 * (0.6 + 0.4 * 3 / (10 / 3))))), rel=1e-6),
    }
    assert red.bound == pytest.approx(idf * 3 / (3 + 0.9 * 1.32), rel=1e-6)


def test_positions_are_those_of_the_catalogue_and_best_come_first(small):
    assert len(small) == 4
    assert small.search("red") == [1, 0]
    assert small.search("RED shirts") == [0, 1]
    assert small.search("lamps") == [2]
    assert small.search("red shirt lamp", top=1) == ranking(DOCUMENTS, "red shirt lamp", 1)
    assert small.search("red", top=0) == []


def test_a_repeated_word_counts_twice(tmp_path):
    documents = [("B1", "red shoe"), ("B2", "blue shoe"), ("B3", "blue lamp"), ("B4", "blue hat")]
    index = made(tmp_path, documents)
    assert index.search("red blue", top=1) == [0]  # The rarer word weighs more: 1.20 against 0.36,
    assert index.search("red" + 3 * " blue", top=1) == [0]
    assert index.search("red" + 4 * " blue", top=1) == [1]  # 1.20 against 1.43.


def test_equal_scores_are_in_the_order_of_the_ids(tmp_path):
    ids = ["B2", "A9", "B10", "a1", "B1"]
    index = made(tmp_path, [(asin, "red shoe") for asin in ids])
    assert [ids[number] for number in index.search("shoe")] == ["A9", "B1", "B10", "B2", "a1"]
    assert [ids[number] for number in index.search("shoe red", top=2)] == ["A9", "B1"]


WORDS = ["red", "blue", "green", "shoe", "lamp", "hat", "xl", "10", "soft", "wool"]
TEXTS = st.lists(st.sampled_from([*WORDS, "the"]), max_size=50).map(" ".join)


@settings(max_examples=60)
@given(st.lists(TEXTS, max_size=12), st.lists(TEXTS, min_size=1, max_size=4), st.integers(1, 6), st.randoms())
def test_the_ranking_is_that_of_the_reference(tmp_path_factory, texts, queries, top, random):
    ids = [f"B{number}" for number in range(len(texts))]
    random.shuffle(ids)
    documents = list(zip(ids, texts, strict=True))
    index = made(tmp_path_factory.mktemp("index"), documents)
    for query in queries:
        assert index.search(query, top) == ranking(documents, query, top)


def test_leaving_documents_out_does_not_change_the_ranking(tmp_path, monkeypatch):
    """A corpus on which the threshold cuts: few seeds, words of very different frequency."""
    rng = random.Random(0)
    words = [f"w{number}" for number in range(60)]
    weights = [1 / (rank + 2) for rank in range(len(words))]
    documents = [
        (f"B{rng.randrange(10**9):09d}", " ".join(rng.choices(words, weights, k=rng.choice((3, 20, 60, 200)))))
        for _ in range(300)
    ]
    index = made(tmp_path, documents)
    monkeypatch.setattr(engine, "_SEED_DOCUMENTS", 8)
    left_out = 0
    for number in range(40):
        query = " ".join(rng.choices(words, k=rng.randrange(1, 9)))
        top = (1, 5, 50, 1000)[number % 4]
        assert index.search(query, top) == ranking(documents, query, top)
        terms = sorted(filter(None, (index._term(word, 1) for word in set(query.split()))), key=lambda t: -t.bound)
        candidates, _ = index._candidates(terms, top)
        left_out += len(np.unique(np.concatenate([term.documents for term in terms]))) - len(candidates)
    assert left_out > 1000


def test_long_queries_have_the_ranking_of_the_reference(tmp_path):
    rng = random.Random(2)
    words = [f"w{number}" for number in range(60)]
    documents = [(f"B{rng.random()}", " ".join(rng.choices(words, k=rng.randrange(9)))) for _ in range(200)]
    index = made(tmp_path, documents)
    for length in (engine._PRUNED_TERMS, engine._PRUNED_TERMS + 1, 25, 60):
        query = " ".join(rng.sample(words, length) + rng.choices(words, k=5))
        for top in (1, 7, 50, 1000):
            assert index.search(query, top) == ranking(documents, query, top)


def test_runs_and_ranges_do_not_change_the_files(tmp_path, monkeypatch):
    rng = random.Random(1)
    documents = [(f"B{number}", " ".join(rng.choices(WORDS, k=rng.randrange(30)))) for number in range(80)]
    SearchIndex.build(documents, tmp_path / "whole")
    monkeypatch.setattr(index_writer, "_RUN_TOKENS", 50)
    monkeypatch.setattr(index_writer, "_MERGED_POSTINGS", 70)
    SearchIndex.build(iter(documents), tmp_path / "pieces", total=80)
    names = sorted(file.name for file in (tmp_path / "whole").iterdir())
    assert names == sorted(file.name for file in (tmp_path / "pieces").iterdir())
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "pieces" / name).read_bytes(), name


# ---------------------------------------------------------------------------------------------------------------------
# Hostile and empty input.


@pytest.mark.parametrize(
    "query",
    [
        *("", " ", "the of and", "xyzzy", "\x00\x01\x02", "<r>", "[]", "\ud800", "\U0001f45f", "%s{0}\\", "' OR 1=1"),
        *("x" * 10**6, "zzz " * 250_000, "_" * 10**6, "\u0301" * 10**6, "\u200d" * 10**6),
    ],
    ids=lambda query: ascii(query[:12]),
)
def test_a_query_without_a_known_word_finds_nothing(small, query):
    assert small.search(query) == []


def test_a_known_word_is_found_among_anything(small):
    assert small.search("<script>alert('lamp')</script>") == [2]
    assert small.search("\x00lamp\x01") == [2]
    assert small.search("lamp " * 200_000) == [2]
    assert small.search(" ".join(f"w{number}" for number in range(5000)) + " lamp") == []  # Beyond MAX_QUERY_TERMS.


def test_hostile_documents_are_indexed(tmp_path):
    texts = ["\x00", "x" * 10**5, "red " * 70_000, "\ud800 red", "<b>red</b>", "\u0301\u200d"]
    texts.append(" ".join(map(str, range(9999))))
    documents = [(f"B{number}\ud800", text) for number, text in enumerate(texts)]
    index = made(tmp_path, documents)
    assert index.search("red 9998") == ranking(documents, "red 9998", 50)
    assert index.search("x" * 255) == [1]


@pytest.mark.parametrize("texts", [[], ["", "the"]])
def test_an_index_without_tokens_finds_nothing(tmp_path, texts):
    index = made(tmp_path, [(f"B{number}", text) for number, text in enumerate(texts)])
    assert len(index) == len(texts)
    assert index.search("red shoe") == []


def test_nobody_can_write_to_an_opened_index(tmp_path):
    index = made(tmp_path, DOCUMENTS)
    with pytest.raises(ValueError, match="read-only"):
        index._posting_documents[0] = 0


# ---------------------------------------------------------------------------------------------------------------------
# Folders that hold no index.


def test_an_index_that_was_never_built(tmp_path):
    with pytest.raises(TaskError, match=r"index\.json is missing.*Try: build the index again"):
        SearchIndex.open(tmp_path / "nowhere")


def test_a_build_that_is_cut_off_leaves_no_index(tmp_path):
    made(tmp_path, DOCUMENTS)

    def documents():
        yield DOCUMENTS[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SearchIndex.build(documents(), tmp_path)
    with pytest.raises(TaskError, match=r"index\.json is missing"):
        SearchIndex.open(tmp_path)
    assert not (tmp_path / "runs").exists()
    assert made(tmp_path, DOCUMENTS).search("lamp") == [2]


NAMES = (
    *("positions", "impacts", "offsets", "strongest", "posting_documents", "posting_impacts"),
    *("vocabulary", "vocabulary_offsets", "vocabulary_terms"),
)


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_file_is_named(tmp_path, name):
    made(tmp_path, DOCUMENTS)
    file = tmp_path / f"{name}.npy"
    whole = file.read_bytes()
    for kept in (len(whole) - 1, 60, 0):
        file.write_bytes(whole[:kept])
        with pytest.raises(TaskError, match=rf"{name}\.npy, a part of the search index, is truncated"):
            SearchIndex.open(tmp_path)
    np.save(file, np.zeros(1000))
    with pytest.raises(TaskError, match=rf"{name}\.npy holds float64 \(1000,\), but the search index needs"):
        SearchIndex.open(tmp_path)
    file.unlink()
    with pytest.raises(TaskError, match=rf"{name}\.npy, a part of the search index, is missing"):
        SearchIndex.open(tmp_path)


def test_all_files_are_tried(tmp_path):
    made(tmp_path, DOCUMENTS)
    assert {file.name for file in tmp_path.iterdir()} == {"index.json", *(f"{name}.npy" for name in NAMES)}


def test_another_version_is_refused(tmp_path):
    made(tmp_path, DOCUMENTS)
    file = tmp_path / "index.json"
    content = json.loads(file.read_text())
    for key in ("format", "analyzer", "k1", "b"):
        file.write_text(json.dumps({**content, key: 99}))
        with pytest.raises(TaskError, match=rf"index\.json: the search index is of version.*'{key}': 99.*this"):
            SearchIndex.open(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00"])
def test_a_broken_description_is_refused(tmp_path, text):
    made(tmp_path, DOCUMENTS)
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(TaskError, match=r"index\.json, the description of a search index, is damaged"):
        SearchIndex.open(tmp_path)


def test_a_description_that_lacks_a_file_is_refused(tmp_path):
    made(tmp_path, DOCUMENTS)
    file = tmp_path / "index.json"
    content = json.loads(file.read_text())
    del content["arrays"]["offsets"]
    file.write_text(json.dumps(content))
    with pytest.raises(TaskError, match=r"index\.json.* has no 'offsets'"):
        SearchIndex.open(tmp_path)
