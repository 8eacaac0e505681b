# SPDX-License-Identifier: Apache-2.0
"""The observation mode "compact": short texts of the pages, and short names of the listed products, for a small model.

Not part of the original. A listed product has a letter, "item a" to "item j", instead of an id: a small model memorises
which product each of a thousand ids belongs to before it learns to copy one from the page. Titles are cut to their
first words and in lower case as the tasks are. Prices are whole dollars, rounded up: compared with a bound in whole
dollars they give the same result as the exact ones. Labels of buttons are left out (a prompt lists the admissible
actions). An option group is shown with the chosen value, or with the values to choose from.
"""

from __future__ import annotations

import math
import re
from string import ascii_lowercase

from agent_system.environments.webshop.products import Product
from agent_system.environments.webshop.site import Page, Site

TITLE_WORDS = 8
_CLICK_ITEM = re.compile(r"click\[item ([a-z])\]", re.IGNORECASE)


def compact_text(site: Site) -> str:
    """The observation of the page."""
    state = site.state
    if state.page is Page.SEARCH:
        return "search page"
    if state.page is Page.RESULTS:
        lines = [
            f"{name} {_line(site.product(number))}{' seen' if site.product(number).asin in state.visited else ''}"
            for name, number in _items(site).items()
        ]
        return f"results page {state.results_page}: {' | '.join(lines) or 'none'}"
    if state.page is Page.DONE:
        return "bought"
    if state.page is Page.DETAIL:
        assert state.detail is not None  # set together with the page
        return f"{state.detail.value.lower()}: {' | '.join(site.detail_lines()) or 'none'}"
    chosen = state.options
    options = [
        f"{name}: {chosen[name]}" if name in chosen else f"choose {name}: {', '.join(values)}"
        for name, values in site.item.options.items()
    ]
    return " | ".join([f"item: {_line(site.item)}", *options])


def compact_links(site: Site) -> list[str]:
    """Texts of the clickable elements, in the page's order, with letters instead of ids."""
    names = {site.product(number).asin.lower(): name for name, number in _items(site).items()}
    return [names.get(text, text) for text in site.clickables]


def to_site_action(site: Site, action: str) -> str:
    """The site's action for one that names a product by its letter; any other action is returned unchanged."""
    match = _CLICK_ITEM.fullmatch(action.strip())
    number = _items(site).get(f"item {match[1].lower()}") if match else None
    return action if number is None else f"click[{site.product(number).asin.lower()}]"


def _items(site: Site) -> dict[str, int]:
    """The listed products by their short names; empty on pages other than the results."""
    if site.state.page is not Page.RESULTS:
        return {}
    return {f"item {letter}": number for letter, number in zip(ascii_lowercase, site.hits_shown(), strict=False)}


def _line(product: Product) -> str:
    price = " to ".join(f"${math.ceil(price)}" for price in product.prices)
    return f"{' '.join(product.title.lower().split()[:TITLE_WORDS])} {price}"
