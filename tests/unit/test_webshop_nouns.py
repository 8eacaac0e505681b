# SPDX-License-Identifier: Apache-2.0
"""Nouns of titles: the built-in tagger by hand, the choice of taggers, and agreement with spaCy where its model is."""

from __future__ import annotations

import gzip
import importlib.util
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent_system.environments.webshop.nouns import (
    SPACY_PACKAGES,
    LexiconTagger,
    SpacyTagger,
    best_tagger,
    tagger_by_name,
)
from agent_system.errors import TaskError

ROOT = Path(__file__).resolve().parents[2]
TITLES = ROOT.parent / "shared" / "data" / "webshop" / "items_shuffle_1000.json.gz"
HAS_MODEL = any(importlib.util.find_spec(package) for package in SPACY_PACKAGES)


@pytest.mark.parametrize(
    ("title", "nouns"),
    [
        ("Women's Casual T-Shirt with Pockets", "women casual t shirt pockets"),
        ("Dining Table Set for 4, Made in the USA", "dining table set usa"),
        ("100% Pure Shampoo (13.5 Fl Oz) Sulfate Free", "pure shampoo fl oz sulfate free"),
        ("USB Cable 6ft, Fast Charging, 3D printed", "usb cable ft fast charging 3d"),
        ("cooling fan CUH-7015b for the old playstation", "fan cuh-7015b playstation"),
        ("soft comfortable slippers for indoor walking", "slippers"),
        ("Black/White Sneaker and Sandal", "black white sneaker sandal"),
        ("clothing storage box, easily assembled", "clothing storage box"),
        ("Bag Bag bag", "bag bag bag"),
        ("★ ♡ 【】 — | 12 24", ""),
        ("", ""),
    ],
)
def test_nouns_by_hand(title, nouns):
    assert LexiconTagger().nouns([title]) == [nouns.split()]


@given(st.lists(st.text(max_size=80), max_size=4))
@example(["it's 5'2\"x7'4 ΑΣ'Β İ ß ǅ 3²"])
@example(["-" * 50_000 + "a.b" * 20_000 + "1-" * 20_000])
def test_any_text_gives_lower_case_pieces_of_itself(titles):
    found = LexiconTagger().nouns(titles)
    assert len(found) == len(titles)
    for title, nouns in zip(titles, found, strict=True):
        folded = title.casefold()
        position = 0
        for noun in nouns:
            assert noun == noun.lower()
            position = folded.index(noun.casefold(), position) + len(noun.casefold())


def test_titles_are_tagged_one_by_one():
    titles = ["Oak Desk", "", "Lip Balm with Honey"]
    tagger = LexiconTagger()
    assert tagger.nouns(titles) == [tagger.nouns([title])[0] for title in titles]


def test_taggers_by_name():
    assert tagger_by_name("lexicon").name == tagger_by_name(LexiconTagger().name).name == LexiconTagger().name
    assert best_tagger().name.startswith("spacy:en_core_web_sm@" if HAS_MODEL else "lexicon@")
    assert tagger_by_name(best_tagger().name).name == best_tagger().name
    with pytest.raises(TaskError, match="'lexicon@0' is needed"):
        tagger_by_name("lexicon@0")
    with pytest.raises(TaskError, match="unknown"):
        tagger_by_name("nltk")


def test_a_missing_model_is_an_error_that_names_the_package():
    with pytest.raises(TaskError, match="not installed as en_core_web_absent.*pip install"):
        SpacyTagger("en_core_web_absent")


@pytest.mark.parametrize(
    ("version", "complaint"), [("3.8.0", "tok2vec/model is not the file"), ("9.9", "is not a known release")]
)
def test_a_copy_with_other_weights_is_refused(tmp_path, monkeypatch, version, complaint):
    package = tmp_path / "republished_model"
    weights = package / f"republished_model-{version}" / "tok2vec" / "model"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"other weights")
    (package / "__init__.py").write_text("raise SystemExit('the package must not be run')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TaskError, match=complaint):
        SpacyTagger("republished_model")


def test_spacy_is_not_imported_by_the_module():
    code = (
        "import sys, agent_system.environments.webshop.nouns as n; n.LexiconTagger().nouns(['Oak Desk']);"
        "print([m for m in ('spacy', 'torch') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.skipif(not HAS_MODEL, reason="spaCy's model is not installed")
@pytest.mark.skipif(not TITLES.exists(), reason="the published titles are not in ../shared/data/webshop")
def test_the_lexicon_agrees_with_spacy_on_published_titles():
    titles = [product["name"] for product in json.loads(gzip.decompress(TITLES.read_bytes()))]
    theirs, ours = tagger_by_name("spacy").nouns(titles), LexiconTagger().nouns(titles)
    both = sum((Counter(a) & Counter(b)).total() for a, b in zip(theirs, ours, strict=True))
    assert both / sum(map(len, ours)) > 0.94
    assert both / sum(map(len, theirs)) > 0.95
