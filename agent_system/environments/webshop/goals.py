# SPDX-License-Identifier: Apache-2.0
"""Goals: the product that an instruction describes, its options and the price bound; and the splits of the goals.

A goal is stored as three numbers (product, combination of options or instruction, price bound); its text is formatted
on access. Rules and draws are those of the original (`web_agent_site/engine/goal.py` and `engine.py`), with Python's
generator seeded and used in the same order: `legacy` goals equal the original's exactly.

There are two ways to order and split the goals of one catalogue:

- `fixed` (default): prices, price bounds and one shuffle are drawn from `FIXED_SEED`, independent of the seed of a run.
  The splits are disjoint.
- `legacy`: as in verl-agent and the released HiPER code. Every environment worker draws prices, bounds and the shuffle
  from its own seed and uses the first 500 of *its* order as test goals. Training and test goals of different workers
  overlap almost completely; `legacy_overlap` measures it.
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
"""Seed of prices, price bounds and order under `fixed`. It must not change: results would not be comparable."""
PRICE_GRID = tuple(float(price) for price in range(10, 1000, 10))
NO_BOUND = 1_000_000.0
"""Price bound of a goal whose product has fewer than two bounds of the grid above its price."""
LEGACY_TEST_GOALS = 500


class Goals(str, Enum):
    """The source of the instructions."""

    SYNTHETIC = "synthetic"
    """One instruction per product, combined with every choice of its options."""
    HUMAN = "human"
    """Instructions that people wrote."""


class Split(str, Enum):
    """How goals are drawn, ordered and split; see the module's docstring."""

    FIXED = "fixed"
    LEGACY = "legacy"


@dataclass(frozen=True)
class Goal:
    """A task: the purchase that an instruction describes.

    Attributes:
        index: position of the goal in its order.
        product: the product that the goal was made from.
        instruction: the text of the task.
        attributes: required attributes.
        options: required options: value by group for a synthetic goal, values without groups for a human one.
        price_upper: the price bound, in dollars.
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
        price: the price of each product, in dollars, float64 `[products]`.
    """

    product: np.ndarray
    choice: np.ndarray
    price_upper: np.ndarray
    price: np.ndarray

    def __len__(self) -> int:
        return len(self.product)


def count_combinations(product: Product) -> int:
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
    options_text = " with " + ", and ".join(f"{name}: {value}" for name, value in options.items()) if options else ""
    return Goal(
        index=index,
        product=product,
        instruction=f"{product.instruction}{options_text}{price_text(price_upper)}",
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
    """The price bound as the instruction names it; empty if there is none."""
    return "" if price_upper == NO_BOUND else f", and price lower than {price_upper:.2f} dollars"


def draw_prices(prices: Sequence[Sequence[float]], rng: random.Random) -> np.ndarray:
    """The price of each product, `[products]`: its only price, or a draw from its range.

    Args:
        prices: for each product in catalogue order one price, or two.
    """
    return np.array([p[0] if len(p) == 1 else rng.uniform(*p) for p in prices], dtype=np.float64)


def draw_price_bound(price: float, rng: random.Random) -> float:
    """The larger of two draws from the four bounds above the price; `NO_BOUND` if there are fewer than two."""
    above = list(islice((bound for bound in PRICE_GRID if bound > price), 4))
    return max(rng.sample(above, 2)) if len(above) >= 2 else NO_BOUND


def goal_table(
    prices: Sequence[Sequence[float]],
    goal_counts: Sequence[tuple[int, int]],
    goals: Goals,
    seed: int,
) -> GoalTable:
    """Draw prices, bounds and the order of all goals from `seed`, as one worker of the original does.

    Args:
        prices: for each product in catalogue order one price, or two.
        goal_counts: (product, number of its goals) in catalogue order, for the products that have goals. One bound is
            drawn per product (synthetic) or per goal (human).
    """
    rng = random.Random(seed)
    # In the recorded episodes of the original one number was drawn between setting the seed and drawing the prices.
    rng.getrandbits(32)
    price = draw_prices(prices, rng)
    numbers = np.array([number for number, _ in goal_counts], dtype=np.int32)
    counts = np.array([count for _, count in goal_counts], dtype=np.int64)
    starts = np.repeat(counts.cumsum() - counts, counts)
    choice = (np.arange(len(starts)) - starts).astype(np.int32)
    if goals is Goals.SYNTHETIC:
        upper = np.repeat([draw_price_bound(price[number], rng) for number in numbers], counts)
    else:
        upper = np.array([draw_price_bound(price[number], rng) for number in np.repeat(numbers, counts)])
    order = list(range(len(choice)))
    random.Random(seed).shuffle(order)
    return GoalTable(
        product=np.repeat(numbers, counts)[order], choice=choice[order], price_upper=upper[order], price=price
    )


def split_ranges(goals: int, split: Split) -> dict[str, range]:
    """Indices of the goals of each split, by name.

    `fixed`: "test" is the first 500, "eval" the next 1,000 and "train" the rest, as in the original's baselines; with
    fewer than 4,500 goals the two held-out splits are one ninth and two ninths. `legacy`: "test" is the first 500 of a
    worker's order and "train" the rest ("eval" equals "test": the released code has no third split).

    Raises:
        ConfigError: there are too few goals for a goal in every split.
    """
    if split is Split.LEGACY:
        if goals <= LEGACY_TEST_GOALS:
            raise ConfigError(
                f"env.webshop.split=legacy reserves {LEGACY_TEST_GOALS} goals for the test, but there are only {goals}"
                ". Try: env.webshop.split=fixed"
            )
        reserved = range(LEGACY_TEST_GOALS)
        return {"test": reserved, "eval": reserved, "train": range(LEGACY_TEST_GOALS, goals)}
    test = min(500, goals // 9)
    held_out = test + min(1000, 2 * goals // 9)
    if test < 1:
        raise ConfigError(
            f"{goals} goals are too few for three splits: at least 9 are required. "
            "Try: env.webshop.generated.products=1000 or another env.webshop.source"
        )
    return {"test": range(test), "eval": range(test, held_out), "train": range(held_out, goals)}


def goal_weights(attributes: Sequence[tuple[str, ...]]) -> list[float]:
    """Weight of each synthetic goal in the original's draw: mean over its attributes of 1 / their frequency.

    Args:
        attributes: the required attributes of each goal.
    """
    counts = Counter(attribute for required in attributes for attribute in required)
    return [sum(1 / counts[a] for a in required) / len(required) if required else 0.0 for required in attributes]


def legacy_weighted_index(weights: Sequence[float], draw: Callable[[float, float], float]) -> int:
    """The original's draw of a goal by weight.

    It searches a list that starts with 0, so that the index is one too high: goal 0 is almost never drawn, and the last
    one twice as often.

    Args:
        draw: `uniform(low, high)`.
    """
    sums = [0.0, *accumulate(weights)]
    return min(bisect_right(sums, draw(0.0, sums[-1])), len(weights) - 1)


def legacy_overlap(table_of: Callable[[int], GoalTable], train_seeds: Sequence[int], test_seed: int) -> Iterator[float]:
    """Fraction of one test worker's goals that the first 1, 2, ... training workers may train on, under `legacy`.

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
    """Return `index` if there is a goal of that index.

    Raises:
        TaskError: there is no such goal.
    """
    if not isinstance(index, int | np.integer) or isinstance(index, bool) or not 0 <= index < goals:
        raise TaskError(f'there is no goal {index!r}: the index is 0 to {goals - 1}. Try: options={{"goal_index": 0}}')
    return int(index)
