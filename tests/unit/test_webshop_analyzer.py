# SPDX-License-Identifier: Apache-2.0
"""Text to search tokens: Lucene's own tokens of the published products, and each rule by hand."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.stem.porter import PorterStemmer

from agent_system.environments.webshop.generator.catalogue import CatalogueSpec, write_catalogue
from agent_system.environments.webshop.products import read_products
from agent_system.environments.webshop.search.analyzer import MAX_TOKEN_LENGTH, analyze, normalize, split_words
from agent_system.environments.webshop.search.stemmer import stem

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "webshop"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is absent")


def unpack(name: str, folder: Path) -> Path:
    file = folder / name
    file.write_bytes(gzip.decompress((DATA / f"{name}.gz").read_bytes()))
    return file


# ---------------------------------------------------------------------------------------------------------------------
# Lucene's tokens.


@needs_data
def test_products_have_the_tokens_that_lucene_finds(tmp_path):
    expected = json.loads(unpack("lucene_doc_tokens.json", tmp_path).read_text(encoding="utf-8"))
    items, attributes = unpack("items_shuffle_1000.json", tmp_path), unpack("items_ins_v2_1000.json", tmp_path)
    found = {product.asin: analyze(product.searched_text) for product in read_products(items, attributes)}
    assert len(found) == 1000
    assert found == expected


@needs_data
def test_queries_have_the_tokens_that_lucene_finds(tmp_path):
    oracle = json.loads(unpack("lucene_top50.json", tmp_path).read_text(encoding="utf-8"))
    assert len(oracle) == 1500
    assert [analyze(one["query"]) for one in oracle] == [one["tokens"] for one in oracle]


# ---------------------------------------------------------------------------------------------------------------------
# Words.


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        (" \t\n", []),
        ("The and OF to", []),
        ("Women's shoes", ["women", "shoe"]),
        ("women\u2019s SHOE\uff07S", ["women", "shoe"]),
        ("boys' toys", ["boi", "toi"]),
        ("it's", []),  # What is left of it is a stop word.
        ("don't o'neill's", ["don't", "o'neil"]),
        ("size: m", ["size", "m"]),
        ("description:solid a\uff1ab", ["description:solid", "a\uff1ab"]),
        ("3.5mm 1,000 1.5.2 5. 1;2", ["3.5mm", "1,000", "1.5.2", "5", "1;2"]),
        ("1,a a,b 1:2 a;b", ["1", "b", "1", "2", "b"]),
        ("1\u20442 1/2", ["1\u20442", "1", "2"]),
        ("e.l.f u.s.", ["e.l.f", "u."]),  # The stemmer takes the s for a plural.
        ("wi-fi t-shirt", ["wi", "fi", "t", "shirt"]),
        ("black_white __ _x_", ["black_whit", "_x_"]),
        ("15x1x0.4cm 802.11b", ["15x1x0.4cm", "802.11b"]),
        ("caf\u00e9 cre\u0300me \u00c2RYA", ["caf\u00e9", "cre\u0300m", "\u00e2rya"]),
        ("\u0130stanbul \u03a3\u039f\u03a3", ["istanbul", "\u03c3\u03bf\u03c3"]),
        ('\u05d0\u05d1\u05f4\u05d2 \u05d0"\u05d1 a"b', ["\u05d0\u05d1\u05f4\u05d2", '\u05d0"\u05d1', "b"]),
        ("joggers\u00b7not soft\u00adhyphen", ["joggers\u00b7not", "soft\u00adhyphen"]),
    ],
)
def test_words(text, tokens):
    assert analyze(text) == tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("\u91cd\u91cf", ["\u91cd", "\u91cf"]),
        ("\u3072\u3089", ["\u3072", "\u3089"]),
        ("\u30a2\u30a4a", ["\u30a2\u30a4"]),
        ("\u30a2_b", ["\u30a2_b"]),
        ("\u0e01\u0e02 \u0e04", ["\u0e01\u0e02", "\u0e04"]),
        ("\uc77c\ud488", ["\uc77c\ud488"]),
        ("\uff11\uff12", ["\uff11\uff12"]),
    ],
)
def test_other_scripts(text, tokens):
    assert analyze(text) == tokens


@pytest.mark.parametrize("symbol", "\u2605\u2661\u2764\u2714\u00ae\u2122\u2733")
def test_a_pictograph_is_a_token(symbol):
    assert analyze(f"soft{symbol}wool {symbol}{symbol}") == ["soft", symbol, "wool", symbol, symbol]


@pytest.mark.parametrize("symbol", "\u2606\u273f\u27a4\u2713\u2022#*\u20ac$%&<>|\\\x00\x07")
def test_other_symbols_are_not(symbol):
    assert analyze(f"soft{symbol}wool {symbol}{symbol}") == ["soft", "wool"]


@pytest.mark.parametrize(
    "sequence",
    [
        "\u2764\ufe0f",
        "\U0001f44d\U0001f3fd",
        "\U0001f468\u200d\U0001f4bc",
        "\U0001f469\U0001f3fd\u200d\u2764\ufe0f\u200d\U0001f468",
        "\U0001f1fa\U0001f1f8",
        "#\ufe0f\u20e3",
        "*\u20e3",
        "\U0001f3f4\U000e0067\U000e0062\U000e007f",
    ],
)
def test_an_emoji_sequence_is_one_token(sequence):
    assert analyze(f"a1 {sequence}b1{sequence}") == ["a1", sequence, "b1", sequence]


def test_a_skin_tone_belongs_to_what_it_follows():
    tone = "\U0001f3fd"
    assert analyze(f"{tone} b1{tone} \u261d{tone} \u261d\ufe0f{tone}") == [
        tone,
        f"b1{tone}",
        f"\u261d{tone}",
        "\u261d\ufe0f",
        tone,
    ]


def test_flags_are_pairs():
    assert analyze("\U0001f1fa\U0001f1f8\U0001f1e9") == ["\U0001f1fa\U0001f1f8"]


def test_no_token_is_longer_than_the_scanner_sees():
    assert list(map(len, analyze("x" * 600))) == [255, 255, 90]
    assert list(map(len, analyze("\u00e9" * 600))) == [255, 255, 90]
    # 254 letters and a dot: the dot waits for a letter that the scanner does not see.
    assert list(map(len, analyze("x" * 254 + ".xx"))) == [254, 2]


@given(st.text(max_size=300))
def test_any_text_has_the_same_tokens_between_other_words(text):
    tokens = analyze(text)
    assert all(tokens)
    assert max(map(len, tokens), default=0) <= MAX_TOKEN_LENGTH
    assert analyze(f"wool {text} wool") == ["wool", *tokens, "wool"]


@given(st.text(alphabet="aB9_.,:;'\"\u2019 \u00e9\u0301\u200d\u30a2\u2605\U0001f3fd\ufe0f", max_size=40))
def test_what_a_space_divides_is_read_apart(text):
    tokens = [token for part in text.split(" ") for token in analyze(part)]
    assert analyze(text) == tokens


@given(st.text(alphabet="abAB019_.,:;'- ", max_size=60))
def test_the_two_expressions_agree_on_ascii(text):
    # A letter of another script in the same stretch brings in the expression for all of Unicode.
    glued = text.replace(" ", "-")
    assert analyze(f"{glued}-\u00e9") == [*analyze(text), "\u00e9"]


# ---------------------------------------------------------------------------------------------------------------------
# Stems. The examples are those of Porter's paper, step by step, run through all steps.


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        *[("caresses", "caress"), ("ponies", "poni"), ("ties", "ti"), ("caress", "caress"), ("cats", "cat")],
        *[("feed", "feed"), ("agreed", "agre"), ("plastered", "plaster"), ("bled", "bled"), ("motoring", "motor")],
        *[("sing", "sing"), ("conflated", "conflat"), ("troubled", "troubl"), ("sized", "size"), ("hopping", "hop")],
        *[("tanned", "tan"), ("falling", "fall"), ("hissing", "hiss"), ("fizzed", "fizz"), ("failing", "fail")],
        *[("filing", "file"), ("happy", "happi"), ("sky", "sky"), ("relational", "relat"), ("rational", "ration")],
        *[("conditional", "condit"), ("valenci", "valenc"), ("digitizer", "digit"), ("conformabli", "conform")],
        *[("radicalli", "radic"), ("differentli", "differ"), ("vileli", "vile"), ("analogousli", "analog")],
        *[("vietnamization", "vietnam"), ("predication", "predic"), ("operator", "oper"), ("feudalism", "feudal")],
        *[("decisiveness", "decis"), ("hopefulness", "hope"), ("callousness", "callous"), ("formaliti", "formal")],
        *[("sensitiviti", "sensit"), ("sensibiliti", "sensibl"), ("triplicate", "triplic"), ("formative", "form")],
        *[("formalize", "formal"), ("electriciti", "electr"), ("electrical", "electr"), ("hopeful", "hope")],
        *[("goodness", "good"), ("revival", "reviv"), ("allowance", "allow"), ("airliner", "airlin")],
        *[("adjustable", "adjust"), ("irritant", "irrit"), ("replacement", "replac"), ("adjustment", "adjust")],
        *[("adoption", "adopt"), ("homologou", "homolog"), ("communism", "commun"), ("effective", "effect")],
        *[("probate", "probat"), ("rate", "rate"), ("cease", "ceas"), ("controll", "control"), ("roll", "roll")],
        *[("generalizations", "gener"), ("oscillators", "oscil"), ("technology", "technolog"), ("by", "by")],
        # The departures: "bli", and "logi", whose stem must have a measure without the l.
        *[("possibly", "possibl"), ("archaeology", "archaeolog"), ("biology", "biologi"), ("is", "is"), ("ion", "ion")],
        *[("yes", "ye"), ("toys", "toi"), ("aed", "a"), ("eed", "eed"), ("dyed", "dy"), ("3ds", "3d")],
    ],
)
def test_stems(word, expected):
    assert stem(word) == expected


@given(st.text(alphabet="abcdeilnstuyz", max_size=12))
def test_a_stem_is_not_longer_than_its_word(word):
    assert len(stem(word)) <= max(len(word), 1)
    assert len(word) < 3 or stem(word)


# ---------------------------------------------------------------------------------------------------------------------
# The same algorithm in nltk is the oracle.

oracle = PorterStemmer(mode=PorterStemmer.MARTIN_EXTENSIONS).stem


def check_catalogue(items: Path, attributes: Path, least: int) -> None:
    """Every word of a catalogue's texts has the oracle's stem."""
    words = set()
    for product in read_products(items, attributes):
        texts = (product.searched_text, *product.bullets, *product.attributes, product.product_category)
        words.update(map(normalize, split_words(" ".join((*texts, product.instruction or "")))))
    words.discard("")
    assert len(words) > least
    assert {word: stem(word) for word in words} == {word: oracle(word) for word in words}


def test_generated_words_have_the_oracles_stems(tmp_path):
    write_catalogue(tmp_path, CatalogueSpec(products=3000))
    check_catalogue(tmp_path / "items_shuffle.json", tmp_path / "items_ins_v2.json", 3000)


@needs_data
def test_published_words_have_the_oracles_stems(tmp_path):
    check_catalogue(unpack("items_shuffle_1000.json", tmp_path), unpack("items_ins_v2_1000.json", tmp_path), 18_000)


SUFFIXES = ["ed", "ing", "ational", "bli", "logi", "eed", "ies", "iveness", "ization", "ement", "sion", "tion", "ll"]


@given(
    st.text(alphabet="abceilnorstuyz'3\u00e9", max_size=8),
    st.sampled_from(["", *SUFFIXES]),
    st.sampled_from(["", "s", "e", "y", "ful"]),
)
def test_any_word_has_the_oracles_stem(start, suffix, ending):
    word = start + suffix + ending
    assert stem(word) == oracle(word)
