# SPDX-License-Identifier: Apache-2.0
"""Tokens of a text, as Anserini's DefaultEnglishAnalyzer over Lucene 9 computes them.

Words are those of Unicode Standard Annex 29 (version 12.1), with Lucene's additions: an emoji sequence is a token, a
Han or Hiragana character is a token by itself, a run of Thai, Lao, Khmer or Burmese is one token, and no token is
longer than 255 characters. Then a possessive 's is removed, letters become lower-case, 33 stop words are removed, and
Porter's stemmer runs. Letters of later Unicode versions are words as well; Lucene ignores them.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import groupby

import regex

from agent_system.environments.webshop.search.stemmer import stem

ANALYZER_VERSION = 1
"""Increase it with every change of what `analyze` returns: an index records the version that made it."""

STOP_WORDS = frozenset(
    [
        *("a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it", "no", "not"),
        *("of", "on", "or", "such", "that", "the", "their", "then", "there", "these", "they", "this", "to", "was"),
        *("will", "with"),
    ]
)
MAX_TOKEN_LENGTH = 255

_POSSESSIVES = ("'s", "\u2019s", "\uff07s", "'S", "\u2019S", "\uff07S")

_CACHED_WORDS = 1 << 16
"""About 13 MB; in product texts the cache has 19 of 20 words."""

_PICTOGRAPHS = (
    r"\xA9\xAE\u203C\u2049\u2122\u2139\u2194-\u2199\u21A9\u21AA\u231A\u231B\u2328\u2388\u23CF\u23E9-\u23F3\u23F8-\u23FA"
    r"\u24C2\u25AA\u25AB\u25B6\u25C0\u25FB-\u25FE\u2600-\u2605\u2607-\u2612\u2614-\u2685\u2690-\u2705\u2708-\u2712\u2714"
    r"\u2716\u271D\u2721\u2728\u2733\u2734\u2744\u2747\u274C\u274E\u2753-\u2755\u2757\u2763-\u2767\u2795-\u2797\u27A1"
    r"\u27B0\u27BF\u2934\u2935\u2B05-\u2B07\u2B1B\u2B1C\u2B50\u2B55\u3030\u303D\u3297\u3299\U0001F000-\U0001F0FF"
    r"\U0001F10D-\U0001F10F\U0001F12F\U0001F16C-\U0001F171\U0001F17E\U0001F17F\U0001F18E\U0001F191-\U0001F19A"
    r"\U0001F1AD-\U0001F1E5\U0001F201-\U0001F20F\U0001F21A\U0001F22F\U0001F232-\U0001F23A\U0001F23C-\U0001F23F"
    r"\U0001F249-\U0001F3FA\U0001F400-\U0001F53D\U0001F546-\U0001F64F\U0001F680-\U0001F6FF\U0001F774-\U0001F77F"
    r"\U0001F7D5-\U0001F7FF\U0001F80C-\U0001F80F\U0001F848-\U0001F84F\U0001F85A-\U0001F85F\U0001F888-\U0001F88F"
    r"\U0001F8AE-\U0001F8FF\U0001F90C-\U0001F93A\U0001F93C-\U0001F945\U0001F947-\U0001FFFD"
)
"""Extended_Pictographic of Unicode 12.1. Later versions removed symbols, for example the filled star."""


def _word_pattern(letter: str, digit: str, joiner: str, mid_letter: str, mid_digit: str, other: str = "") -> str:
    """UAX 29's rules WB5 to WB13b as one expression, from expressions for one character of each class.

    `joiner` is ExtendNumLet (the underscore); a run of joiners alone matches too, so that a long one is read once.
    `other` is a further kind of run, which only a joiner connects to letters and digits. Every repetition is
    possessive: the expression never backtracks, and its time is linear in the text.
    """
    run = f"(?:(?:{letter})++(?:{mid_letter}(?:{letter})++)*+|(?:{digit})++(?:{mid_digit}(?:{digit})++)*+)++"
    if other:
        run = f"(?:{run}|(?:{other})++)"
    return f"(?:{joiner})++(?:{run}(?:{joiner})*+)*+|{run}(?:(?:{joiner})++(?:{run})?+)*+"


_ASCII_WORDS = re.compile(_word_pattern("[A-Za-z]", "[0-9]", "_", "[:.']", "[.,;']"))


def _unicode_words() -> regex.Pattern:
    marks = r"[\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}]*+"
    plain_mark = r"[[\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}]--[\uFE0E\uFE0F]]"
    plain_marks = f"{plain_mark}*+"
    hebrew = rf"\p{{WB=Hebrew_Letter}}{marks}"
    letter = rf'{hebrew}(?:\'{marks}(?!{hebrew})|"{marks}{hebrew})?+|\p{{WB=ALetter}}{marks}'
    word = _word_pattern(
        letter=letter,
        digit=rf"[\p{{WB=Numeric}}\uFF10-\uFF19]{marks}",
        joiner=rf"\p{{WB=ExtendNumLet}}{marks}",
        # Single quotes and dots (MidNumLet) are allowed between letters as well as between digits.
        mid_letter=rf"[:\uFF1A'\p{{WB=MidLetter}}\p{{WB=MidNumLet}}]{marks}",
        mid_digit=rf"['\uFE10\uFE14\u2044\p{{WB=MidNum}}\p{{WB=MidNumLet}}]{marks}",
        other=rf"\p{{WB=Katakana}}{marks}",
    )
    # In UAX 29 a skin tone is a mark; in Lucene one that follows nothing is a picture.
    picture = rf"[\U0001F3FB-\U0001F3FF{_PICTOGRAPHS}]{plain_marks}\uFE0F?+"
    # A joiner is also a mark of the picture before it, hence the look-behind. A run of joiners matches at its start
    # only: hostile text is read in linear time.
    emoji = rf"(?:(?<!\u200D)\u200D++)?+{picture}(?:\u200D*+(?<=\u200D){picture})*+"
    flag = rf"(?:\p{{WB=Regional_Indicator}}{marks}){{2}}"
    # A digit with a key cap is a word like any other.
    keycap = rf"[#*](?:(?!\u20E3){plain_mark})*+\uFE0F?+\u20E3{plain_marks}"
    single = rf"[\p{{Script=Han}}\p{{Script=Hiragana}}]{marks}"
    south_east_asian = rf"(?:\p{{LB=SA}}{marks})++"
    parts = "|".join((word, emoji, flag, keycap, south_east_asian, single))
    return regex.compile(f"(?V1){parts}")


_UNICODE_WORDS = _unicode_words()


def analyze(text: str) -> list[str]:
    """The tokens of `text`, in order. Any string is accepted; one without words gives an empty list."""
    return [token for token in map(_token, split_words(text)) if token]


def split_words(text: str) -> list[str]:
    """The words of `text` as they are written, in order, stop words included."""
    if text.isascii():
        words = _ASCII_WORDS.findall(text)
    else:
        # No word contains a space, and most stretches of a product text are ASCII, which is five times as fast.
        words = []
        for is_ascii, stretch in groupby(text.split(" "), str.isascii):
            words += (_ASCII_WORDS if is_ascii else _UNICODE_WORDS).findall(" ".join(stretch))
    if len(text) > MAX_TOKEN_LENGTH and max(map(len, words), default=0) > MAX_TOKEN_LENGTH:
        words = [piece for word in words for piece in _pieces(word)]
    return words


def _pieces(word: str) -> list[str]:
    """Lucene's scanner sees 255 characters at a time: it takes the longest word in them and continues after it."""
    if len(word) <= MAX_TOKEN_LENGTH:
        return [word]
    pattern = _ASCII_WORDS if word.isascii() else _UNICODE_WORDS
    pieces, start = [], 0
    while start < len(word):
        match = pattern.match(word, start, start + MAX_TOKEN_LENGTH)
        if match:
            pieces.append(match.group())
            start = match.end()
        else:
            start += 1
    return pieces


def normalize(word: str) -> str:
    """A word in lower case without a possessive 's, as the stemmer gets it; the empty string for a stop word."""
    if word.endswith(_POSSESSIVES):
        word = word[:-2]
    # One character at a time, as Java does: no final sigma, and a dotted capital I becomes a plain i.
    word = word.lower() if word.isascii() else "".join(letter.lower()[0] for letter in word)
    return "" if word in STOP_WORDS or not word.strip("_") else word


@lru_cache(_CACHED_WORDS)
def _token(word: str) -> str:
    return stem(normalize(word))
