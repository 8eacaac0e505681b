# SPDX-License-Identifier: Apache-2.0
"""The shop as a state machine: pages, their texts, their clickable elements, and the transitions.

Pages, texts and transitions are those of the original (`web_agent_site/app.py`, `envs/web_agent_text_env.py`), without
HTML. A page is a sequence of `Segment`s, from which the text observations are written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

from agent_system.environments.webshop.goals import Split
from agent_system.environments.webshop.options import group_to_set, option_text
from agent_system.environments.webshop.products import Product
from agent_system.environments.webshop.state import Detail, Page, Role, Segment, State

__all__ = [
    "HITS_PER_PAGE",
    "MAX_HITS",
    "SEARCH_TEMPLATE",
    "Catalogue",
    "Detail",
    "Page",
    "Role",
    "Segment",
    "Site",
    "State",
    "parse_action",
]

MAX_HITS = 50
"""The largest number of products that a search returns."""
HITS_PER_PAGE = 10
NO_RATING = "N.A."
SEPARATOR = " [SEP] "
SEARCH_TEMPLATE = "search[<your query>]"
"""Represents every search in a list of admissible actions."""

# As the original matches it: from the start, greedy, on one line; text after the last bracket is ignored.
_ACTION = re.compile(r"(.+)\[(.+)\]")


class Catalogue(Protocol):
    """The part of a shop that the site uses."""

    def search(self, query: str) -> list[int]:
        """Numbers of at most `MAX_HITS` products, best first."""

    def product(self, number: int) -> Product:
        """The product of that number."""


class Site:
    """The pages of one episode.

    Args:
        catalogue: the shop.
        instruction: the task, shown on every page.
        checkout: called at the purchase with the product and the chosen options; returns the score.
        show_attributes: whether items have the page "Attributes". The original's default is no.
        split: "legacy" clicks options as the original does: of equal texts on an item's page the last one counts, even
            if that hides a button. "fixed" has the rules of `options`.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        instruction: str,
        checkout: Callable[[int, dict[str, str]], float],
        show_attributes: bool = False,
        split: Split = Split.FIXED,
    ) -> None:
        self._catalogue = catalogue
        self._instruction = instruction
        self._checkout = checkout
        self._is_legacy = split is Split.LEGACY
        self._details = [d for d in Detail if show_attributes or d is not Detail.ATTRIBUTES]
        self.state = State()

    # ------------------------------------------------------------------ actions

    @property
    def has_search_bar(self) -> bool:
        """Whether the page shows a search bar. A search is carried out on every page, with or without it."""
        return self.state.page is Page.SEARCH

    @property
    def clickables(self) -> list[str]:
        """Texts of the clickable elements, in lower case and in the page's order."""
        return list(self._links())

    def act(self, action: str) -> bool:
        """Carry out `search[...]` or `click[...]`. Any other action, and a click on a missing element, has no effect.

        Returns:
            Whether the action was carried out.
        """
        if self.state.page is Page.DONE:
            return False
        parsed = parse_action(action) or self._listed_click(action)
        if not self._is_legacy:  # a text with a line break after a bracket is parsed as another one
            parsed = self._listed_click(action) or parsed
        if parsed is None:
            return False
        verb, argument = parsed
        if verb == "search":
            self.state = State(page=Page.RESULTS, query=argument, visited=self.state.visited)
            return True
        follow = self._links().get(argument)
        if follow is None or argument == "search":
            return False
        follow()
        return True

    def _listed_click(self, action: str) -> tuple[str, str] | None:
        """A click on a listed text; the original never matches one with a bracket, "click[black [2 pack]]"."""
        label = action.removeprefix("click[").removesuffix("]").lower()
        is_click = action.startswith("click[") and action.endswith("]")
        return ("click", label) if is_click and label in self._links() else None

    def _links(self) -> dict[str, Callable[[], None]]:
        """The transition of each clickable text, at the position of its first element on the page."""
        state = self.state
        if state.page is Page.DONE:
            return {}
        if state.page is Page.SEARCH:
            return {"search": self._back_to_search}
        links: dict[str, Callable[[], None]] = {"back to search": self._back_to_search}
        if state.page is Page.RESULTS:
            if state.results_page > 1:
                links["< prev"] = partial(self._turn_page, -1)
            links["next >"] = partial(self._turn_page, 1)
            for number in self.hits_shown():
                links[self._catalogue.product(number).asin.lower()] = partial(self._open_item, number)
        elif state.page is Page.ITEM:
            links["< prev"] = self._back_to_results
            for detail in self._details:
                links[detail.value.lower()] = partial(self._open_detail, detail)
            links["buy now"] = self._buy
            for values in self.item.options.values():
                for value in values:
                    links[self.link_of(value)] = partial(self._choose, value)
        else:
            links["< prev"] = self._back_to_item
        return links

    def _back_to_search(self) -> None:
        self.state = State()

    def _turn_page(self, by: int) -> None:
        self.state.results_page += by

    def _open_item(self, number: int) -> None:
        self.state.page, self.state.item = Page.ITEM, number
        self.state.visited.add(self.item.asin)

    def _back_to_results(self) -> None:
        self.state.page, self.state.item = Page.RESULTS, None
        self.state.options = {}

    def _open_detail(self, detail: Detail) -> None:
        self.state.page, self.state.detail = Page.DETAIL, detail

    def _back_to_item(self) -> None:
        self.state.page, self.state.detail = Page.ITEM, None

    def link_of(self, value: str) -> str:
        """The clickable text that chooses this value of an option of the shown product."""
        return value if self._is_legacy else option_text(value)

    def group_set_by(self, value: str) -> str | None:
        """The option group of the shown product in which a click on this value chooses it now; None if none changes."""
        groups = self.item.options
        if not self._is_legacy:
            return group_to_set(groups, self.state.options, value)
        return next(name for name in reversed(tuple(groups)) if value in groups[name])

    def _choose(self, value: str) -> None:
        name = self.group_set_by(value)
        if name is not None:
            self.state.options[name] = value

    def _buy(self) -> None:
        assert self.state.item is not None  # "buy now" is a link of an item's page
        self.state.score = self._checkout(self.state.item, dict(self.state.options))
        self.state.page = Page.DONE

    # ------------------------------------------------------------------ observations

    @property
    def instruction(self) -> str:
        """The task."""
        return self._instruction

    @property
    def details(self) -> list[Detail]:
        """The sub-pages that items have here."""
        return list(self._details)

    @property
    def item(self) -> Product:
        """The product that is shown, or was bought."""
        assert self.state.item is not None  # read on the pages of an item only
        return self._catalogue.product(self.state.item)

    def product(self, number: int) -> Product:
        """Product `number` of the catalogue."""
        return self._catalogue.product(number)

    def hits(self) -> list[int]:
        """All products that match the last search, best first."""
        assert self.state.query is not None  # read on the results of a search only
        return self._catalogue.search(self.state.query)

    def hits_shown(self) -> list[int]:
        """The hits on this page of the results; empty beyond the last page."""
        end = self.state.results_page * HITS_PER_PAGE
        return self.hits()[end - HITS_PER_PAGE : end]

    def segments(self) -> Iterator[Segment]:
        """The visible text of the page."""
        page = self.state.page
        if page is Page.DONE:
            yield from self._receipt()
            return
        if page is Page.SEARCH:
            yield Segment("WebShop")
        yield Segment("Instruction:")
        yield Segment(self._instruction)
        if page is Page.SEARCH:
            yield Segment("Search", Role.BUTTON)
            return
        yield Segment("Back to Search", Role.BUTTON)
        if page is Page.RESULTS:
            yield from self._results()
        elif page is Page.ITEM:
            yield from self._item()
        else:
            yield Segment("< Prev", Role.BUTTON)
            yield from map(Segment, self.detail_lines())

    def _results(self) -> Iterator[Segment]:
        yield Segment(f"Page {self.state.results_page} (Total results: {len(self.hits())})")
        if self.state.results_page > 1:
            yield Segment("< Prev", Role.BUTTON)
        yield Segment("Next >", Role.BUTTON)
        for number in self.hits_shown():
            product = self._catalogue.product(number)
            yield Segment(product.asin, Role.PRODUCT)
            yield Segment(product.title)
            yield Segment(product.price_tag)

    def _item(self) -> Iterator[Segment]:
        product = self.item
        yield Segment("< Prev", Role.BUTTON)
        for name, values in product.options.items():
            yield Segment(name)
            for value in values:
                yield Segment(value, Role.OPTION, name)
        yield Segment(product.title)
        yield Segment(f"Price: {product.price_tag}")
        yield Segment(f"Rating: {NO_RATING}")
        for detail in self._details:
            yield Segment(detail.value, Role.BUTTON)
        yield Segment("Buy Now", Role.BUTTON)

    def detail_lines(self) -> tuple[str, ...]:
        """Texts of the sub-page that is shown."""
        product = self.item
        if self.state.detail is Detail.DESCRIPTION:
            return (product.description,)
        if self.state.detail is Detail.FEATURES:
            return product.bullets
        if self.state.detail is Detail.ATTRIBUTES:
            return (*product.attributes, product.category, product.query, product.product_category)
        return ()  # the published catalogue is loaded without its reviews

    def _receipt(self) -> Iterator[Segment]:
        # The misspelling is the original's.
        yield from map(
            Segment,
            (
                "Thank you for shopping with us!", "Your code:", "None", "(Paste it in your MTurk interface.)",
                "Purchased", "asin", self.item.asin, "options", _as_json(self.state.options), "attrs", "None",
                "category", "None", "query", "None", "product category", "None",
                "Target", "asin", "options", "attrs", "price upper", "instuction text",
                "category", "product category", "query", "Goal", "None", "Reward", "Your score (min 0.0, max 1.0)",
                str(self.state.score), "Reward Details", "None",
            ),
        )  # fmt: skip

    def text(self) -> str:
        """The observation of the mode "text"."""
        return SEPARATOR.join(segment.text.strip() for segment in self.segments() if _is_node(segment.text))

    def rich_text(self) -> str:
        """The observation of the mode "text_rich": a line for each segment; clickable ones are marked."""
        first = ""
        lines = []
        for segment in self.segments():
            text = segment.text
            if not _is_node(text):
                continue
            if segment.role is Role.BUTTON:
                lines.append(f"[button] {text} [button_]")
            elif segment.role is Role.OPTION:
                chosen = self.state.options
                is_chosen = text in chosen.values() if self._is_legacy else chosen.get(segment.group) == text
                lines.append(f"  {_marked(text, is_chosen)}")
                if is_chosen:
                    first = f"You have clicked {text}.\n{first}"
            elif segment.role is Role.PRODUCT:
                lines.append(f"\n{_marked(text, text in self.state.visited)}")
            else:
                lines.append(text)
        return first + "\n".join(lines) + "\n"

    def page_text(self) -> str:
        """The page without the task, each text in quotes, as verl-agent's manager shows it in a prompt."""
        if self.state.page is Page.DONE:
            return self.text()
        texts = [segment.text.strip() for segment in self.segments() if _is_node(segment.text)]
        return SEPARATOR.join(f"'{text}'" for text in texts[texts.index("Instruction:") + 2 :])


def parse_action(action: str) -> tuple[str, str] | None:
    """("search" or "click", argument in lower case), or None for anything else.

    >>> parse_action("click[Buy Now] please")
    ('click', 'buy now')
    """
    match = _ACTION.match(action)
    if match is None or match[1] not in ("search", "click"):
        return None
    return match[1], match[2].lower()


def _as_json(options: dict[str, str]) -> str:
    """JSON as the original's templates write it: sorted by name, and safe within HTML."""
    return json.dumps(options, sort_keys=True).translate(_HTML_IN_JSON)


_HTML_IN_JSON = {ord(character): f"\\u{ord(character):04x}" for character in "<>&'"}


def _is_node(text: str) -> bool:
    """Whether the text is a text node in the original's page: blank text with a line break is not."""
    return bool(text) and (bool(text.strip()) or "\n" not in text)


def _marked(text: str, is_clicked: bool) -> str:
    return f"[clicked button] {text} [clicked button_]" if is_clicked else f"[button] {text} [button_]"
