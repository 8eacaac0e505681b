# SPDX-License-Identifier: Apache-2.0
"""`hiper/WebShop-v0`: Gymnasium's contract, and step-identical to the original on its recorded episodes."""

from __future__ import annotations

import gzip
import json
import re

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

import agent_system.environments  # noqa: F401
from agent_system.environments.webshop.env import WebShopEnv
from agent_system.environments.webshop.goals import Goals, Split, legacy_overlap
from agent_system.environments.webshop.prepare import ShopSpec, prepare_shop
from agent_system.environments.webshop.shop import Shop
from agent_system.errors import ConfigError, TaskError

SCORE = re.compile(r"(?<=Your score \(min 0\.0, max 1\.0\) \[SEP\] )\S+")
"""The recorded scores come from another tagger of titles."""


@pytest.fixture(scope="session")
def published_shop(shared_data, tmp_path_factory):
    """The published small catalogue, prepared."""
    folder = tmp_path_factory.mktemp("published-shop")
    prepare_shop(folder, ShopSpec(source=str(shared_data / "webshop")))
    return folder


def buy(env, options):
    """Search for the goal's own title, find it, choose the options and buy."""
    goal = env.unwrapped._goal
    _, _, _, _, info = env.step(f"search[{goal.product.title}]")
    asin = f"click[{goal.product.asin.lower()}]"
    while asin not in info["admissible_actions"]:
        _, _, terminated, truncated, info = env.step("click[next >]")
        assert not terminated and not truncated, goal
    for action in (asin, *(f"click[{value}]" for value in options), "click[buy now]"):
        assert action in info["admissible_actions"]
        _, reward, terminated, truncated, info = env.step(action)
    return reward, terminated, truncated, info


@pytest.mark.filterwarnings("error::UserWarning")
def test_gymnasium_accepts_the_environment(generated_shop):
    check_env(gymnasium.make("hiper/WebShop-v0", data_dir=str(generated_shop), max_steps=15).unwrapped)


def test_a_perfect_purchase(generated_shop):
    env = gymnasium.make("hiper/WebShop-v0", data_dir=str(generated_shop), max_steps=30)
    for index in range(0, 60, 3):
        observation, info = env.reset(options={"goal_index": index})
        assert observation == f"WebShop [SEP] Instruction: [SEP] {info['task']} [SEP] Search"
        assert info["admissible_actions"] == ["search[<your query>]"] and info["goal_index"] == index
        reward, terminated, truncated, info = buy(env, env.unwrapped._goal.options.values())
        assert (reward, terminated, truncated, info["won"], info["score"]) == (10.0, True, False, True, 1.0)
        assert info["reward_details"]["total"] == 1.0 and info["admissible_actions"] == []


def test_a_wrong_purchase_ends_without_reward(generated_shop):
    plain = gymnasium.make("hiper/WebShop-v0", data_dir=str(generated_shop), max_steps=30)
    fined = gymnasium.make(
        "hiper/WebShop-v0", data_dir=str(generated_shop), max_steps=30, early_terminate_penalty=-1.0
    )  # fmt: skip
    index = next(i for i in range(100) if Shop(generated_shop).goal(Goals.SYNTHETIC, Split.FIXED, 0, i).options)
    for env, penalty in ((plain, 0.0), (fined, -1.0)):
        env.reset(options={"goal_index": index})
        reward, terminated, _, info = buy(env, [])
        assert (reward, terminated, info["won"]) == (penalty, True, False)
        assert 0 < info["score"] < 1 and info["reward_details"]["options"] == 0.0


def test_truncation_and_the_end(generated_shop):
    env = gymnasium.make("hiper/WebShop-v0", data_dir=str(generated_shop), max_steps=3)
    env.reset(options={"goal_index": 0})
    endings = [env.step("nonsense")[2:4] for _ in range(3)]
    assert endings == [(False, False), (False, False), (False, True)]
    with pytest.raises(ResetNeeded):
        env.unwrapped.step("search[mug]")


def test_case_and_outer_spaces_do_not_matter(generated_shop):
    env = WebShopEnv(generated_shop)
    env.reset(options={"goal_index": 0})
    results = env.step("search[red shoes]")[0]
    env.step("click[back to search]")
    assert env.step("  Search[Red SHOES] ")[0] == results
    assert env.step("CLICK[Back to Search]")[0].startswith("WebShop [SEP] ")


def test_same_seed_same_goal(generated_shop):
    env = gymnasium.make("hiper/WebShop-v0", data_dir=str(generated_shop))
    first = [env.reset(seed=4)[1]["goal_index"], *(env.reset()[1]["goal_index"] for _ in range(5))]
    assert first == [env.reset(seed=4)[1]["goal_index"], *(env.reset()[1]["goal_index"] for _ in range(5))]
    assert len(set(first)) > 1


def test_without_an_index_legacy_draws_by_weight(published_shop):
    env = WebShopEnv(published_shop, split="legacy", seed=6)
    drawn = [env.reset(seed=1)[1]["goal_index"], *(env.reset()[1]["goal_index"] for _ in range(20))]
    assert len(set(drawn)) > 15 and env.reset(seed=1)[1]["goal_index"] == drawn[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"goals": "best"}, "goals=best is not one of synthetic, human"),
        ({"split": "new"}, "env.webshop.split=new is not one of fixed, legacy"),
        ({"max_steps": 0}, "env.max_steps=0"),
        ({"observation_mode": "html"}, "observation_mode='html'"),
    ],
)
def test_values_that_are_not_known(generated_shop, changes, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        WebShopEnv(generated_shop, **changes)


def test_a_goal_that_is_not_there(generated_shop):
    env = WebShopEnv(generated_shop)
    with pytest.raises(TaskError, match="there is no goal 1000000: the index is 0 to"):
        env.reset(options={"goal_index": 10**6})


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", "\x00\x1b 31m", "a" * 10**6, "]" * 5000, "' OR 1=1"])
def test_hostile_text_is_only_text(generated_shop, hostile):
    env = WebShopEnv(generated_shop)
    env.reset(options={"goal_index": 0})
    observation, reward, terminated, truncated, _ = env.step(f"search[{hostile}]")
    assert "Total results: " in observation and (reward, terminated, truncated) == (0.0, False, False)
    assert env.step(f"click[{hostile}]")[0] == observation


# ---------------------------------------------------------------- against the original


def test_recorded_episodes_of_the_original_replay_identically(published_shop, shared_data):
    """Every observation, end and list of actions; scores apart, which depend on the tagger of the titles."""
    with gzip.open(shared_data / "webshop" / "golden_episodes_seed6.json.gz") as packed:
        episodes = json.load(packed)
    env = gymnasium.make("hiper/WebShop-v0", data_dir=str(published_shop), split="legacy", seed=6, max_steps=100)
    steps = 0
    for episode in episodes:
        env.reset(options={"goal_index": episode["goal_index"]})
        for recorded in episode["steps"]:
            observation, _, terminated, truncated, info = env.step(recorded["action"])
            assert SCORE.sub("", observation) == SCORE.sub("", recorded["observation"])
            assert terminated == recorded["done"] and not truncated
            available = recorded["available"]
            searches = ["search[<your query>]"] if available["has_search_bar"] else []
            assert info["admissible_actions"] == searches + [f"click[{text}]" for text in available["clickables"]]
            steps += 1
    assert (len(episodes), steps) == (200, 1464)


def test_goals_and_splits_of_the_published_catalogue(published_shop):
    shop = Shop(published_shop)
    assert shop.manifest.products == 1000 and shop.manifest.goals == {"synthetic": 6910, "human": 13}
    ranges = shop.ranges(Goals.SYNTHETIC, Split.FIXED)
    assert [len(ranges[part]) for part in ("test", "eval", "train")] == [500, 1000, 5410]

    def goals_of(seed):
        return shop.goals(Goals.SYNTHETIC, Split.LEGACY, seed)

    shares = list(legacy_overlap(goals_of, train_seeds=[6, 7, 8], test_seed=1006))
    assert shares == pytest.approx([0.934, 0.992, 1.0], abs=0.002)


@pytest.mark.parametrize(("split", "out_of_reach"), [(Split.LEGACY, 458), (Split.FIXED, 0)])
def test_goals_whose_own_product_cannot_reach_one(published_shop, split, out_of_reach):
    shop = Shop(published_shop)
    table = shop.goals(Goals.SYNTHETIC, split, 6)
    missed = 0
    for index in range(len(table)):
        goal = shop.goal(Goals.SYNTHETIC, split, 6, index)
        score = shop.score(Goals.SYNTHETIC, split, 6, goal, int(table.product[index]), dict(goal.options))
        missed += score.total != 1.0
    assert missed == out_of_reach


def test_price_bounds_are_the_same_everywhere_under_fixed_only(published_shop):
    shop = Shop(published_shop)

    def bounds(split, seed):
        table = shop.goals(Goals.SYNTHETIC, split, seed)
        order = np.lexsort((table.choice, table.product))
        return table.price_upper[order]

    assert (bounds(Split.FIXED, 6) == bounds(Split.FIXED, 7)).all()
    assert (bounds(Split.LEGACY, 6) != bounds(Split.LEGACY, 7)).mean() == pytest.approx(0.595, abs=0.001)
