# SPDX-License-Identifier: Apache-2.0
"""Goals: which product an instruction asks for, with which options and at what price at most; and how goals are split.

A goal is stored as three numbers (product, combination of options or instruction, price bound); its text is put
together when it is looked at. Rules and draws are the original's (`web_agent_site/engine/goal.py` and `engine.py`),
with Python's generator seeded and used in the same order, so that `legacy` goals are the original's to the letter.

Two ways to order and split the goals of one catalogue:

- `fixed` (default): prices, price bounds and one shuffle are drawn from `FIXED_SEED`, once, whatever the seed of a run.
  The splits are disjoint.
- `legacy`: as in verl-agent and the released HiPER code, where every environment worker draws prices, bounds and the
  shuffle from its own seed and then calls the first 500 of *its* order the test goals. Training and test goals of
  different workers overlap nearly completely; `legacy_overlap` counts it.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate, islice
from math import prod

import numpy as np

from agent_system.environments.webshop.products import HumanInstruction, Product
from agent_system.errors import ConfigError, TaskError

FIXED_SEED = 233
"""Seed of prices, price bounds and order under `fixed`. Never changed: figures could not be compared."""
PRICE_GRID = tuple(float(price) for price in range(10, 1000, 10))
NO_BOUND = 1_000_000.0
"""Price bound of a goal whose product costs more than any bound on the grid leaves room for."""
LEGACY_TEST_GOALS = 500


class Goals(str, Enum):
    """Where instructions come from."""

    SYNTHETIC = "synthetic"
    """One instruction per product, combined with every choice of its options."""
    HUMAN = "human"
    """Instructions that people wrote."""


class Split(str, Enum):
    """How goals are drawn, ordered and split; see the module's text."""

    FIXED = "fixed"
    LEGACY = "legacy"


@dataclass(frozen=True)
class Goal:
    """What the shopper wants.

    Attributes:
        index: place of the goal in its order.
        product: the product the goal was made from.
        instruction: the text of the task.
        attributes: attributes asked for.
        options: options asked for: value by group for a synthetic goal, values without groups for a human one.
        price_upper: the most that may be paid, in dollars.
    """

    index: int
    product: Product
    instruction: str
    attributes: tuple[str, ...]
    options: Mapping[str, str] | tuple[str, ...]
    price_upper: float


@dataclass(frozen=True)
class GoalTable:
    """All goals of a catalogue under one seed, in their order.

    Attributes:
        product: number of each goal's product in the catalogue, int32 `[goals]`.
        choice: which combination of options (synthetic) or which instruction (human) of that product, int32 `[goals]`.
        price_upper: in dollars, float64 `[goals]`.
        price: the price asked of each product, in dollars, float64 `[products]`.
    """

    product: np.ndarray
    choice: np.ndarray
    price_upper: np.ndarray
    price: np.ndarray

    def __len__(self) -> int:
        return len(self.product)


def combinations(product: Product) -> int:
    """Number of choices of one value for each option group."""
    return prod(len(values) for values in product.options.values())


def chosen_options(product: Product, choice: int) -> dict[str, str]:
    """Combination number `choice`: groups by name, the last group varies fastest (as `itertools.product` does)."""
    chosen = {}
    for name in sorted(product.options, reverse=True):
        choice, position = divmod(choice, len(product.options[name]))
        chosen[name] = product.options[name][position]
    return dict(reversed(chosen.items()))


def synthetic_goal(product: Product, choice: int, price_upper: float, index: int) -> Goal:
    """A goal from the product's own instruction."""
    options = chosen_options(product, choice)
    wish = " with " + ", and ".join(f"{name}: {value}" for name, value in options.items()) if options else ""
    return Goal(
        index=index,
        product=product,
        instruction=f"{product.instruction}{wish}{price_text(price_upper)}",
        attributes=product.instruction_attributes,
        options=options,
        price_upper=price_upper,
    )


def human_goal(product: Product, written: HumanInstruction, price_upper: float, index: int) -> Goal:
    """A goal from a person's instruction."""
    return Goal(
        index=index,
        product=product,
        instruction=written.instruction.strip(".") + price_text(price_upper),
        attributes=written.attributes,
        options=written.options,
        price_upper=price_upper,
    )


def price_text(price_upper: float) -> str:
    """How the instruction names the bound; nothing where there is none."""
    return "" if price_upper == NO_BOUND else f", and price lower than {price_upper:.2f} dollars"


def drawn_prices(prices: Sequence[Sequence[float]], chance: random.Random) -> np.ndarray:
    """The price asked of each product, `[products]`: the one it has, or a draw from its range.

    Args:
        prices: for each product in catalogue order one price, or two.
    """
    return np.array([p[0] if len(p) == 1 else chance.uniform(*p) for p in prices], dtype=np.float64)


def drawn_bound(price: float, chance: random.Random) -> float:
    """The larger of two draws from the four bounds above the price; `NO_BOUND` if there are fewer than two."""
    above = list(islice((bound for bound in PRICE_GRID if bound > price), 4))
    return max(chance.sample(above, 2)) if len(above) >= 2 else NO_BOUND


def goal_table(
    prices: Sequence[Sequence[float]],
    wishes: Sequence[tuple[int, int]],
    goals: Goals,
    seed: int,
) -> GoalTable:
    """Draw prices, bounds and the order of all goals from `seed`, as one worker of the original does.

    Args:
        prices: for each product in catalogue order one price, or two.
        wishes: (product, number of goals from it) in catalogue order, for the products that have goals. One bound is
            drawn per product (synthetic) or per goal (human).
    """
    chance = random.Random(seed)
    # In the recorded episodes of the original something took one number after its seed was set, before the prices.
    chance.getrandbits(32)
    price = drawn_prices(prices, chance)
    numbers = np.array([number for number, _ in wishes], dtype=np.int32)
    counts = np.array([count for _, count in wishes], dtype=np.int64)
    starts = np.repeat(counts.cumsum() - counts, counts)
    choice = (np.arange(len(starts)) - starts).astype(np.int32)
    if goals is Goals.SYNTHETIC:
        upper = np.repeat([drawn_bound(price[number], chance) for number in numbers], counts)
    else:
        upper = np.array([drawn_bound(price[number], chance) for number in np.repeat(numbers, counts)])
    order = list(range(len(choice)))
    random.Random(seed).shuffle(order)
    return GoalTable(
        product=np.repeat(numbers, counts)[order], choice=choice[order], price_upper=upper[order], price=price
    )


def split_ranges(goals: int, split: Split) -> dict[str, range]:
    """Indices of the goals of each split, by name.

    `fixed`: "test" the first 500, "eval" the next 1,000 and "train" the rest, as the original's baselines; with fewer
    than 4,500 goals the two held-out splits take a ninth and two ninths. `legacy`: "test" the first 500 of a worker's
    order and "train" the rest of it ("eval" is "test": the released code knows no third split).

    Raises:
        ConfigError: too few goals for splits that all hold one.
    """
    if split is Split.LEGACY:
        if goals <= LEGACY_TEST_GOALS:
            raise ConfigError(
                f"env.webshop.split=legacy keeps {LEGACY_TEST_GOALS} goals for the test, but there are {goals} in all. "
                "env.webshop.split=fixed, or a larger catalogue"
            )
        test = range(LEGACY_TEST_GOALS)
        return {"test": test, "eval": test, "train": range(LEGACY_TEST_GOALS, goals)}
    test = min(500, goals // 9)
    held_out = test + min(1000, 2 * goals // 9)
    if test < 1:
        raise ConfigError(f"{goals} goals are too few for three splits: at least 9 are needed; use a larger catalogue")
    return {"test": range(test), "eval": range(test, held_out), "train": range(held_out, goals)}


def goal_weights(attributes: Sequence[tuple[str, ...]]) -> list[float]:
    """Weight of each synthetic goal in the original's draw: mean over its attributes of 1 / their frequency.

    Args:
        attributes: the attributes each goal asks for.
    """
    counts = Counter(attribute for wanted in attributes for attribute in wanted)
    return [sum(1 / counts[a] for a in wanted) / len(wanted) if wanted else 0.0 for wanted in attributes]


def legacy_weighted_index(weights: Sequence[float], draw: Callable[[float, float], float]) -> int:
    """The original's draw of a goal by weight. It looks up a list that starts with 0, so the index is one too high:
    goal 0 is hardly ever drawn and the last one twice as often.

    Args:
        draw: `uniform(low, high)`.
    """
    sums = [0.0, *accumulate(weights)]
    return min(bisect_right(sums, draw(0.0, sums[-1])), len(weights) - 1)


def legacy_overlap(table_of: Callable[[int], GoalTable], train_seeds: Sequence[int], test_seed: int) -> Iterator[float]:
    """Share of one test worker's goals that the first 1, 2, ... training workers may be trained on, under `legacy`.

    Args:
        table_of: the goals in the order of a worker's seed.
    """
    test = _identities(table_of(test_seed), slice(0, LEGACY_TEST_GOALS))
    trained: set[tuple[int, int]] = set()
    for seed in train_seeds:
        trained |= _identities(table_of(seed), slice(LEGACY_TEST_GOALS, None))
        yield len(test & trained) / len(test)


def _identities(table: GoalTable, part: slice) -> set[tuple[int, int]]:
    return set(zip(table.product[part].tolist(), table.choice[part].tolist(), strict=True))


def require_index(index: int, goals: int) -> int:
    """`index`, if there is a goal of that index.

    Raises:
        TaskError: there is none.
    """
    if not isinstance(index, int | np.integer) or isinstance(index, bool) or not 0 <= index < goals:
        raise TaskError(f'there is no goal {index!r}: options={{"goal_index": ...}} goes from 0 to {goals - 1}')
    return int(index)
