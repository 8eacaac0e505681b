# SPDX-License-Identifier: Apache-2.0
"""A scripted player that uses only the texts: the task, the compact page and the admissible actions.

It searches for the words of the task, opens the listed product whose title has most of them and whose price is within
the bound, chooses the required options, and buys. It leaves a product that lacks one of them. It does not read features
and descriptions, and so does not win every episode. Its advice depends on the page only: it can be requested at any
point of an episode that another policy plays.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from agent_system.environments.webshop.goals import NO_BOUND
from agent_system.environments.webshop.options import option_text
from agent_system.plan_execute.advice import Advice

FIND, BUY = "find product", "buy it"
_PRICE = re.compile(r", and price lower than ([\d.]+) dollars$")
_NEXT_OPTION = re.compile(r", and (?=[a-z ]+: )")
_LINE = re.compile(r"(?P<name>item [a-z]) (?P<title>.*) \$(?P<price>\d+)(?: to \$\d+)?(?P<seen> seen)?")
_OPEN_GROUP = re.compile(r" \| choose (?P<group>[^:]+): (?P<values>.*?)(?= \| [^|]+: |$)")
_WORD = re.compile(r"[\w']+")
_STOP_WORDS = frozenset({"a", "an", "and", "for", "in", "of", "the", "to", "with"})
_MAX_PAGES = 2
"""Pages of results that are read before the search is repeated with fewer words."""


@dataclass(frozen=True)
class ParsedInstruction:
    """The parts of a task's instruction.

    Attributes:
        product: the words to search for.
        options: (group, value) pairs.
        bound: the price bound, in dollars.
    """

    product: str
    options: tuple[tuple[str, str], ...]
    bound: float


def parse_instruction(task: str) -> ParsedInstruction:
    """Parse a synthetic instruction. Any other text is the product as a whole."""
    price = _PRICE.search(task)
    text = task[: price.start()] if price else task
    # The product may be "with" something too: options start at the last "with" before the first colon.
    before, colon, _ = text.partition(": ")
    product = before.rpartition(" with ")[0] if colon else text
    options = text[len(product) + len(" with ") :] if colon else ""
    pairs = tuple(tuple(part.split(": ", 1)) for part in _NEXT_OPTION.split(options)) if options else ()
    return ParsedInstruction(product.removeprefix("Find me ").strip(), pairs, float(price[1]) if price else NO_BOUND)


class Shopper:
    """Advice for one task.

    Args:
        task: the instruction.
        rng: draws the mistakes.
        hasty: probability of buying before all options are chosen, on each turn with an option left to choose.
        blind: probability of opening a random listed product instead of the best match.
        curious: probability of opening a sub-page of an item, which is never needed.
    """

    def __init__(
        self, task: str, rng: random.Random, *, hasty: float = 0.0, blind: float = 0.0, curious: float = 0.0
    ) -> None:
        self._instruction = parse_instruction(task)
        self._words = _words(self._instruction.product)
        self._rng = rng
        self._hasty, self._blind, self._curious = hasty, blind, curious

    def advise(self, page: str, admissible: Sequence[str], subgoal: str) -> Advice:
        """The recommended sub-goal and action.

        Args:
            page: the observation in the mode "compact".
            admissible: the admissible actions.
            subgoal: the current sub-goal, "" if there is none.
        """
        if page.startswith("results page "):
            return Advice.towards(FIND, self._on_results(page), subgoal)
        if page.startswith("item: "):
            return self._on_item(page, admissible, subgoal)
        if "click[< prev]" in admissible:
            return Advice.towards(subgoal or FIND, "click[< prev]", subgoal)
        return Advice.towards(FIND, f"search[{self._instruction.product.lower()}]", subgoal)

    def _on_results(self, page: str) -> str:
        head, _, listed = page.partition(": ")
        lines = [line for part in listed.split(" | ") if (line := _LINE.fullmatch(part))]
        fresh = [line for line in lines if not line["seen"]]
        if fresh and self._rng.random() < self._blind:
            return f"click[{self._rng.choice(fresh)['name']}]"
        fitting = [line for line in fresh if float(line["price"]) <= self._instruction.bound]
        if fitting:
            best = max(fitting, key=lambda line: len(self._words & _words(line["title"])))
            return f"click[{best['name']}]"
        if int(head.split()[2]) < _MAX_PAGES:
            return "click[next >]"
        words = self._instruction.product.lower().split()
        return f"search[{' '.join(self._rng.sample(words, max(1, len(words) // 2)))}]"

    def _on_item(self, page: str, admissible: Sequence[str], subgoal: str) -> Advice:
        if any(f"click[{option_text(value)}]" not in admissible for _, value in self._instruction.options):
            return Advice.towards(FIND, "click[< prev]", subgoal)
        if self._rng.random() < self._curious:
            detail = self._rng.choice([f"click[{name}]" for name in ("description", "features", "reviews")])
            return Advice.towards(subgoal or FIND, detail, subgoal)
        chosen = f"{page} | "
        still_open = [
            (name, value) for name, value in self._instruction.options if f" | {name}: {value} | " not in chosen
        ]
        if still_open and self._rng.random() >= self._hasty:
            name, value = _next_choice(page, still_open)
            return Advice.towards(f"choose {name}: {value}", f"click[{option_text(value)}]", subgoal)
        return Advice.towards(BUY, "click[buy now]", subgoal)


def _next_choice(page: str, missing: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """The first of the missing (group, value) pairs that a click is sure to reach where groups share values.

    A click sets the first open group with its value (`options`). If no open group has it, it may set any group before
    the one that is meant, so of the groups with a wrong value only the last one of the page is considered. If no click
    is sure, one that sets some open group is the next.
    """
    open_groups = [(match["group"], f", {match['values']}, ") for match in _OPEN_GROUP.finditer(page)]
    is_open = {name for name, _ in open_groups}
    wrong = [name for name, _ in missing if name not in is_open]
    last_wrong = max(wrong, key=lambda name: page.find(f" | {name}: "), default=None)
    targets = [next((group for group, values in open_groups if f", {value}, " in values), None) for _, value in missing]
    sure = (pair for pair, target in zip(missing, targets, strict=True) if pair[0] == (target or last_wrong))
    opening = (pair for pair, target in zip(missing, targets, strict=True) if target)
    return next(sure, next(opening, missing[0]))


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower())) - _STOP_WORDS
