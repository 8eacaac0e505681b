# SPDX-License-Identifier: Apache-2.0
"""How many synthetic goals of a catalogue can be bought with a score of 1.0, under both splits.

    python benchmarks/webshop_reachable.py                                  # a generated catalogue of 1,000 products
    python benchmarks/webshop_reachable.py --source ~/WebShop/data --small  # the published one

Every goal is played on the page of its own product: one click for each option of the goal, in the order of the page,
then the purchase. (Under `legacy` the order of clicks makes no difference: a text always sets the same group.)
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from machine import describe

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from agent_system.environments.webshop.generator.catalogue import CatalogueSpec  # noqa: E402
from agent_system.environments.webshop.goals import Goal, Goals, Split  # noqa: E402
from agent_system.environments.webshop.options import option_text  # noqa: E402
from agent_system.environments.webshop.prepare import ShopSpec, prepare_shop  # noqa: E402
from agent_system.environments.webshop.shop import Shop  # noqa: E402
from agent_system.environments.webshop.site import Page, Site  # noqa: E402
from agent_system.errors import HiPERError  # noqa: E402


@dataclass(frozen=True)
class Reach:
    """Numbers of goals.

    Attributes:
        goals: all synthetic goals.
        shared: of products in which two option groups have a value in common.
        named_as_button: of products with an option that is named as a button.
        not_chosen: whose options cannot all be chosen.
        not_bought: whose product cannot be bought any more, because an option has taken the button's place.
        below_one: which the purchase with all options that can be chosen does not win.
    """

    goals: int
    shared: int
    named_as_button: int
    not_chosen: int
    not_bought: int
    below_one: int


def count_reach(shop: Shop, split: Split, seed: int) -> Reach:
    """Play every synthetic goal on its own product.

    Args:
        seed: of the imitated worker; counts under `legacy` only.
    """
    table = shop.goals(Goals.SYNTHETIC, split, seed)
    counts: Counter[str] = Counter(goals=len(table))
    for index in range(len(table)):
        goal = shop.goal(Goals.SYNTHETIC, split, seed, index)
        number = int(table.product[index])
        chosen, was_bought = choose_and_buy(shop, split, number, goal)
        values = [value for group in goal.product.options.values() for value in set(group)]
        counts["shared"] += len(set(values)) < len(values)
        counts["named_as_button"] += any(option_text(value) != value for value in values)
        counts["not_chosen"] += chosen != goal.options
        counts["not_bought"] += not was_bought
        score = shop.score(Goals.SYNTHETIC, split, seed, goal, number, chosen)
        counts["below_one"] += not was_bought or score.total < 1.0
    return Reach(**{name: counts[name] for name in Reach.__dataclass_fields__})


def choose_and_buy(shop: Shop, split: Split, number: int, goal: Goal) -> tuple[dict[str, str], bool]:
    """The options that are chosen after a click for each of the goal's, and whether the product was bought."""
    assert isinstance(goal.options, Mapping)  # the options of a synthetic goal have groups
    site = Site(shop, goal.instruction, lambda bought, chosen: 0.0, split=split)
    site.state.page, site.state.query, site.state.item = Page.ITEM, "", number
    for name in shop.product(number).options:
        site.act(f"click[{site.link_of(goal.options[name])}]")
        if site.state.page is not Page.ITEM:  # an option has the name of a button that leaves the page
            return {}, False
    chosen = dict(site.state.options)
    site.act("click[buy now]")
    return chosen, site.state.page is Page.DONE


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", help="folder of the published files (default: a generated catalogue)")
    parser.add_argument("--small", action="store_true", help="its 1,000-product catalogue")
    parser.add_argument("--products", type=int, default=1000, help="size of a generated catalogue")
    parser.add_argument("--seed", type=int, default=6, help="seed of the worker of legacy (default: 6)")
    arguments = parser.parse_args()
    print(describe("numpy"))
    with tempfile.TemporaryDirectory() as scratch:
        spec = ShopSpec(arguments.source, CatalogueSpec(products=arguments.products), arguments.small)
        try:
            manifest = prepare_shop(Path(scratch) / "shop", spec, progress=True)
        except HiPERError as error:
            parser.error(str(error))
        shop = Shop(Path(scratch) / "shop")
        print(f"{manifest.products:,} products\n\n| | {' | '.join(split.value for split in Split)} |\n|---|---|---|")
        columns = [asdict(count_reach(shop, split, arguments.seed)) for split in Split]
        for name in columns[0]:
            print(f"| {name.replace('_', ' ')} | {' | '.join(f'{column[name]:,}' for column in columns)} |")


if __name__ == "__main__":
    main()
