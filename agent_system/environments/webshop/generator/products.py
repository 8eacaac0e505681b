# SPDX-License-Identifier: Apache-2.0
"""What is true of each product of a generated catalogue: drawn here, put into words and files in `catalogue.py`."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeVar

from agent_system.environments.webshop.generator.kinds import BRANDS, KINDS, OPTION_GROUPS, Kind
from agent_system.environments.webshop.generator.words import ATTRIBUTES, FAMILIES
from agent_system.errors import ConfigError

_SYLLABLES = tuple(consonant + vowel for consonant in "BCDFGHJKLMNPQRSTVWXZ" for vowel in "AEIOU")
MOST_PRODUCTS = len(_SYLLABLES) ** 4
"""An ASIN has four syllables to tell products apart."""
_ASIN_STEP = 61_803_399
"""Coprime to `MOST_PRODUCTS`, so that every product has its own ASIN, and far from 1, so that they look unordered."""
_ODDITY_EVERY, _FIRST_ODDITY = 25, 13
_NO_PRICE, _PRICE_RANGE = 0.089, 0.093
"""Shares of products without a price and with a range, as in the published 1,000."""
_CENTS = (0.99, 0.99, 0.95, 0.49, 0.0)
_TITLE_TAILS = ("Gift Idea", "New Edition", "Classic Series", "Special Value", "Original Design", "Family Favorite")
_T = TypeVar("_T")


class Oddity(Enum):
    """What is untidy in the published files, and so in a few products here. Their order is the order of appearance."""

    REPEATED_ASIN = "another product with the same ASIN follows, which a reader skips"
    NULL_OPTIONS = "a group of options is null"
    RAW_VALUES = "option values with a slash, upper case, doubled and outer spaces"
    MARKUP = "a bullet with markup and quotes in it"
    NAN_ASIN = 'a product with the ASIN "nan" follows'
    EMPTY_BULLET = "a bullet without text"
    TEXT_BULLETS = "the bullets are one text instead of a list"
    SYMBOLS = "symbols, emoji and accents in title and description"
    LONG_ASIN = "a product with an ASIN of more than ten characters follows"
    COMMA_PRICE = "a price with a thousands separator"
    UNTIDY_TITLE = "doubled spaces and a line break in the title"


@dataclass(frozen=True)
class CatalogueSpec:
    """What catalogue to generate.

    Args:
        products: how many, entries that a reader skips not counted. The words do not grow with it: of 1,000 products an
            instruction as a query finds the one meant on the first two pages, of 10,000 in 79 cases of 100, and many
            rivals are as good.
        seed: another seed, another catalogue.
        title_words: most words of a title, 8 to 20; the published ones have 18 on average. Shorter titles make shorter
            result pages.
        with_options: share of products that have options.
        option_values: most values in a group of options, at least 2.
        with_instructions: share of products that goals are made from. (In the published 1,000: 0.415.)
        with_human_instructions: share of products with an instruction as a person would write it.
        attributes_asked: most attributes that an instruction requires, 2 to 4.
        twins: share of products that are another product but for one attribute or option; at most 0.5.
        oddities: whether a few products are as untidy as published ones (see `Oddity`).

    Raises:
        ConfigError: a value out of its range.
    """

    products: int = 1000
    seed: int = 0
    title_words: int = 14
    with_options: float = 0.45
    option_values: int = 5
    with_instructions: float = 0.6
    with_human_instructions: float = 0.05
    attributes_asked: int = 3
    twins: float = 0.1
    oddities: bool = True

    def __post_init__(self) -> None:
        bounds = {
            "products": (1, MOST_PRODUCTS),
            "title_words": (8, 20),
            "with_options": (0, 1),
            "option_values": (2, 9),
            "with_instructions": (0, 1),
            "with_human_instructions": (0, 1),
            "attributes_asked": (2, 4),
            "twins": (0, 0.5),
        }
        for name, (low, high) in bounds.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(
                    f"generated catalogue: {name}={getattr(self, name)} is not in {low}..{high}. "
                    f"Try: {name}={getattr(type(self), name)}"
                )


@dataclass(frozen=True)
class HumanWish:
    """What a person's instruction requires: attributes, and option values as the shop spells them."""

    attributes: tuple[str, ...]
    options: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """What is true of a product.

    Attributes:
        number: its place in the catalogue.
        asin: see `asin_of`.
        kind, brand, model, code, use, tail: what it is, and the words of its title that go with that.
        attributes: in the order in which the texts name them: title, then first bullet, description, later bullets.
        options: values by the name of their group, as the catalogue spells them.
        pricing: as in the catalogue.
        asked: what its instruction requires; empty if it has none.
        human: what a person's instruction requires; None if there is none.
        fillers: sentences with nothing that an instruction requires.
        is_described: whether it has a description.
        rating, page: without a meaning for the shop.
        oddity: how its entry is untidy; None if it is not.
    """

    number: int
    asin: str
    kind: Kind
    brand: str
    model: str
    code: str
    use: str
    tail: str
    attributes: tuple[str, ...]
    options: Mapping[str, tuple[str, ...]]
    pricing: str
    asked: tuple[str, ...]
    human: HumanWish | None
    fillers: tuple[str, ...]
    is_described: bool
    rating: float | str
    page: int
    oddity: Oddity | None


IN_TITLE, BEFORE_LAST_BULLETS = 2, 4
"""How many of `Facts.attributes` the title names, and how many are outside of the later bullets."""


def facts_of(spec: CatalogueSpec, number: int) -> Facts:
    """Product `number` of the catalogue."""
    return _twin(spec, number) if _is_twin(spec, number) else _drawn(spec, number)


def asin_of(spec: CatalogueSpec, number: int) -> str:
    """The id of a product: unique in its catalogue.

    As few syllables as tell the products apart, "KOMI" in a small catalogue and "KOMIRATU" in the largest, where a real
    one is "B0" and eight letters and digits: a tokenizer that learns from this catalogue makes a token of each
    syllable, and a small model copies two tokens instead of ten.
    """
    syllables = next(n for n in range(2, 5) if len(_SYLLABLES) ** n >= spec.products)
    ids = len(_SYLLABLES) ** syllables
    start = int(random.Random(f"{spec.seed}/asin").random() * ids)
    left, name = (start + number * _ASIN_STEP) % ids, ""
    for _ in range(syllables):
        left, syllable = divmod(left, len(_SYLLABLES))
        name += _SYLLABLES[syllable]
    return name


def _is_twin(spec: CatalogueSpec, number: int) -> bool:
    """Evenly spread, and never two in a row."""
    return number > 0 and int(number * spec.twins) > int((number - 1) * spec.twins)


def _drawn(spec: CatalogueSpec, number: int) -> Facts:
    rng = random.Random(f"{spec.seed}/{number}")
    kind = _one(rng, KINDS)
    family = FAMILIES[kind.family]
    brand = _one(rng, BRANDS)
    has_twin = _is_twin(spec, number + 1)
    has_instruction = rng.random() < spec.with_instructions
    fewest, most = (BEFORE_LAST_BULLETS + 1, 7) if has_twin else (2, 7) if has_instruction else (0, 5)
    choices = _some(rng, family.attributes, fewest + int(rng.random() * (most - fewest + 1)))
    attributes = tuple(_one(rng, choice) for choice in choices)
    oddity = None if has_twin else _oddity_of(spec, number)
    needs_options = oddity in (Oddity.NULL_OPTIONS, Oddity.RAW_VALUES)
    options = _options(spec, kind, rng) if needs_options or rng.random() < spec.with_options else {}
    # A person's instruction names values as they are spelled here.
    has_human = rng.random() < spec.with_human_instructions and oddity is not Oddity.RAW_VALUES
    return Facts(
        number=number,
        asin=asin_of(spec, number),
        kind=kind,
        brand=brand,
        model=_one(rng, kind.models),
        code=f"{brand[:2].upper()}{100 + int(rng.random() * 900)}",
        use=_one(rng, family.uses),
        tail=_one(rng, _TITLE_TAILS),
        attributes=attributes,
        options=options,
        pricing=_pricing(kind, rng),
        asked=_asked(spec, attributes, has_twin, rng) if has_instruction else (),
        human=_human_wish(attributes, options, rng) if has_human else None,
        fillers=tuple(_some(rng, family.fillers, 4)),
        is_described=rng.random() < 0.9,
        rating=round(3 + 2 * rng.random(), 1) if rng.random() < 0.64 else "",
        page=1 + int(rng.random() * 200),
        oddity=oddity,
    )


def _twin(spec: CatalogueSpec, number: int) -> Facts:
    """The product before, but for one option value that is not offered, or the last attribute."""
    other = _drawn(spec, number - 1)
    rng = random.Random(f"{spec.seed}/{number}")
    twin = replace(other, number=number, asin=asin_of(spec, number), human=None, oddity=None)
    large = [name for name, values in other.options.items() if len(values) > 2]
    if large and rng.random() < 0.5:
        name = _one(rng, large)
        dropped = _one(rng, other.options[name])
        return replace(twin, options={**other.options, name: tuple(v for v in other.options[name] if v != dropped)})
    *kept, last = other.attributes
    choices = FAMILIES[other.kind.family].attributes
    rivals = [name for choice in choices if last in choice for name in choice if name != last]
    rivals = rivals or [choice[0] for choice in choices if not set(choice) & set(other.attributes)]
    attributes = (*kept, _one(rng, rivals))
    return replace(twin, attributes=attributes, asked=_asked(spec, attributes, True, rng) if other.asked else ())


def _options(spec: CatalogueSpec, kind: Kind, rng: random.Random) -> dict[str, tuple[str, ...]]:
    draw = rng.random()
    groups = _some(rng, kind.options, 1 if draw < 0.6 else 2 if draw < 0.95 else 3)
    options = {}
    for group in (OPTION_GROUPS[name] for name in groups):
        most = min(spec.option_values, len(group.values))
        values = _some(rng, group.values, 2 + int(rng.random() * (most - 1)))
        options[group.name] = tuple(sorted(values, key=group.values.index))
    return options


def _asked(spec: CatalogueSpec, attributes: tuple[str, ...], last: bool, rng: random.Random) -> tuple[str, ...]:
    """Required attributes, in the order in which an instruction names them.

    At most one of them is in the later bullets, which no search sees: for sure the last one if `last`.
    """
    number = 1 + int(rng.random() * spec.attributes_asked)
    hidden = list(attributes[-1:] if last else attributes[BEFORE_LAST_BULLETS:])
    asked = _some(rng, hidden, 1) if last or (number > 1 and rng.random() < 0.5) else []
    asked += _some(rng, attributes[:BEFORE_LAST_BULLETS], max(1, number - len(asked)))
    roles = ("is", "with", "for")
    return tuple(sorted(asked, key=lambda name: roles.index(ATTRIBUTES[name].role)))


def _human_wish(
    attributes: tuple[str, ...], options: Mapping[str, tuple[str, ...]], rng: random.Random
) -> HumanWish | None:
    if not attributes:
        return None
    required = [f"{name}: {_one(rng, values)}".lower() for name, values in options.items()]
    return HumanWish(tuple(_some(rng, attributes, 1 + int(rng.random() * 2))), tuple(required))


def _pricing(kind: Kind, rng: random.Random) -> str:
    draw, low, high = rng.random(), *kind.prices
    # Prices are spread evenly in their logarithm; so is the market.
    price = max(1, int(low * (high / low) ** rng.random())) + _one(rng, _CENTS)
    upper = price * (1.2 + 0.8 * rng.random())
    if draw < _NO_PRICE:
        return ""
    return f"${price:.2f} - ${upper:.2f}" if draw < _NO_PRICE + _PRICE_RANGE else f"${price:.2f}"


def _oddity_of(spec: CatalogueSpec, number: int) -> Oddity | None:
    turn, place = divmod(number, _ODDITY_EVERY)
    if not spec.oddities or place != _FIRST_ODDITY:
        return None
    return list(Oddity)[turn % len(Oddity)]


def _one(rng: random.Random, pool: Sequence[_T]) -> _T:
    # Only `random()` is promised to give the same numbers in every version of Python.
    return pool[int(rng.random() * len(pool))]


def _some(rng: random.Random, pool: Sequence[_T], number: int) -> list[_T]:
    """Up to `number` different members, in random order."""
    left = list(pool)
    return [left.pop(int(rng.random() * len(left))) for _ in range(min(number, len(left)))]
