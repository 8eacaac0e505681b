# SPDX-License-Identifier: Apache-2.0
"""The shop's pages: what is seen, what can be clicked, and where a click leads."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_products import MUG, product

from agent_system.environments.webshop.goals import Split
from agent_system.environments.webshop.site import Detail, Page, Site, parse_action

TASK = "Find me a mug"
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
    return Site(Shelf(), TASK, checkout=lambda number, options: 0.5)


def play(site, *actions):
    for action in actions:
        assert site.act(action), action
    return site.text().split(" [SEP] ")


HEAD = ["Instruction:", TASK, "Back to Search"]


def test_search_page(site):
    assert site.text() == f"WebShop [SEP] Instruction: [SEP] {TASK} [SEP] Search"
    assert site.has_search_bar and site.clickables == ["search"]
    assert not site.act("click[search]") and not site.act("click[buy now]")


def test_results(site):
    shown = play(site, "search[Mug]")
    assert shown[:5] == [*HEAD, "Page 1 (Total results: 25)", "Next >"]
    assert shown[5:8] == [MUG.asin, MUG.title, "$14.5"] and len(shown) == 5 + 10 * 3
    assert site.clickables[:3] == ["back to search", "next >", MUG.asin.lower()] and len(site.clickables) == 12
    assert site.state.query == "mug" and not site.has_search_bar


def test_pages_of_results_never_end(site):
    shown = play(site, "search[mug]", "click[next >]", "click[Next >]")
    assert shown[3:6] == ["Page 3 (Total results: 25)", "< Prev", "Next >"] and len(shown) == 6 + 5 * 3
    assert site.clickables[:3] == ["back to search", "< prev", "next >"]
    shown = play(site, *["click[next >]"] * 5)
    assert shown == [*HEAD, "Page 8 (Total results: 25)", "< Prev", "Next >"]
    assert play(site, "click[< prev]")[3] == "Page 7 (Total results: 25)"


def test_nothing_found(site):
    assert play(site, "search[nothing]") == [*HEAD, "Page 1 (Total results: 0)", "Next >"]


def test_item(site):
    shown = play(site, "search[mug]", f"click[{MUG.asin}]")
    assert shown == [
        *HEAD, "< Prev", "color", "green2", "dark blue", "size", "large", "x-large", MUG.title, "Price: $14.5",
        "Rating: N.A.", "Description", "Features", "Reviews", "Buy Now",
    ]  # fmt: skip
    assert site.clickables == [
        "back to search", "< prev", "description", "features", "reviews", "buy now", "green2", "dark blue", "large",
        "x-large",
    ]  # fmt: skip


def test_options_replace_each_other_within_a_group_and_do_not_show(site):
    before = play(site, "search[mug]", f"click[{MUG.asin}]")
    assert play(site, "click[green2]", "click[large]", "click[Dark Blue]") == before
    assert site.state.options == {"color": "dark blue", "size": "large"}


@pytest.mark.parametrize("value", ["black [2 pack]", "[new] black", "a]b[c"])
def test_an_option_with_brackets_can_be_chosen(value):
    """It is among the admissible actions; the original's pattern takes its bracket for that of the action."""
    shop = Shelf()
    shop.products = [product(options={"color": (value, "red")})]
    site = Site(shop, TASK, checkout=lambda number, options: 0.5)
    play(site, "search[mug]", f"click[{MUG.asin}]", f"click[{value}]")
    assert site.state.options == {"color": value}
    assert not site.act("click[black [3 pack]]") and site.state.options == {"color": value}


def test_sub_pages_and_back(site):
    item = play(site, "search[mug]", f"click[{MUG.asin}]", "click[large]")
    assert play(site, "click[description]") == [*HEAD, "< Prev", MUG.description]
    assert site.clickables == ["back to search", "< prev"]
    assert play(site, "click[< prev]") == item
    assert play(site, "click[features]") == [*HEAD, "< Prev", "Holds 12 ounces", "Lead free glaze"]
    assert play(site, "click[< prev]", "click[reviews]") == [*HEAD, "< Prev"]
    assert play(site, "click[< prev]") == item and site.state.options == {"size": "large"}


def test_back_to_the_results_clears_the_options_and_keeps_the_page(site):
    asin = OTHERS[15].asin
    play(site, "search[mug]", "click[next >]", f"click[{asin}]", "click[< prev]")
    assert site.state.results_page == 2 and site.state.options == {} and site.state.visited == {asin}


def test_back_to_search_forgets_everything(site):
    play(site, "search[mug]", f"click[{MUG.asin}]", "click[large]", "click[back to search]")
    assert site.has_search_bar and not site.state.visited and not site.state.options


def test_a_search_is_carried_out_on_every_page(site):
    play(site, "search[mug]", f"click[{MUG.asin}]", "click[large]", "click[features]")
    assert play(site, "search[nothing]")[3] == "Page 1 (Total results: 0)"
    assert site.state.options == {} and site.state.item is None


def test_purchase():
    bought = []
    site = Site(Shelf(), TASK, checkout=lambda number, options: bought.append((number, options)) or 0.75)
    shown = play(site, "search[mug]", f"click[{MUG.asin}]", "click[large]", "click[buy now]")
    assert bought == [(0, {"size": "large"})] and site.state.page is Page.DONE
    assert shown[4:9] == ["Purchased", "asin", MUG.asin, "options", json.dumps({"size": "large"})]
    assert shown[-3:] == ["0.75", "Reward Details", "None"]
    assert site.clickables == [] and not site.act("click[back to search]") and not site.act("search[mug]")


def test_options_on_the_receipt_are_sorted_and_escaped():
    class Quoted(Shelf):
        products = [product(options={"size": ("18''",), "color": ("<red> & blue",)})]

    site = Site(Quoted(), TASK, checkout=lambda number, options: 0.0)
    shown = play(site, "search[mug]", f"click[{MUG.asin}]", "click[18'']", "click[<red> & blue]", "click[buy now]")
    assert shown[8] == r'{"color": "\u003cred\u003e \u0026 blue", "size": "18\u0027\u0027"}'


def test_attributes_page_on_request():
    site = Site(Shelf(), TASK, checkout=lambda number, options: 0.0, show_attributes=True)
    assert site.details == list(Detail)
    shown = play(site, "search[mug]", f"click[{MUG.asin}]", "click[attributes]")
    assert shown[4:] == ["long lasting", "hand made", "garden", "coffee mugs", MUG.product_category]


def test_blank_text_as_the_original_shows_it():
    """Without a line break it leaves an empty segment, with one it vanishes; an empty text never was there."""

    class Odd(Shelf):
        products = [product(bullets=(" ", "\n ", "", " two\nlines "))]

    site = Site(Odd(), TASK, checkout=lambda number, options: 0.0)
    assert play(site, "search[mug]", f"click[{MUG.asin}]", "click[features]")[4:] == ["", "two\nlines"]


def test_of_equal_texts_the_later_counts_in_the_place_of_the_first_in_legacy():
    class Twice(Shelf):
        products = [product(options={"color": ("large", "features"), "size": ("small", "large")})]

    site = Site(Twice(), TASK, checkout=lambda number, options: 0.0, split=Split.LEGACY)
    play(site, "search[mug]", f"click[{MUG.asin}]")
    assert site.clickables[3:] == ["features", "reviews", "buy now", "large", "small"]
    play(site, "click[large]", "click[features]")
    assert site.state.options == {"size": "large", "color": "features"} and site.state.page is Page.ITEM


def test_rich_text(site):
    play(site, "search[mug]", f"click[{MUG.asin}]", "click[large]", "click[dark blue]")
    assert site.rich_text().splitlines() == [
        "You have clicked large.",
        "You have clicked dark blue.",
        "Instruction:",
        TASK,
        "[button] Back to Search [button_]",
        "[button] < Prev [button_]",
        "color",
        "  [button] green2 [button_]",
        "  [clicked button] dark blue [clicked button_]",
        "size",
        "  [clicked button] large [clicked button_]",
        "  [button] x-large [button_]",
        MUG.title,
        "Price: $14.5",
        "Rating: N.A.",
        *(f"[button] {label} [button_]" for label in ("Description", "Features", "Reviews", "Buy Now")),
    ]
    play(site, "click[< prev]")
    shown = site.rich_text()
    assert f"\n\n[clicked button] {MUG.asin} [clicked button_]\n" in shown
    assert f"\n\n[button] {OTHERS[0].asin} [button_]\n" in shown and shown.endswith("$14.5\n")


def test_page_without_the_task(site):
    assert site.page_text() == "'Search'"
    play(site, "search[nothing]")
    assert site.page_text() == "'Back to Search' [SEP] 'Page 1 (Total results: 0)' [SEP] 'Next >'"


@pytest.mark.parametrize(
    ("action", "parsed"),
    [
        ("search[Red Mug]", ("search", "red mug")),
        ("click[buy now] and more", ("click", "buy now")),
        ("click[a]b]", ("click", "a]b")),
        ("search[a[b]", None),  # greedy: the verb would be "search[a"
        ("Search[mug]", None),
        (" click[x]", None),
        ("search[]", None),
        ("search[two\nlines]", None),
        ("buy now", None),
        ("", None),
    ],
)
def test_actions_are_matched_as_in_the_original(action, parsed):
    assert parse_action(action) == parsed


ACTIONS = [
    "search[mug]",
    "search[nothing]",
    f"click[{MUG.asin}]",
    *(f"click[{label}]" for label in ("next >", "< prev", "back to search", "description", "large", "buy now")),
    "click[search]",
    "click[<script>]",
]


@given(st.lists(st.one_of(st.sampled_from(ACTIONS), st.text(max_size=20)), max_size=12))
def test_what_means_nothing_changes_nothing_and_every_link_leads_somewhere(actions):
    def visit():
        site = Site(Shelf(), TASK, checkout=lambda number, options: 1.0)
        for action in actions:
            before, clickables = site.text(), site.clickables
            if not site.act(action):
                assert (site.text(), site.clickables) == (before, clickables)
        return site

    for text in visit().clickables:
        assert visit().act(f"click[{text}]") == (text != "search")
