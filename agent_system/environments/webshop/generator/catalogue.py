# SPDX-License-Identifier: Apache-2.0
"""A generated catalogue in the format of WebShop's published files, of any size and without a download.

Product `i` is a function of the settings and `i` alone: a larger catalogue continues where a smaller one ends, on every
version of Python. What an instruction requires is true of its product and is in its text, so the product can be
found, and buying it with the right options earns the full score.

What makes it useful for learning: each kind of product has several makers and models, so a search returns rivals; some
attributes are only on the features page; and some products are *twins*, word for word another product but for one
attribute on the features page or one option that is not offered.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from agent_system.environments.webshop.generator.products import (
    BEFORE_LAST_BULLETS,
    IN_TITLE,
    CatalogueSpec,
    Facts,
    Oddity,
    facts_of,
)
from agent_system.environments.webshop.generator.words import ATTRIBUTES

ITEMS, ATTRIBUTES_FILE, HUMAN = "items_shuffle.json", "items_ins_v2.json", "items_human_ins.json"
"""Names of the published files."""
GENERATOR = 2
"""Raise it whenever the same spec would give another catalogue."""
_HUMAN_OPENINGS = ("i am looking for", "i need", "i want to buy", "find me", "show me", "can you get me")


def write_catalogue(folder: Path, spec: CatalogueSpec, progress: bool = False) -> None:
    """Write the three files into `folder`. Memory does not grow with the catalogue.

    Args:
        progress: whether a progress bar is drawn on standard error.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (
        (folder / ITEMS).open("w", encoding="utf-8") as items_file,
        (folder / ATTRIBUTES_FILE).open("w", encoding="utf-8") as attributes_file,
        (folder / HUMAN).open("w", encoding="utf-8") as human_file,
    ):
        items, known, human = _Members(items_file, "[]"), _Members(attributes_file, "{}"), _Members(human_file, "{}")
        for number in tqdm(range(spec.products), "generating", unit="product", disable=not progress):
            facts = facts_of(spec, number)
            for entry in _entries(spec, facts):
                items.add(_json(entry))
            known.add(f"{_json(facts.asin)}: {_json(_known(facts))}")
            if facts.human is not None:
                human.add(f"{_json(facts.asin)}: {_json([_human(spec, facts)])}")
        for members in (items, known, human):
            members.close()


class _Members:
    """A JSON list or object, written one member a line."""

    def __init__(self, file: TextIO, brackets: str) -> None:
        self._file = file
        self._before, self._end = "", f"\n{brackets[1]}\n"
        file.write(f"{brackets[0]}\n")

    def add(self, member: str) -> None:
        self._file.write(self._before + member)
        self._before = ",\n"

    def close(self) -> None:
        self._file.write(self._end)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _entries(spec: CatalogueSpec, facts: Facts) -> Iterator[dict[str, Any]]:
    """The catalogue's entry of a product; after it perhaps one that a reader has to skip."""
    entry = _untidy(_entry(spec, facts), facts.oddity)
    yield entry
    second_asins: dict[Oddity | None, str] = {
        Oddity.REPEATED_ASIN: facts.asin,
        Oddity.NAN_ASIN: "nan",
        Oddity.LONG_ASIN: f"{facts.asin}-ONCE-MORE",
    }
    skipped = second_asins.get(facts.oddity)
    if skipped is not None:
        yield {**entry, "asin": skipped, "name": f"{entry['name']} Second Entry", "pricing": "$1.00"}


def _entry(spec: CatalogueSpec, facts: Facts) -> dict[str, Any]:
    description, bullets = _texts(facts)
    image = f"https://images.example.com/{facts.asin}"
    return {
        "name": _title(spec, facts),
        "full_description": description,
        "images": [f"{image}-{view}.jpg" for view in range(1, 3 + facts.number % 4)],
        "product_category": facts.kind.path,
        "average_rating": facts.rating,
        "small_description": bullets,
        "customization_options": {
            name: [
                {"value": value, "image": f"{image}-{name[0].lower()}{place}.jpg"} for place, value in enumerate(values)
            ]
            for name, values in facts.options.items()
        }
        or "",
        "asin": facts.asin,
        "category": facts.kind.category,
        "query": facts.kind.query,
        "page": facts.page,
        "pricing": facts.pricing,
    }


def _known(facts: Facts) -> dict[str, Any]:
    """The product's entry in the attribute file."""
    known: dict[str, Any] = {"attributes": list(facts.attributes)}
    if facts.asked:
        known["instruction"] = f"Find me {_wish(facts.kind.query, facts.asked)}"
        known["instruction_attributes"] = list(facts.asked)
    return known


def _human(spec: CatalogueSpec, facts: Facts) -> dict[str, Any]:
    """An instruction in the file of human ones."""
    assert facts.human is not None  # `write_catalogue` skips the others
    rng = random.Random(f"{spec.seed}/{facts.number}/human")
    opening = _HUMAN_OPENINGS[int(rng.random() * len(_HUMAN_OPENINGS))]
    values = [option.partition(": ")[2] for option in facts.human.options]
    ending = f" in {', '.join(values)}" if values else ""
    return {
        "asin": facts.asin,
        "instruction": f"{opening} {_wish(facts.kind.query, facts.human.attributes)}{ending}.",
        "attributes": list(facts.attributes),
        "options": list(facts.human.options) or [""],
        "instruction_attributes": list(facts.human.attributes),
        "instruction_options": values,
        "assignment_id": f"{facts.number:08X}",
        "worker_id": f"W{facts.number % 97:02d}",
    }


def _wish(query: str, attributes: tuple[str, ...]) -> str:
    """The kind of product with what is asked of it: "slim fit, machine wash men's pants with elastic waistband"."""
    phrases = {
        role: ", ".join(name for name in attributes if ATTRIBUTES[name].role == role) for role in ("is", "with", "for")
    }
    words = [
        phrases["is"],
        query,
        phrases["with"] and f"with {phrases['with']}",
        phrases["for"] and f"for {phrases['for']}",
    ]
    return " ".join(filter(None, words))


def _title(spec: CatalogueSpec, facts: Facts) -> str:
    """As much as goes into `spec.title_words` words, and at least eight of them."""
    first, _, rest = facts.kind.noun.partition(" ")
    noun = f"{first} {facts.model} {rest}" if first in ("Women's", "Men's") else f"{facts.model} {facts.kind.noun}"
    parts = [name.title() for name in facts.attributes[:IN_TITLE]]
    parts += [f"for {facts.use}", facts.tail, facts.code]
    title = f"{facts.brand} {noun}"
    for part in parts:
        longer = f"{title}{' ' if part.startswith('for ') else ', '}{part}"
        if len(longer.split()) <= spec.title_words:
            title = longer
    return title


def _texts(facts: Facts) -> tuple[str, list[str]]:
    """Description and bullets. The first bullet can be found by a search, as the description can; the others cannot."""
    sentences = [ATTRIBUTES[name].sentence for name in facts.attributes]
    filler, other_filler, *fillers = facts.fillers
    shown, later = sentences[:BEFORE_LAST_BULLETS], sentences[BEFORE_LAST_BULLETS:]
    opening = f"{facts.model} {facts.kind.noun.lower()} by {facts.brand}, for {facts.use.lower()}."
    first = shown[1] if len(shown) > 1 else other_filler
    described = [*shown[:1], *shown[2:]]
    if facts.is_described:
        return " ".join([opening, *described, filler]), [first, *later, *fillers]
    return "", [" ".join([first, *described]), *later, *fillers]


def _untidy(entry: dict[str, Any], oddity: Oddity | None) -> dict[str, Any]:
    """The entry with its oddity, if that is one of the entry itself."""
    name, bullets, options = entry["name"], entry["small_description"], entry["customization_options"]
    match oddity:
        case Oddity.NULL_OPTIONS:
            return {**entry, "customization_options": {"Package Type": None, **options}}
        case Oddity.RAW_VALUES:
            return {**entry, "customization_options": {group: _raw(values) for group, values in options.items()}}
        case Oddity.MARKUP:
            markup = '<span class="a-list-item"><b>Good to know</b>: &quot;as shown&quot; & more</span>'
            return {**entry, "small_description": [*bullets, markup]}
        case Oddity.EMPTY_BULLET:
            return {**entry, "small_description": [*bullets, ""]}
        case Oddity.TEXT_BULLETS:
            return {**entry, "small_description": "\n".join(bullets)}
        case Oddity.SYMBOLS:
            return {**entry, "name": f"★ {name} – Édition ♡", "full_description": f"✔ {entry['full_description']} 🎁"}
        case Oddity.COMMA_PRICE:
            return {**entry, "pricing": "$1,299.00"}
        case Oddity.UNTIDY_TITLE:
            return {**entry, "name": name.replace(" ", "  ", 1).replace(", ", ",\n", 1)}
    return entry


def _raw(values: list[dict[str, Any]]) -> list[dict[str, Any]]:
    first, second, *others = (value["value"] for value in values)
    spelled = [f"{first}/{second}", f" {second.upper()}  {first.upper()} ", *others]
    return [{**value, "value": text} for value, text in zip(values, spelled, strict=True)]
