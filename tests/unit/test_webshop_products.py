# SPDX-License-Identifier: Apache-2.0
"""How the published files are read."""

from __future__ import annotations

import json

import pytest
from made_products import MUG

from agent_system.environments.webshop.products import (
    Product,
    read_human_instructions,
    read_options,
    read_pricing,
    read_products,
)
from agent_system.errors import TaskError

ENTRY = {
    "asin": "B000000001",
    "name": "Brava Mug",
    "full_description": "A mug.",
    "small_description": ["Holds 12 ounces", "Blue"],
    "pricing": "$14.50",
    "customization_options": {"Color": [{"value": " Red/Blue ", "image": "x"}, {"value": "Green"}], "Size": None},
    "category": "garden",
    "query": " Coffee Mugs ",
    "product_category": "Home › Mugs",
    "images": ["i"],
}


@pytest.fixture
def write(tmp_path):
    def files(entries, attributes=None):
        items, known = tmp_path / "items.json", tmp_path / "ins.json"
        items.write_text(entries if isinstance(entries, str) else json.dumps(entries), encoding="utf-8")
        known.write_text(json.dumps(attributes or {}), encoding="utf-8")
        return list(read_products(items, known))

    return files


def test_a_product_is_read(write):
    known = {"attributes": ["long lasting"], "instruction": "Find a mug", "instruction_attributes": ["a"]}
    (product,) = write([ENTRY], {"B000000001": known})
    assert product.options == {"color": ("red | blue", "green")}
    assert (product.prices, product.price_tag) == ((14.5,), "$14.5")
    assert product.query == "coffee mugs"
    assert (product.attributes, product.instruction, product.instruction_attributes) == (
        ("long lasting",), "Find a mug", ("a",),
    )  # fmt: skip
    assert product.searched_text == "brava mug a mug. holds 12 ounces color: red | blue, green"
    assert Product.from_json(product.to_json()) == product


def test_a_product_without_attributes_has_a_stand_in_and_no_instruction(write):
    (product,) = write([{**ENTRY, "small_description": "Blue", "customization_options": ""}])
    assert product.attributes == ("DUMMY_ATTR",) and product.instruction is None
    assert product.bullets == ("Blue",) and product.options == {}


def test_repeated_nameless_and_overlong_ids_are_left_out(write):
    entries = [ENTRY, {**ENTRY, "name": "again"}, {**ENTRY, "asin": "nan"}, {**ENTRY, "asin": "B0000000012"}]
    assert [product.title for product in write(entries)] == ["Brava Mug"]


@pytest.mark.parametrize(
    ("pricing", "prices", "tag"),
    [
        ("", (100.0,), "$100.0"),
        (None, (100.0,), "$100.0"),
        ("$34.00", (34.0,), "$34.0"),
        ("$19.99 - $1,027.99", (19.99, 1027.99), "$19.99 to $1027.99"),
        ("$1 - $2 - $3", (1.0, 2.0), "$1.0 to $2.0"),
    ],
)
def test_pricing(pricing, prices, tag):
    assert read_pricing(pricing) == (prices, tag)


def test_inner_double_spaces_stay_and_repeats_stay():
    entries = [{"value": "Light  Blue"}, {"value": "Light  Blue"}]
    assert read_options({"Color": entries}) == {"color": ("light  blue", "light  blue")}


@pytest.mark.parametrize(
    "broken",
    [
        json.dumps([ENTRY])[:-40],  # cut off
        json.dumps([{"asin": "B000000001"}]),  # something else
        json.dumps([{**ENTRY, "name": None}]),
        json.dumps([{**ENTRY, "customization_options": {"color": [{"no": "value"}]}}]),
        json.dumps(["text"]),
        "<html>not found</html>",
    ],
)
def test_a_broken_catalogue_is_refused_by_name(write, broken):
    with pytest.raises(TaskError, match=r"items\.json"):
        write(broken)


def test_missing_and_foreign_files_are_refused_by_name(tmp_path):
    items = tmp_path / "items.json"
    items.write_text(json.dumps([ENTRY]))
    with pytest.raises(TaskError, match=r"ins\.json is missing"):
        list(read_products(items, tmp_path / "ins.json"))
    (tmp_path / "ins.json").write_text("[]")
    with pytest.raises(TaskError, match=r"ins\.json must hold an object by product id"):
        list(read_products(items, tmp_path / "ins.json"))
    (tmp_path / "human.json").write_text('{"B0": [{"text": "x"}]}')
    with pytest.raises(TaskError, match=r"human\.json"):
        read_human_instructions(tmp_path / "human.json")


def test_hostile_text_survives_the_store():
    text = "line\nbreak \u2028 \x00 <script>alert(1)</script> \U0001f600"
    product = Product.from_json(Product(**{**vars(MUG), "title": text}).to_json())
    assert product.title == text and "\n" not in product.to_json()
