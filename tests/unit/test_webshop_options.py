# SPDX-License-Identifier: Apache-2.0
"""Options with equal texts: every combination can be chosen, and no option takes the place of a button."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_products import product

from agent_system.environments.webshop.compact import compact_links, compact_text
from agent_system.environments.webshop.goals import Split, chosen_options, count_combinations, synthetic_goal
from agent_system.environments.webshop.options import BUTTONS, PREFIX, group_to_set, option_text
from agent_system.environments.webshop.products import read_options
from agent_system.environments.webshop.shopper import Shopper
from agent_system.environments.webshop.site import Detail, Page, Role, Site
from agent_system.plan_execute.admissible import as_listed, is_admissible
from agent_system.plan_execute.protocol import parse_reply

ITEM_BUTTONS = {
    "back to search": Page.SEARCH,
    "< prev": Page.RESULTS,
    **{detail.value.lower(): Page.DETAIL for detail in Detail},
    "buy now": Page.DONE,
}


def item_page(options, split=Split.FIXED):
    """The page of a product with these options, and the list that takes the options of a purchase."""
    bought = []

    class Shelf:
        def search(self, query):
            return [0]

        def product(self, number):
            return product(options=options)

    site = Site(Shelf(), "task", lambda number, chosen: bought.append(chosen) or 1.0, show_attributes=True, split=split)
    site.act("search[mug]")
    site.act("click[b000000mug]")
    assert site.state.page is Page.ITEM
    return site, bought


NAMED_AS_BUTTONS = st.sampled_from(
    [*BUTTONS, "Buy Now", "buy  now", "buy\u00a0now", "option: buy now", "option: option: search", " Search ", "item a"]
)
ODD = st.sampled_from(
    [
        "",
        "black",
        "[2 pack]",
        "a]b",
        "x]\ny",
        "x",
        "click[buy now]",
        "search[mug]",
        "black/white",
        "<b>",
        "\u676f",
        "{}",
    ]
)
VALUES = st.one_of(NAMED_AS_BUTTONS, ODD, st.text(max_size=6))
GROUPS = st.dictionaries(
    st.one_of(st.sampled_from(["color", "strap color", "size", "buy now"]), st.text(max_size=4)),
    st.lists(VALUES, min_size=1, max_size=5),
    max_size=4,
).map(lambda groups: read_options({name: [{"value": v} for v in values] for name, values in groups.items()}))


def test_the_buttons_are_those_of_the_pages():
    site, _ = item_page({})
    shown = {segment.text.lower() for segment in site.segments() if segment.role is Role.BUTTON}
    site.act("click[< prev]")
    site.act("click[next >]")
    shown |= {segment.text.lower() for segment in site.segments() if segment.role is Role.BUTTON}
    site.act("click[back to search]")
    assert BUTTONS == shown | {"search"} == set(ITEM_BUTTONS) | {"search", "next >"}


@given(GROUPS)
def test_every_action_of_a_hostile_product_does_what_it_says(options):
    listed = item_page(options)[0].clickables
    values = {value for values in options.values() for value in values}
    assert set(listed) == {*ITEM_BUTTONS, *map(option_text, values)}
    assert len(listed) == len(ITEM_BUTTONS) + len(values)
    for text in listed:
        site, bought = item_page(options)
        assert site.act(f"click[{text}]")
        if text in ITEM_BUTTONS:
            assert site.state.page is ITEM_BUTTONS[text] and site.state.options == {}
            assert site.state.page is not Page.DETAIL or site.state.detail.value.lower() == text
            assert bought == ([{}] if text == "buy now" else [])
        else:
            (value,) = (value for value in values if option_text(value) == text)
            first = next(name for name, listed_values in options.items() if value in listed_values)
            assert site.state.page is Page.ITEM and site.state.options == {first: value}
    assert not item_page(options)[0].act("click[search]")


@given(GROUPS, st.data())
def test_one_click_for_each_group_in_the_order_of_the_page_reaches_every_combination(options, data):
    wanted = {name: data.draw(st.sampled_from(values)) for name, values in options.items()}
    site, bought = item_page(options)
    for value in wanted.values():
        assert site.act(f"click[{option_text(value)}]")
    assert site.state.options == wanted
    site.act("click[buy now]")
    assert bought == [wanted]


SHARED = st.dictionaries(
    st.sampled_from(["color", "strap color", "case color", "a"]),
    st.lists(
        st.sampled_from(["black", "red", "tan", "buy now", "option: buy now"]), min_size=1, max_size=4, unique=True
    ),
    min_size=1,
    max_size=4,
)


@given(SHARED, st.data())
def test_every_combination_is_reached_from_every_other(options, data):
    site, _ = item_page(options)
    for text in data.draw(st.lists(st.sampled_from([option_text(v) for vs in options.values() for v in vs]))):
        site.act(f"click[{text}]")
    wanted = {name: data.draw(st.sampled_from(values)) for name, values in options.items()}
    for name, value in reversed(wanted.items()):
        clicks = 0
        while site.state.options.get(name) != value:
            site.act(f"click[{option_text(value)}]")
            clicks += 1
            assert clicks <= len(options)
    assert site.state.options == wanted


@given(SHARED, st.integers(0, 10**6), st.data())
def test_the_scripted_player_chooses_what_is_required_whatever_was_clicked_before(options, seed, data):
    sold = product(options=options)
    goal = synthetic_goal(sold, data.draw(st.integers(0, count_combinations(sold) - 1)), 20.0, 0)
    offered = {**options, "z": ("black", "red")} if data.draw(st.booleans()) else options
    if data.draw(st.booleans()):
        offered = {"extra": ("black", "tan"), **offered}
    site, bought = item_page(offered)
    for text in data.draw(st.lists(st.sampled_from([option_text(v) for vs in offered.values() for v in vs]))):
        site.act(f"click[{text}]")
    player = Shopper(goal.instruction, random.Random(seed))
    for _ in range(30):
        links = [f"click[{text}]" for text in compact_links(site)]
        advice = player.advise(compact_text(site), links, "")
        assert advice.action in links
        site.act(advice.action)
        if site.state.page is Page.DONE:
            break
    assert bought and goal.options.items() <= bought[0].items()


def test_the_scripted_player_does_not_undo_one_choice_by_the_other():
    options = {"color": ("red", "black"), "strap color": ("red", "black")}
    site, bought = item_page(options)
    site.act("click[black]")
    site.act("click[red]")
    player = Shopper("Find me a mug with color: red, and strap color: black", random.Random(0))
    for _ in range(6):
        site.act(player.advise(compact_text(site), [f"click[{text}]" for text in compact_links(site)], "").action)
    assert bought == [{"color": "red", "strap color": "black"}]


def test_a_value_of_two_groups_sets_the_first_open_one_and_then_the_first_with_another_value():
    site, _ = item_page({"color": ("black", "white"), "strap color": ("black", "red")})
    steps = [
        ("black", {"color": "black"}),
        ("black", {"color": "black", "strap color": "black"}),
        ("black", {"color": "black", "strap color": "black"}),  # nothing is left to set
        ("white", {"color": "white", "strap color": "black"}),
        ("red", {"color": "white", "strap color": "red"}),
        ("black", {"color": "black", "strap color": "red"}),
        ("black", {"color": "black", "strap color": "black"}),
    ]
    for value, options in steps:
        assert site.act(f"click[{value}]") and site.state.options == options
    assert site.clickables.count("black") == 1
    assert group_to_set(site.item.options, {"strap color": "red"}, "black") == "color"
    assert compact_text(site) == "item: brava stoneware coffee mug $15 | color: black | strap color: black"


@pytest.mark.parametrize(("split", "marked"), [(Split.FIXED, 1), (Split.LEGACY, 2)])
def test_rich_text_marks_a_chosen_value_in_its_group_only(split, marked):
    site, _ = item_page({"color": ("black", "white"), "strap color": ("black", "red")}, split)
    site.act("click[black]")
    assert site.rich_text().count("  [clicked button] black [clicked button_]\n") == marked
    assert site.rich_text().count("  [button] black [button_]\n") == 2 - marked
    assert site.rich_text().count("You have clicked black.\n") == marked


def test_options_named_as_buttons_are_told_apart_by_a_prefix():
    site, bought = item_page({"style": ("buy now", "features", "search", "red")})
    assert site.clickables[-4:] == ["option: buy now", "option: features", "option: search", "red"]
    assert site.act("click[Option: Buy Now]") and site.state.options == {"style": "buy now"}
    assert "choose style: buy now" not in compact_text(site) and compact_text(site).endswith(" | style: buy now")
    assert site.act("click[buy now]") and bought == [{"style": "buy now"}]


@given(st.lists(VALUES, unique=True))
def test_texts_of_options_are_distinct_and_none_is_a_button(values):
    texts = [option_text(value) for value in values]
    assert len(set(texts)) == len(texts)
    for value, text in zip(values, texts, strict=True):
        assert " ".join(text.lower().split()) not in BUTTONS
        assert text in (value, PREFIX + value)


@given(GROUPS)
def test_a_reply_that_copies_an_action_plays_it(options):
    """The parser of replies collapses whitespace: no option becomes a button by that."""
    listed = [f"click[{text}]" for text in item_page(options)[0].clickables]
    collapsed = [" ".join(action.lower().split()) for action in listed]
    for action, short in zip(listed, collapsed, strict=True):
        written = f"<switch>SWITCH</switch><subgoal>choose</subgoal><action>{action}</action>"
        if collapsed.count(short) > 1 or any(tag in action for tag in ("<switch>", "<action>")):
            continue  # two options that only whitespace tells apart
        meant = as_listed(parse_reply(written, shown=listed).action, listed)
        assert meant == action and is_admissible(meant, listed)


# ---------------------------------------------------------------- legacy


def released_links(options):
    """As the released simulator reads its page: a dictionary of texts, in which the later element replaces."""
    links = dict.fromkeys(ITEM_BUTTONS)
    for name, values in options.items():
        links.update(dict.fromkeys(values, name))
    return links


@given(GROUPS, st.lists(st.integers(0, 30), max_size=12))
def test_legacy_is_the_released_simulator(options, clicks):
    site, _ = item_page(options, Split.LEGACY)
    links, chosen = released_links(options), {}
    assert site.clickables == list(links)
    playable = [text for text, group in links.items() if group is not None and text != "search" and "\n" not in text]
    for click in clicks if playable else []:
        text = playable[click % len(playable)]
        assert site.act(f"click[{text}]")
        chosen[links[text]] = text
        assert site.state.options == chosen and site.state.page is Page.ITEM and site.clickables == list(links)
    for button, page in ITEM_BUTTONS.items():
        if links[button] is None:
            site, _ = item_page(options, Split.LEGACY)
            assert site.act(f"click[{button}]") and site.state.page is page


def test_in_legacy_the_later_group_takes_a_shared_value_and_an_option_hides_a_button():
    site, _ = item_page({"color": ("black", "buy now"), "strap color": ("black", "red")}, Split.LEGACY)
    site.act("click[black]")
    site.act("click[black]")
    site.act("click[buy now]")
    assert site.state.options == {"strap color": "black", "color": "buy now"} and site.state.page is Page.ITEM


@pytest.mark.parametrize(("split", "reached"), [(Split.FIXED, 4), (Split.LEGACY, 0)])
def test_goals_of_two_groups_with_the_same_values(split, reached):
    sold = product(options={"color": ("black", "white"), "strap color": ("black", "white")})
    orders = [clicks for count in range(4) for clicks in itertools.product(("black", "white"), repeat=count)]
    ends = [plays(sold.options, clicks, split) for clicks in orders]
    assert sum(chosen_options(sold, choice) in ends for choice in range(count_combinations(sold))) == reached


def plays(options, clicks, split):
    """The options that are chosen after these clicks."""
    site, _ = item_page(options, split)
    for text in clicks:
        site.act(f"click[{text}]")
    return site.state.options
