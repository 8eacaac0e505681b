# SPDX-License-Identifier: Apache-2.0
"""A prepared shop: products, search, goals and nouns, opened read-only from the folder that `prepare` wrote."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from agent_system.environments.webshop.goals import (
    FIXED_SEED,
    Goal,
    Goals,
    GoalTable,
    Split,
    goal_table,
    goal_weights,
    human_goal,
    require_index,
    split_ranges,
    synthetic_goal,
)
from agent_system.environments.webshop.products import HumanInstruction, Product
from agent_system.environments.webshop.reward import Score, score_purchase
from agent_system.environments.webshop.search.engine import SearchIndex
from agent_system.environments.webshop.site import MAX_HITS
from agent_system.environments.webshop.store import LineStore, open_array
from agent_system.errors import ConfigError

FORMAT = 1
"""Increase it with every change after which an earlier prepared shop can no longer be read."""
MANIFEST = "shop.json"
PRODUCTS, NOUNS, HUMAN = "products.jsonl", "nouns.jsonl", "human.jsonl"
PRICES, ASINS, ASIN_NUMBERS = "prices.npy", "asins.npy", "asin_numbers.npy"
INDEX = "index"
GOAL_COUNTS = {Goals.SYNTHETIC: "synthetic_wishes.npy", Goals.HUMAN: "human_wishes.npy"}
"""Files of (product, number of its goals), for the products that have goals, in catalogue order."""
GOAL_COLUMNS = ("product", "choice", "price_upper", "price")
PREPARE_COMMAND = "python -m agent_system.environments.webshop.prepare --data-dir"


@dataclass(frozen=True)
class ShopManifest:
    """The description of a prepared folder.

    Attributes:
        format: `FORMAT` of the code that wrote it.
        sources: SHA-256 of each source file, by name.
        tagger: name of the tagger of the titles' nouns.
        products: number of products.
        goals: number of goals of each kind.
        files: size in bytes of every file, by its path in the folder.
    """

    format: int
    sources: dict[str, str]
    tagger: str
    products: int
    goals: dict[str, int]
    files: dict[str, int]

    def write(self, folder: Path) -> None:
        """Write the manifest, atomically and last: a folder with a manifest is complete."""
        partial = folder / f"{MANIFEST}.partial"
        partial.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        partial.rename(folder / MANIFEST)

    @classmethod
    def read(cls, folder: Path) -> ShopManifest:
        """Read the manifest of a folder.

        Raises:
            ConfigError: there is none, or another version of this program wrote it.
        """
        file = folder / MANIFEST
        if not file.exists():
            raise ConfigError(
                f"{folder} holds no prepared shop ({MANIFEST} is missing). Try: {PREPARE_COMMAND} {folder}"
            )
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise ConfigError(
                    f"{folder} was prepared by another version (format {content['format']}, this one reads {FORMAT}). "
                    f"Try: {PREPARE_COMMAND} {folder} --rebuild"
                )
            return cls(**content)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{file} cannot be read ({error!r}). Try: {PREPARE_COMMAND} {folder} --rebuild"
            ) from error


class Shop:
    """An opened shop. Its files are mapped into memory and shared by all processes of a node.

    Raises:
        ConfigError: the folder holds no complete shop of this version.
        TaskError: one of its files is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = ShopManifest.read(folder)
        for name, size in self.manifest.files.items():
            file = folder / name
            if not file.exists() or file.stat().st_size != size:
                raise ConfigError(
                    f"{file} is missing or was changed after the shop was prepared. "
                    f"Try: {PREPARE_COMMAND} {folder} --rebuild"
                )
        self._products = LineStore(folder / PRODUCTS)
        self._nouns = LineStore(folder / NOUNS)
        self._human = LineStore(folder / HUMAN)
        self._human_products = open_array(folder / GOAL_COUNTS[Goals.HUMAN])[:, 0]
        self._index = SearchIndex.open(folder / INDEX)
        # Bounded: a process keeps a few thousand products and searches, not the catalogue.
        self.product = lru_cache(maxsize=4096)(self._product)
        self.search = lru_cache(maxsize=1024)(self._search)
        self._table = lru_cache(maxsize=8)(self._make_table)
        self.legacy_weights = lru_cache(maxsize=8)(self._legacy_weights)

    def __len__(self) -> int:
        return len(self._products)

    def _product(self, number: int) -> Product:
        return Product.from_json(self._products[number])

    def _search(self, query: str) -> list[int]:
        return self._index.search(query, MAX_HITS)

    def nouns(self, number: int) -> list[str]:
        """Nouns of a product's title, with repeats."""
        return json.loads(self._nouns[number])

    # ------------------------------------------------------------------ goals

    def goals(self, goals: Goals, split: Split, seed: int) -> GoalTable:
        """All goals in their order. The seed is used under `legacy` only."""
        return self._table(goals, split, seed if split is Split.LEGACY else FIXED_SEED)

    def ranges(self, goals: Goals, split: Split) -> dict[str, range]:
        """Indices of the goals of each split."""
        return split_ranges(self.manifest.goals[goals.value], split)

    def goal(self, goals: Goals, split: Split, seed: int, index: int) -> Goal:
        """One goal.

        Raises:
            TaskError: there is no goal of that index.
        """
        table = self.goals(goals, split, seed)
        index = require_index(index, len(table))
        number, choice = int(table.product[index]), int(table.choice[index])
        product, upper = self.product(number), float(table.price_upper[index])
        if goals is Goals.SYNTHETIC:
            return synthetic_goal(product, choice, upper, index)
        return human_goal(product, self._human_instruction(number, choice), upper, index)

    def score(self, goals: Goals, split: Split, seed: int, goal: Goal, bought: int, chosen: dict[str, str]) -> Score:
        """Score the purchase of product number `bought` with the chosen options."""
        table = self.goals(goals, split, seed)
        return score_purchase(
            bought=self.product(bought),
            chosen=chosen,
            price=float(table.price[bought]),
            goal=goal,
            bought_nouns=self.nouns(bought),
            goal_nouns=self.nouns(int(table.product[goal.index])),
            split=split,
        )

    def _legacy_weights(self, seed: int) -> list[float]:
        goals = range(len(self.goals(Goals.SYNTHETIC, Split.LEGACY, seed)))
        return goal_weights([self.goal(Goals.SYNTHETIC, Split.LEGACY, seed, index).attributes for index in goals])

    def _human_instruction(self, number: int, choice: int) -> HumanInstruction:
        # One record per product that has human goals, in catalogue order, as in the file of the goal counts.
        record = self._human[int(np.searchsorted(self._human_products, number))]
        instruction, attributes, options = json.loads(record)[choice]
        return HumanInstruction(instruction, tuple(attributes), tuple(options))

    def _make_table(self, goals: Goals, split: Split, seed: int) -> GoalTable:
        if split is Split.FIXED:
            return GoalTable(**{name: open_array(goal_column(self.folder, goals, name)) for name in GOAL_COLUMNS})
        goal_counts = [tuple(pair) for pair in open_array(self.folder / GOAL_COUNTS[goals]).tolist()]
        return goal_table(read_prices(self.folder), goal_counts, goals, seed)


def read_prices(folder: Path) -> list[list[float]]:
    """One price, or the two ends of a range, for each product."""
    return [pair[: 1 if np.isnan(pair[1]) else 2] for pair in open_array(folder / PRICES).tolist()]


def goal_column(folder: Path, goals: Goals, name: str) -> Path:
    """File of one column of the goals in `fixed` order."""
    return folder / f"{goals.value}_goals_{name}.npy"


@lru_cache(maxsize=4)
def open_shop(folder: Path) -> Shop:
    """The shop in a folder; one `Shop` per process serves all its environments."""
    return Shop(folder)
