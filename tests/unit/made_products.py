# SPDX-License-Identifier: Apache-2.0
"""Products and goals made by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agent_system.environments.webshop.goals import Goal
from agent_system.environments.webshop.products import Product

MUG = Product(
    asin="B000000MUG",
    title="Brava Stoneware Coffee Mug",
    description="A heavy mug that is Dishwasher Safe.",
    bullets=("Holds 12 ounces", "Lead free glaze"),
    prices=(14.5,),
    price_tag="$14.5",
    options={"color": ("green2", "dark blue"), "size": ("large", "x-large")},
    attributes=("long lasting", "hand made"),
    category="garden",
    query="coffee mugs",
    product_category="Home & Kitchen › Kitchen & Dining › Mugs",
    instruction="Find me a long lasting mug",
    instruction_attributes=("long lasting",),
)


def product(**changes: Any) -> Product:
    """A mug, with changes."""
    return replace(MUG, **changes)


def goal(
    options: Mapping[str, str] | tuple[str, ...] = (),
    attributes: tuple[str, ...] = ("long lasting",),
    price_upper: float = 20.0,
    wanted: Product = MUG,
) -> Goal:
    """A goal for a mug."""
    return Goal(0, wanted, "Find me a mug", attributes, options or {}, price_upper)
