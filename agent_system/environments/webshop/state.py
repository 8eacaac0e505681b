# SPDX-License-Identifier: Apache-2.0
"""The kinds of the shop's pages, the pieces of their texts, and the state that determines the page."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Page(str, Enum):
    """The kind of page that is shown."""

    SEARCH = "search"
    RESULTS = "results"
    ITEM = "item"
    DETAIL = "detail"
    """One of an item's sub-pages (`Detail`)."""
    DONE = "done"
    """After the purchase."""


class Detail(str, Enum):
    """An item's sub-pages; the value is the label of the button that opens it."""

    DESCRIPTION = "Description"
    FEATURES = "Features"
    REVIEWS = "Reviews"
    ATTRIBUTES = "Attributes"


class Role(Enum):
    """The role of a segment on its page."""

    TEXT = "text"
    BUTTON = "button"
    OPTION = "option"
    PRODUCT = "product"


@dataclass(frozen=True)
class Segment:
    """One piece of visible text; `group` is the option group of an option."""

    text: str
    role: Role = Role.TEXT
    group: str = ""


@dataclass
class State:
    """The state that determines the page.

    Attributes:
        query: the last search; None before the first one.
        results_page: page of the results, from 1.
        item: number of the product that is shown.
        detail: the sub-page of it that is shown.
        options: the value chosen in each option group, in the order of the first choice in each.
        visited: ids of the products opened since the last return to the search page.
        score: the score that the last page shows.
    """

    page: Page = Page.SEARCH
    query: str | None = None
    results_page: int = 1
    item: int | None = None
    detail: Detail | None = None
    options: dict[str, str] = field(default_factory=dict)
    visited: set[str] = field(default_factory=set)
    score: float | None = None
