# SPDX-License-Identifier: Apache-2.0
"""The shop in few words: what is shown, and that a short name does what the id does."""

from __future__ import annotations

import pytest
from made_products import MUG, product

from agent_system.environments.webshop.compact import compact_links, compact_text, to_site_action
from agent_system.environments.webshop.site import Page, Site

OTHERS = [product(asin=f"B0000000{i:02d}", title=f"Mug {i}", options={}, bullets=(), description="") for i in range(24)]


class Shelf:
    """A shop of 25 mugs; every search but "nothing" finds them all."""

    products = [MUG, *OTHERS]

    def search(self, query):
        return [] if query == "nothing" else list(range(len(self.products)))

    def product(self, number):
        return self.products[number]


@pytest.fixture
def site():
    return Site(Shelf(), "Find me a mug", checkout=lambda number, options: 0.5)


def play(site, *actions):
    for action in actions:
        assert site.act(to_site_action(site, action)), action


def test_every_page(site):
    assert compact_text(site) == "search page"
    play(site, "search[mug]")
    first = f"item a {MUG.title.lower()} $15"
    assert compact_text(site).startswith(f"results page 1: {first} | item b mug 0 $15 | ")
    play(site, "click[item a]", "click[large]")
    colors = ", ".join(MUG.options["color"])
    assert compact_text(site) == f"item: {MUG.title.lower()} $15 | choose color: {colors} | size: large"
    play(site, "click[features]")
    assert compact_text(site) == "features: Holds 12 ounces | Lead free glaze"
    play(site, "click[< prev]", "click[< prev]")
    assert f"{first} seen | " in compact_text(site)
    play(site, "click[item a]", "click[reviews]")
    assert compact_text(site) == "reviews: none"
    play(site, "search[nothing]")
    assert compact_text(site) == "results page 1: none"
    play(site, "search[mug]", "click[item a]", "click[buy now]")
    assert compact_text(site) == "bought" and compact_links(site) == []


def test_titles_are_cut_and_ranges_are_whole_dollars_too(site):
    long = product(title="One TWO three four five six seven eight nine", prices=(4.01, 5.0), options={})
    site._catalogue.products = [long]
    play(site, "search[one]")
    assert compact_text(site) == "results page 1: item a one two three four five six seven eight $5 to $5"


def test_letters_stand_for_ids_in_the_pages_order(site):
    play(site, "search[mug]")
    ids = site.clickables[2:]
    assert compact_links(site) == ["back to search", "next >", *(f"item {letter}" for letter in "abcdefghij")]
    for letter, asin in zip("abcdefghij", ids, strict=True):
        assert to_site_action(site, f"click[item {letter}]") == f"click[{asin}]"
    play(site, "click[next >]", "click[item c]")
    assert site.item.title == "Mug 11"  # the third of the second page


@pytest.mark.parametrize("action", ["click[item k]", "click[item]", "click[item ab]", "search[item a]", "item a", ""])
def test_what_names_no_product_is_left_alone(site, action):
    play(site, "search[mug]")
    assert to_site_action(site, action) == action


def test_letters_mean_nothing_on_other_pages(site):
    assert to_site_action(site, "click[item a]") == "click[item a]"
    play(site, "search[mug]", "click[item b]")
    assert site.state.page is Page.ITEM and not site.act(to_site_action(site, "click[item a]"))
