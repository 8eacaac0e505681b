# SPDX-License-Identifier: Apache-2.0
"""Products whose options share values or are named as buttons: under `fixed` every goal can be bought."""

from __future__ import annotations

import importlib.util
import json
import random
import sys
from pathlib import Path

import pytest

from agent_system.environments.webshop.env import WebShopEnv
from agent_system.environments.webshop.generator.catalogue import CatalogueSpec, write_catalogue
from agent_system.environments.webshop.goals import Goals, Split
from agent_system.environments.webshop.prepare import ShopSpec, prepare_shop
from agent_system.environments.webshop.shop import Shop, open_shop
from agent_system.environments.webshop.shopper import Shopper

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SHARED = {"Color": ["Black", "White"], "Strap Color": ["Black", "Red"]}
NAMED_AS_BUTTONS = {"Style": ["Buy Now", "Features", "Option: Buy Now"], "Size": ["Search", "< Prev"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A shop in which the first two products with an instruction have such options."""
    source, path = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("shop")
    write_catalogue(source, CatalogueSpec(products=60))
    items_file = source / "items_shuffle.json"
    items = json.loads(items_file.read_text(encoding="utf-8"))
    wanted = json.loads((source / "items_ins_v2.json").read_text(encoding="utf-8"))
    with_goals = [item for item in items if "instruction" in wanted.get(item["asin"], {})]
    for item, groups in zip(with_goals[:2], (SHARED, NAMED_AS_BUTTONS), strict=True):
        item["customization_options"] = {name: [{"value": v} for v in values] for name, values in groups.items()}
    items_file.write_text(json.dumps(items), encoding="utf-8")
    prepare_shop(path, ShopSpec(source=str(source), tagger="lexicon"))
    return path


@pytest.fixture(scope="module")
def benchmark():
    """`benchmarks/webshop_reachable.py` as a module."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("webshop_reachable", BENCHMARKS / "webshop_reachable.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(BENCHMARKS))
        sys.modules.pop("webshop_reachable", None)


def goals_of(shop, groups):
    """Indices of the goals of the product with these option groups, in the order of `fixed`."""
    table = shop.goals(Goals.SYNTHETIC, Split.FIXED, 0)
    names = {name.lower() for name in groups}
    goals = (shop.goal(Goals.SYNTHETIC, Split.FIXED, 0, index) for index in range(len(table)))
    return [goal for goal in goals if set(goal.product.options) == names]


@pytest.mark.parametrize(("groups", "count"), [(SHARED, 4), (NAMED_AS_BUTTONS, 6)], ids=["shared", "buttons"])
@pytest.mark.parametrize("mode", ["text", "compact"])
def test_the_scripted_player_buys_every_goal(folder, groups, count, mode):
    shop, env = open_shop(folder), WebShopEnv(folder, max_steps=20, observation_mode=mode)
    reader = WebShopEnv(folder, max_steps=20, observation_mode="compact")
    goals = goals_of(shop, groups)
    assert len(goals) == count
    for goal in goals:
        player = Shopper(goal.instruction, random.Random(0))
        *_, info = start(env, goal)
        page, *_, seen = start(reader, goal)
        terminated = False
        while not terminated:
            action = player.advise(page, seen["admissible_actions"], "").action
            assert action in info["admissible_actions"] and action in seen["admissible_actions"]
            page, *_, seen = reader.step(action)
            _, reward, terminated, truncated, info = env.step(action)
            assert not truncated
        assert (reward, info["score"], info["won"]) == (10.0, 1.0, True), goal.options


def start(env, goal):
    """Start an episode and open the goal's product; what the last step returned."""
    env.reset(options={"goal_index": goal.index})
    env.step(f"search[{' '.join(goal.product.title.split())}]")
    link = goal.product.asin.lower()
    if env.observation_mode == "compact":
        link = (
            f"item {'abcdefghij'[[env.site.product(n).asin for n in env.site.hits_shown()].index(goal.product.asin)]}"
        )
    return env.step(f"click[{link}]")


def test_the_benchmark_counts_goals_that_cannot_be_bought(folder, benchmark):
    fixed, legacy = (benchmark.count_reach(Shop(folder), split, 6) for split in (Split.FIXED, Split.LEGACY))
    assert (fixed.shared, fixed.named_as_button) == (legacy.shared, legacy.named_as_button) == (4, 6)
    assert (fixed.not_chosen, fixed.not_bought, fixed.below_one) == (0, 0, 0)
    # Strap color takes black, so that two of four goals lack their color; three of six require the option "search",
    # which is never clicked; and in all six "buy now" chooses an option.
    assert legacy.not_chosen == 2 + 3 and legacy.not_bought == 6 and legacy.below_one >= 6


def test_the_published_catalogue_has_no_such_product(benchmark, shared_data, tmp_path):
    prepare_shop(tmp_path, ShopSpec(source=str(shared_data / "webshop"), tagger="lexicon"))
    for split, below_one in ((Split.FIXED, 0), (Split.LEGACY, 458)):
        reach = benchmark.count_reach(Shop(tmp_path), split, 6)
        assert (reach.goals, reach.shared, reach.named_as_button) == (6910, 0, 0)
        assert (reach.not_chosen, reach.not_bought, reach.below_one) == (0, 0, below_one)
