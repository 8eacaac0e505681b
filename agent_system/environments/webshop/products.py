# SPDX-License-Identifier: Apache-2.0
"""Products, read from the published files.

The rules are those of the original loader (princeton-nlp/WebShop, `web_agent_site/engine/engine.py`): the products that
are skipped, the parsing of prices and options, and the searched text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import ijson

from agent_system.errors import TaskError

DEFAULT_PRICE = 100.0
"""Price of a product without a price in the catalogue."""
NO_ATTRIBUTES = ("DUMMY_ATTR",)
"""Attributes of a product that is not in the attribute file."""
_MAX_ASIN_CHARACTERS = 10


@dataclass(frozen=True)
class Product:
    """One product.

    Attributes:
        asin: its id, upper case.
        title, description: as in the catalogue.
        bullets: the feature list.
        prices: the price, or the lower and the upper end of a range, in dollars.
        price_tag: the price as shown.
        options: for each option group its values, both in lower case and in the catalogue's order.
        attributes: its attributes in the attribute file.
        category, query, product_category: its place in the catalogue.
        instruction: the synthetic instruction; None if it has none, and then no synthetic goal is made from it.
        instruction_attributes: the attributes that the instruction requires.
    """

    asin: str
    title: str
    description: str
    bullets: tuple[str, ...]
    prices: tuple[float, ...]
    price_tag: str
    options: Mapping[str, tuple[str, ...]]
    attributes: tuple[str, ...]
    category: str
    query: str
    product_category: str
    instruction: str | None
    instruction_attributes: tuple[str, ...]

    @property
    def searched_text(self) -> str:
        """The text that the search engine indexes."""
        first_bullet = self.bullets[0] if self.bullets else ""
        options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in self.options.items())
        return f"{self.title} {self.description} {first_bullet} {options}".lower()

    def to_json(self) -> str:
        """The product as one line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str | bytes) -> Product:
        """The inverse of `to_json`."""
        raw = json.loads(line)
        for name in ("bullets", "prices", "attributes", "instruction_attributes"):
            raw[name] = tuple(raw[name])
        raw["options"] = {name: tuple(values) for name, values in raw["options"].items()}
        return cls(**raw)


@dataclass(frozen=True)
class HumanInstruction:
    """One instruction that a person wrote for a product, with the attributes and options that it requires."""

    instruction: str
    attributes: tuple[str, ...]
    options: tuple[str, ...]


def read_products(items_file: Path, attributes_file: Path) -> Iterator[Product]:
    """The products of a catalogue, in its order, as a stream. Entries with a repeated or invalid id are skipped.

    Args:
        items_file: the catalogue, `items_shuffle*.json`.
        attributes_file: `items_ins_v2*.json`.

    Raises:
        TaskError: a file is missing, truncated, or not in this format.
    """
    attributes = read_object(attributes_file)
    seen: set[str] = set()
    for position, raw in enumerate(_stream(items_file)):
        try:
            asin = raw["asin"]
            if asin == "nan" or len(asin) > _MAX_ASIN_CHARACTERS or asin in seen:
                continue
            seen.add(asin)
            product = _product(raw, attributes.get(asin))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise TaskError(
                f"{items_file}: entry {position} is not a product of the WebShop catalogue ({error!r}). "
                "Try: download the file again"
            ) from error
        yield product


def read_human_instructions(file: Path) -> dict[str, tuple[HumanInstruction, ...]]:
    """The instructions of `items_human_ins.json` by product id.

    Raises:
        TaskError: the file is missing, truncated, or not in this format.
    """
    try:
        return {
            asin: tuple(
                HumanInstruction(
                    raw["instruction"], tuple(raw["instruction_attributes"]), tuple(raw["instruction_options"])
                )
                for raw in instructions
            )
            for asin, instructions in read_object(file).items()
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise TaskError(
            f"{file} is not a file of WebShop's human instructions ({error!r}). Try: download it again"
        ) from error


def read_object(file: Path) -> dict[str, Any]:
    """Read a JSON file that holds one object.

    Raises:
        TaskError: it is missing, truncated, or holds something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TaskError(f"{file} is missing. Try: put WebShop's published files there") from error
    except ValueError as error:
        raise TaskError(f"{file} is damaged or incomplete ({error}). Try: download it again") from error
    if not isinstance(content, dict):
        raise TaskError(
            f"{file} must hold an object by product id, not a {type(content).__name__}. Try: download it again"
        )
    return content


def _stream(file: Path) -> Iterator[dict[str, Any]]:
    try:
        with file.open("rb") as stream:
            # use_float: prices are text in this format; nothing else needs more than a float.
            yield from ijson.items(stream, "item", use_float=True)
    except FileNotFoundError as error:
        raise TaskError(f"{file} is missing. Try: put WebShop's published files there") from error
    except ijson.JSONError as error:
        raise TaskError(f"{file} is damaged or incomplete ({error}). Try: download it again") from error


def _product(raw: Mapping[str, Any], entry: Mapping[str, Any] | None) -> Product:
    bullets = raw["small_description"]
    prices, price_tag = read_pricing(raw["pricing"])
    if entry is None:
        attributes, instruction, required = NO_ATTRIBUTES, None, ()
    else:
        attributes = tuple(entry["attributes"])
        instruction = entry.get("instruction")
        required = tuple(entry.get("instruction_attributes") or ())
    texts = {
        "title": raw["name"],
        "description": raw["full_description"],
        "category": raw["category"],
        "query": raw["query"].lower().strip(),
        "product_category": raw["product_category"],
    }
    for name, text in texts.items():
        if not isinstance(text, str):
            raise TypeError(f"{name} is {text!r}")
    return Product(
        asin=raw["asin"],
        bullets=tuple(map(str, bullets)) if isinstance(bullets, list) else ("" if bullets is None else str(bullets),),
        prices=prices,
        price_tag=price_tag,
        options=read_options(raw["customization_options"]),
        attributes=attributes,
        instruction=instruction,
        instruction_attributes=required,
        **texts,
    )


def read_pricing(pricing: str | None) -> tuple[tuple[float, ...], str]:
    """Parse a price, or the two ends of a range, and return it with its price tag. Without a price: `DEFAULT_PRICE`.

    >>> read_pricing("$19.99 - $1,027.99")
    ((19.99, 1027.99), '$19.99 to $1027.99')
    """
    amounts = [float(re.sub(r"[^\d.]", "", part)) for part in (pricing or "").split("$")[1:]]
    if not amounts:
        return (DEFAULT_PRICE,), f"${DEFAULT_PRICE}"
    if len(amounts) == 1:
        return (amounts[0],), f"${amounts[0]}"
    return (amounts[0], amounts[1]), f"${amounts[0]} to ${amounts[1]}"


def read_options(customization: Mapping[str, Any] | Literal[""] | None) -> dict[str, tuple[str, ...]]:
    """Option groups and their values as the shop spells them: lower case, "/" written " | ".

    Groups that are null are skipped; repeated values are kept, as in the original.
    """
    groups: dict[str, tuple[str, ...]] = {}
    for name, entries in (customization or {}).items():
        if entries is None:
            continue
        values = (entry["value"].strip().replace("/", " | ").lower() for entry in entries)
        groups[name.lower()] = tuple(values)
    return groups
