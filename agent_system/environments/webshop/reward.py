# SPDX-License-Identifier: Apache-2.0
"""The score of a purchase: type, attributes, options and price (WebShop, Yao et al. 2022, section 3.1).

    score = type * (attributes met + options met + [price <= bound]) / (attributes required + options required + 1)

`legacy` reproduces the released simulator exactly. `fixed` differs in one rule: a synthetic goal's option is met only
by that value of that group. The simulator compares a normalised value with the words "group value" of the goal, so
that some goals cannot be met at all (of "color green2" only "green" is compared) and others are met by the wrong value
("large" is part of "size x-large").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Any

from agent_system.environments.webshop.goals import Goal, Split
from agent_system.environments.webshop.products import Product

MATCH_THRESHOLD = 85
"""`token_set_ratio` above which two phrases count as equal."""

# Listed by the original in this order (MIT License, Copyright (c) 2022 Princeton Natural Language Processing).
COLORS = (
    "alabaster", "apricot", "aqua", "ash", "asphalt", "azure", "banana", "beige", "black", "blue", "blush",
    "bordeaux", "bronze", "brown", "burgundy", "camel", "camo", "caramel", "champagne", "charcoal", "cheetah",
    "chestnut", "chocolate", "christmas", "coffee", "cognac", "copper", "coral", "cranberry", "cream", "crystal",
    "dark", "denim", "eggplant", "elephant", "espresso", "fuchsia", "gold", "granite", "grape", "graphite",
    "grass", "gray", "green", "grey", "heather", "indigo", "ivory", "ivy", "khaki", "lavender", "lemon", "leopard",
    "light", "lilac", "lime", "magenta", "maroon", "mauve", "merlot", "midnight", "mint", "mocha", "multicolor",
    "mushroom", "mustard", "natural", "navy", "nude", "olive", "orange", "peach", "pewter", "pink", "plum",
    "purple", "rainbow", "red", "rose", "royal", "rust", "sand", "sapphire", "seashell", "silver", "skull",
    "slate", "steel", "stone", "stonewash", "sunflower", "tan", "taupe", "teal", "tiger", "turquoise", "violet",
    "walnut", "wheat", "white", "wine", "yellow",
)  # fmt: skip
"""A phrase is compared as the first of these colours that it contains."""


@dataclass(frozen=True)
class Score:
    """The score of a purchase. All fractions are between 0 and 1.

    Attributes:
        total: the score; exactly 1.0 is success.
        type: factor for buying the right kind of product.
        query_match, category_match, title_score: the terms of `type`.
        attributes: fraction of the required attributes that the product has; None if none are required.
        options: fraction of the required options that were chosen; None if none are required.
        price: whether the price is within the bound.
        attributes_weight, options_weight, price_weight: weight of each part in the sum.
    """

    total: float
    type: float
    query_match: bool
    category_match: bool
    title_score: float
    attributes: float | None
    options: float | None
    price: bool
    attributes_weight: float
    options_weight: float
    price_weight: float

    def as_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


def score_purchase(
    bought: Product,
    chosen: Mapping[str, str],
    price: float,
    goal: Goal,
    bought_nouns: Iterable[str],
    goal_nouns: Iterable[str],
    split: Split,
) -> Score:
    """Score a purchase.

    Args:
        bought: the product.
        chosen: the value chosen in each option group.
        price: its price in dollars (`GoalTable.price`, not the tag).
        goal: the task.
        bought_nouns, goal_nouns: nouns of the two products' titles, with repeats, lower case.
        split: selects the rule for options.
    """
    query_match = bought.query == goal.product.query
    category_match = len(_path(bought.product_category) & _path(goal.product.product_category)) >= 2
    title = title_score(bought_nouns, list(goal_nouns))
    kind = type_factor(query_match, category_match, title)
    attributes_met = sum(has_attribute(bought, attribute) for attribute in goal.attributes)
    if isinstance(goal.options, Mapping) and split is Split.FIXED:
        options_met = sum(chosen.get(name) == value for name, value in goal.options.items())
    else:
        options_met = count_options_met(chosen.values(), goal.options)
    affordable = price <= goal.price_upper
    parts = len(goal.attributes) + len(goal.options) + 1
    return Score(
        total=kind * ((attributes_met + options_met + affordable) / parts),
        type=kind,
        query_match=query_match,
        category_match=category_match,
        title_score=title,
        attributes=attributes_met / len(goal.attributes) if goal.attributes else None,
        options=options_met / len(goal.options) if goal.options else None,
        price=affordable,
        attributes_weight=len(goal.attributes) / parts,
        options_weight=len(goal.options) / parts,
        price_weight=1 / parts,
    )


def type_factor(query_match: bool, category_match: bool, title: float) -> float:
    """Factor for the kind of product. A title without a common noun overrides matches of query and category."""
    if title == 0:
        return 0.0
    if title < 0.1:
        return 0.1
    return 1.0 if query_match or category_match or title > 0.2 else 0.5


def title_score(bought_nouns: Iterable[str], goal_nouns: list[str]) -> float:
    """Number of distinct common nouns over the number of nouns of the goal's title; 0.2 if that has none."""
    if not goal_nouns:
        return 0.2
    return len(set(bought_nouns) & set(goal_nouns)) / len(goal_nouns)


def has_attribute(product: Product, attribute: str) -> bool:
    """Whether one of the product's attributes matches, or one of its texts contains the attribute."""
    if any(token_set_ratio(known, attribute) > MATCH_THRESHOLD for known in product.attributes):
        return True
    texts = (product.title, " ".join(product.bullets), product.description)
    return any(attribute in text.lower() for text in texts)


def count_options_met(chosen: Iterable[str], required: Mapping[str, str] | Iterable[str]) -> int:
    """Number of required options that some chosen value meets, by the rules of the original."""
    values = [first_color(value) for value in chosen]
    if isinstance(required, Mapping):
        targets = [_pair_as_text(name, value) for name, value in required.items()]
    else:
        targets = [first_color(value) for value in required]
    return sum(any(token_set_ratio(value, target) > MATCH_THRESHOLD for value in values) for target in targets)


def first_color(phrase: str) -> str:
    """The first colour of `COLORS` that the phrase contains; the phrase itself if there is none."""
    return next((color for color in COLORS if color in phrase), phrase)


def _pair_as_text(name: str, value: str) -> str:
    # The original treats the pair like a phrase: "contains" then tests for an equal element, and the repr is compared.
    return next((color for color in COLORS if color in (name, value)), repr((name, value)))


@lru_cache(maxsize=65_536)
def token_set_ratio(first: str, second: str) -> int:
    """Similarity of two phrases as sets of words, 0 to 100, as in thefuzz 0.19 with Python's own matcher.

    The common words are compared with the words of each phrase, and these with each other; the largest ratio counts.
    The ratio is 100 if one phrase contains all words of the other.
    """
    words, others = _words(first), _words(second)
    if not words or not others:
        return 0
    common = " ".join(sorted(words & others))
    first_words, second_words = (
        f"{common} {' '.join(sorted(extra))}".strip() for extra in (words - others, others - words)
    )
    return max(_ratio(common, first_words), _ratio(common, second_words), _ratio(first_words, second_words))


def _words(phrase: str) -> set[str]:
    plain = phrase.translate(_LATIN_1_SUPPLEMENT)
    return set(re.sub(r"\W", " ", plain).lower().split())


_LATIN_1_SUPPLEMENT = dict.fromkeys(range(0x80, 0x100))


def _ratio(first: str, second: str) -> int:
    if first == second:
        return 100
    if not first or not second:
        return 0
    return round(100 * SequenceMatcher(None, first, second).ratio())


def _path(product_category: str) -> set[str]:
    return {part.strip() for part in product_category.split("›")}
