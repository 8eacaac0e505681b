# SPDX-License-Identifier: Apache-2.0
"""Products as the shop knows them, read from the published files.

The rules are those of the original loader (princeton-nlp/WebShop, `web_agent_site/engine/engine.py`): which products
are skipped, how prices and options are read, what stands in the searched text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ijson

from agent_system.errors import TaskError

DEFAULT_PRICE = 100.0
"""Price of a product for which the catalogue names none."""
NO_ATTRIBUTES = ("DUMMY_ATTR",)
"""Attributes of a product that the attribute file does not know."""
_LONGEST_ASIN = 10


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
        attributes: what the attribute file says of it.
        category, query, product_category: where the catalogue files it.
        instruction: the synthetic instruction; None if it has none, and then it is never a goal of that kind.
        instruction_attributes: the attributes that the instruction asks for.
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
        """The one field that the search engine indexes."""
        first_bullet = self.bullets[0] if self.bullets else ""
        options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in self.options.items())
        return f"{self.title} {self.description} {first_bullet} {options}".lower()

    def to_json(self) -> str:
        """One line without a line break."""
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
    """One instruction that a person wrote for a product, with what it asks for."""

    instruction: str
    attributes: tuple[str, ...]
    options: tuple[str, ...]


def read_products(items_file: Path, attributes_file: Path) -> Iterator[Product]:
    """The products of a catalogue, in its order, as a stream. Repeated and nameless ones are left out.

    Args:
        items_file: the catalogue, `items_shuffle*.json`.
        attributes_file: `items_ins_v2*.json`.

    Raises:
        TaskError: a file is missing, truncated, or not of this format.
    """
    attributes = read_object(attributes_file)
    seen: set[str] = set()
    for position, raw in enumerate(_stream(items_file)):
        try:
            asin = raw["asin"]
            if asin == "nan" or len(asin) > _LONGEST_ASIN or asin in seen:
                continue
            seen.add(asin)
            product = _product(raw, attributes.get(asin))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise TaskError(
                f"{items_file}: entry {position} is not a product of the WebShop catalogue ({error!r}); "
                f"download the file again, or leave --source out for a generated catalogue"
            ) from error
        yield product


def read_human_instructions(file: Path) -> dict[str, tuple[HumanInstruction, ...]]:
    """The instructions of `items_human_ins.json` by product id.

    Raises:
        TaskError: the file is missing, truncated, or not of this format.
    """
    try:
        return {
            asin: tuple(
                HumanInstruction(
                    one["instruction"], tuple(one["instruction_attributes"]), tuple(one["instruction_options"])
                )
                for one in instructions
            )
            for asin, instructions in read_object(file).items()
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise TaskError(f"{file}: not a file of WebShop's human instructions ({error!r}); download it again") from error


def read_object(file: Path) -> dict[str, Any]:
    """A JSON file that holds one object.

    Raises:
        TaskError: missing, truncated, or something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TaskError(f"{file} is missing; put WebShop's published files there") from error
    except ValueError as error:
        raise TaskError(f"{file} is broken or only a part of the file ({error}); download it again") from error
    if not isinstance(content, dict):
        raise TaskError(f"{file}: an object by product id is expected, not a {type(content).__name__}")
    return content


def _stream(file: Path) -> Iterator[dict[str, Any]]:
    try:
        with file.open("rb") as stream:
            # use_float: prices are text in this format; nothing else needs more than a float.
            yield from ijson.items(stream, "item", use_float=True)
    except FileNotFoundError as error:
        raise TaskError(f"{file} is missing; put WebShop's published files there") from error
    except ijson.JSONError as error:
        raise TaskError(f"{file} is broken or only a part of the file ({error}); download it again") from error


def _product(raw: Mapping[str, Any], known: Mapping[str, Any] | None) -> Product:
    bullets = raw["small_description"]
    prices, price_tag = read_pricing(raw["pricing"])
    if known is None:
        attributes, instruction, wanted = NO_ATTRIBUTES, None, ()
    else:
        attributes = tuple(known["attributes"])
        instruction = known.get("instruction")
        wanted = tuple(known.get("instruction_attributes") or ())
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
        instruction_attributes=wanted,
        **texts,
    )


def read_pricing(pricing: str | None) -> tuple[tuple[float, ...], str]:
    """The price, or the two ends of a range, and the price tag. Without a price: `DEFAULT_PRICE`.

    >>> read_pricing("$19.99 - $1,027.99")
    ((19.99, 1027.99), '$19.99 to $1027.99')
    """
    amounts = [float(re.sub(r"[^\d.]", "", part)) for part in (pricing or "").split("$")[1:]]
    if not amounts:
        return (DEFAULT_PRICE,), f"${DEFAULT_PRICE}"
    if len(amounts) == 1:
        return (amounts[0],), f"${amounts[0]}"
    return (amounts[0], amounts[1]), f"${amounts[0]} to ${amounts[1]}"


def read_options(customization: Mapping[str, Any] | str | None) -> dict[str, tuple[str, ...]]:
    """Option groups and their values in the spelling of the shop: lower case, "/" written " | ".

    Groups without values are left out; repeated values stay, as in the original.
    """
    groups: dict[str, tuple[str, ...]] = {}
    for name, entries in (customization or {}).items():
        if entries is None:
            continue
        values = (entry["value"].strip().replace("/", " | ").lower() for entry in entries)
        groups[name.lower()] = tuple(values)
    return groups
