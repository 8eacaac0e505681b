# SPDX-License-Identifier: Apache-2.0
"""A scripted shopper that goes by the text alone: task, compact page, and what can be clicked.

It searches for the words of the task, opens the listed product whose title has most of them and whose price is within
the bound, chooses the options asked for, and buys. A product that lacks one of them is left again. It does not read
features and descriptions, and so does not win every time. What it does depends on the page and on nothing else: it can
be asked for advice in the middle of anybody's visit.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from agent_system.environments.webshop.goals import NO_BOUND
from agent_system.plan_execute.advice import Advice

FIND, BUY = "find product", "buy it"
_PRICE = re.compile(r", and price lower than ([\d.]+) dollars$")
_NEXT_OPTION = re.compile(r", and (?=[a-z ]+: )")
_LINE = re.compile(r"(?P<name>item [a-z]) (?P<title>.*) \$(?P<price>\d+)(?: to \$\d+)?(?P<seen> seen)?")
_WORD = re.compile(r"[\w']+")
_LITTLE_WORDS = frozenset({"a", "an", "and", "for", "in", "of", "the", "to", "with"})
_PAGES = 2
"""Pages of results that are looked through before the search is done again with fewer words."""


@dataclass(frozen=True)
class Wish:
    """A task's instruction, taken apart.

    Attributes:
        product: what to search for.
        options: (group, value) pairs.
        bound: the most that may be paid, in dollars.
    """

    product: str
    options: tuple[tuple[str, str], ...]
    bound: float


def parse_wish(task: str) -> Wish:
    """Take a synthetic instruction apart. Of any other text everything is searched for."""
    price = _PRICE.search(task)
    text = task[: price.start()] if price else task
    # The product may be "with" something too: options begin at the last "with" before the first colon.
    before, colon, _ = text.partition(": ")
    product = before.rpartition(" with ")[0] if colon else text
    options = text[len(product) + len(" with ") :] if colon else ""
    pairs = tuple(tuple(part.split(": ", 1)) for part in _NEXT_OPTION.split(options)) if options else ()
    return Wish(product.removeprefix("Find me ").strip(), pairs, float(price[1]) if price else NO_BOUND)


class Shopper:
    """Advice for one task.

    Args:
        task: the instruction.
        rng: draws what a careless shopper does.
        hasty: probability of buying although an option is still to be chosen, on each turn on which one is.
        blind: probability of opening any listed product instead of the one that fits best.
        curious: probability of opening a sub-page of an item, which serves nothing.
    """

    def __init__(
        self, task: str, rng: random.Random, *, hasty: float = 0.0, blind: float = 0.0, curious: float = 0.0
    ) -> None:
        self._wish = parse_wish(task)
        self._words = _words(self._wish.product)
        self._rng = rng
        self._hasty, self._blind, self._curious = hasty, blind, curious

    def advise(self, page: str, admissible: Sequence[str], subgoal: str) -> Advice:
        """What to do now.

        Args:
            page: the observation in the mode "compact".
            admissible: the admissible actions.
            subgoal: the sub-goal in force, "" if there is none.
        """
        if page.startswith("results page "):
            return Advice.towards(FIND, self._on_results(page), subgoal)
        if page.startswith("item: "):
            return self._on_item(page, admissible, subgoal)
        if "click[< prev]" in admissible:
            return Advice.towards(subgoal or FIND, "click[< prev]", subgoal)
        return Advice.towards(FIND, f"search[{self._wish.product.lower()}]", subgoal)

    def _on_results(self, page: str) -> str:
        head, _, listed = page.partition(": ")
        lines = [line for part in listed.split(" | ") if (line := _LINE.fullmatch(part))]
        fresh = [line for line in lines if not line["seen"]]
        if fresh and self._rng.random() < self._blind:
            return f"click[{self._rng.choice(fresh)['name']}]"
        fitting = [line for line in fresh if float(line["price"]) <= self._wish.bound]
        if fitting:
            best = max(fitting, key=lambda line: len(self._words & _words(line["title"])))
            return f"click[{best['name']}]"
        if int(head.split()[2]) < _PAGES:
            return "click[next >]"
        words = self._wish.product.lower().split()
        return f"search[{' '.join(self._rng.sample(words, max(1, len(words) // 2)))}]"

    def _on_item(self, page: str, admissible: Sequence[str], subgoal: str) -> Advice:
        if any(f"click[{value}]" not in admissible for _, value in self._wish.options):
            return Advice.towards(FIND, "click[< prev]", subgoal)
        if self._rng.random() < self._curious:
            detail = self._rng.choice([f"click[{name}]" for name in ("description", "features", "reviews")])
            return Advice.towards(subgoal or FIND, detail, subgoal)
        chosen = f"{page} | "
        still_open = [(name, value) for name, value in self._wish.options if f" | {name}: {value} | " not in chosen]
        if still_open and self._rng.random() >= self._hasty:
            name, value = still_open[0]
            return Advice.towards(f"choose {name}: {value}", f"click[{value}]", subgoal)
        return Advice.towards(BUY, "click[buy now]", subgoal)


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower())) - _LITTLE_WORDS
