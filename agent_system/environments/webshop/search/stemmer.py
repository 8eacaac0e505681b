# SPDX-License-Identifier: Apache-2.0
"""The Porter stemmer as Lucene runs it.

M. F. Porter, "An algorithm for suffix stripping", Program 14(3), 1980, with the two changes of the author's own later
program, which Lucene includes: step 2 turns "bli" into "ble" (1980: "abli" into "able") and has the rule "logi" to
"log".

Every word has the form `[C](VC)^m[V]`; m, its measure, is the number of vowel runs that a consonant run follows.
All characters but a, e, i, o, u and y are consonants: digits, punctuation and letters of other scripts too.

nltk's `PorterStemmer(mode=MARTIN_EXTENSIONS)` is the same function, and the oracle of the tests. It is not used here
because of its cost in every process that searches (`python benchmarks/webshop_stemmer.py --source DIR`, nltk 3.10.4,
two shared cores):

    words of the published 1,000 products, of 20,000 generated ones        18,156, 8,550; none stemmed differently
    microseconds per word                                                  4.8 here, 11.4 in nltk
    memory of a process with 256 environments, and what nltk adds to it    42 MB, 62 to 75 MB (it imports scipy)
"""

from __future__ import annotations

from collections.abc import Iterable

_VOWELS = frozenset("aeiou")

_STEP_2 = (
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("logi", "log"),
)
_STEP_3 = (
    ("icate", "ic"),
    ("ative", ""),
    ("alize", "al"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ful", ""),
    ("ness", ""),
)
_STEP_4 = (
    *("al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "sion", "tion", "ou", "ism"),
    *("ate", "iti", "ous", "ive", "ize"),
)
"""Of "sion" and "tion" only "ion" is removed; the letter before it belongs to the stem whose measure counts."""


def stem(word: str) -> str:
    """The stem of a lower-case `word`. Words of one or two characters are not changed."""
    if len(word) < 3:
        return word
    word = _plural(word)
    word = _past_or_participle(word)
    if word.endswith("y") and "v" in _shape(word[:-1]):
        word = word[:-1] + "i"
    word = _replace(word, _STEP_2)
    word = _replace(word, _STEP_3)
    word = _strip(word)
    return _final_e_and_double_l(word)


def _shape(text: str) -> str:
    """`text` as a string of "c" and "v": a y is a vowel exactly where it follows a consonant."""
    shape = []
    previous = "v"
    for letter in text:
        if letter in _VOWELS or (letter == "y" and previous == "c"):
            previous = "v"
        else:
            previous = "c"
        shape.append(previous)
    return "".join(shape)


def _measure(text: str) -> int:
    return _shape(text).count("vc")


def _ends_in_short_syllable(text: str) -> bool:
    """Consonant, vowel, consonant, and the last is not w, x or y: an e was dropped here (hop-ing from hope)."""
    return len(text) > 2 and _shape(text).endswith("cvc") and text[-1] not in "wxy"


def _ends_in_double_consonant(text: str) -> bool:
    return len(text) > 1 and text[-1] == text[-2] and _shape(text)[-1] == "c"


def _plural(word: str) -> str:
    if word.endswith(("sses", "ies")):
        return word[:-2]
    if word.endswith("s") and not word.endswith("ss"):
        return word[:-1]
    return word


def _past_or_participle(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    for suffix in ("ed", "ing"):
        if word.endswith(suffix):
            rest = word[: -len(suffix)]
            return _restore_ending(rest) if "v" in _shape(rest) else word
    return word


def _restore_ending(rest: str) -> str:
    if rest.endswith(("at", "bl", "iz")):
        return rest + "e"
    if _ends_in_double_consonant(rest):
        return rest if rest[-1] in "lsz" else rest[:-1]
    if _measure(rest) == 1 and _ends_in_short_syllable(rest):
        return rest + "e"
    return rest


def _replace(word: str, rules: Iterable[tuple[str, str]]) -> str:
    """Apply the first rule whose suffix matches, if the measure allows it; no later rule is tried."""
    for suffix, replacement in rules:
        if word.endswith(suffix):
            rest = word[: -len(suffix)]
            return rest + replacement if _measure(rest) > 0 else word
    return word


def _strip(word: str) -> str:
    for suffix in _STEP_4:
        if word.endswith(suffix):
            rest = word[:-3] if suffix in ("sion", "tion") else word[: -len(suffix)]
            return rest if _measure(rest) > 1 else word
    return word


def _final_e_and_double_l(word: str) -> str:
    if word.endswith("e"):
        rest = word[:-1]
        measure = _measure(rest)
        if measure > 1 or (measure == 1 and not _ends_in_short_syllable(rest)):
            word = rest
    if word.endswith("ll") and _measure(word) > 1:
        word = word[:-1]
    return word
