# SPDX-License-Identifier: Apache-2.0
"""Recorded episodes, watched over HTTP: what fits the shop, what does not, and what cannot be read at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_turns import keep, turn
from shop_browser import serving

from agent_system.environments.webshop.browser.episodes import EpisodeList, read_episode
from agent_system.environments.webshop.browser.pages import split_reply
from agent_system.environments.webshop.browser.sessions import ShopSetting
from agent_system.environments.webshop.env import WebShopEnv
from agent_system.environments.webshop.goals import Goals, Split
from agent_system.errors import ConfigError, TaskError
from agent_system.plan_execute.admissible import is_admissible
from agent_system.rollout.records import TurnRecord, episode_json


@pytest.fixture(scope="module")
def folder(small_shop):
    """A generated shop."""
    return small_shop


def recorded(folder: Path, goal: int, *actions: str, seed: int | None = None, **options: Any) -> list[TurnRecord]:
    """Play some actions and record them as a rollout does."""
    split = "fixed" if seed is None else "legacy"
    env = WebShopEnv(folder, split=split, seed=seed or 0, max_steps=len(actions), **options)
    observation, info = env.reset(options={"goal_index": goal})
    turns = []
    for number, action in enumerate(actions):
        make = turn if number in (0, 2) else keep
        subgoal = "find it" if number < 2 else "buy it"
        word = "SWITCH" if make is turn else "KEEP"
        seen, admissible = observation, is_admissible(action, info["admissible_actions"])
        observation, reward, terminated, truncated, info = env.step(action)
        turns.append(
            make(
                number,
                task_id=f"synthetic-{split}{'' if seed is None else seed}-{goal}",
                kind=info["task_kind"],
                prompt=f"The page is:\n{seen}",
                reply=f"<switch>{word}</switch>\n<subgoal>{subgoal}</subgoal>\n<action>{action}</action>",
                observation=seen,
                subgoal=subgoal,
                subgoal_in_force=subgoal,
                action=action,
                admissible=admissible,
                reward=reward,
                terminated=terminated,
                truncated=truncated,
                stop=("won" if info["won"] else "failed") if terminated else "step_limit" if truncated else "",
                won=info["won"],
                score=info["score"],
            )
        )
    return turns


def bought(folder: Path, goal: int, **options: Any) -> list[TurnRecord]:
    """An episode that buys the product of the goal."""
    split, seed = (Split.LEGACY, options["seed"]) if "seed" in options else (Split.FIXED, 0)
    wanted = ShopSetting(folder).shop.goal(Goals.SYNTHETIC, split, seed, goal)
    choices = [f"click[{value}]" for value in wanted.options.values()]
    title = " ".join(wanted.product.title.split())
    return recorded(
        folder, goal, f"search[{title}]", f"click[{wanted.product.asin}]", *choices, "click[buy now]", **options
    )


def written(path: Path, *episodes: Mapping[str, Any] | str) -> Path:
    lines = (one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in episodes)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_watching_an_episode(folder, tmp_path):
    turns = bought(folder, 2)
    credit = {"shaped_reward": -0.1, "advantages": {"switch": 0.25, "subgoal": None, "action": 2.0}}
    file = written(tmp_path / "episodes.jsonl", episode_json(turns, [credit] * len(turns), step=3))
    with serving(ShopSetting(folder), file) as browser:
        listed = browser.get("/episodes").page
        assert "synthetic-fixed-2" in listed.text and f"{len(turns)} turns" in listed.text and "won" in listed.text
        for at, one in enumerate(turns):
            answer = browser.get(f"/episodes/0/{at}")
            page = answer.page
            assert answer.status == 200 and f"turn {at + 1} of {len(turns)}" in page.text
            assert not page.buttons() and not page.elements_of("form")  # nothing can be pressed
            assert page.text.count(" ".join(one.observation.split())) == 2  # in the prompt, and as the shop shows it
            marks = {values["class"] for values in page.elements_of("mark")}
            assert marks == {"switch", "subgoal", "action"}
            assert one.subgoal in page.text and "Advantages switch" in page.text and "0.25" in page.text
            if one.action.startswith("click"):
                assert page.text.count("clicked next") == 1
            keys = {values.get("accesskey"): values["href"] for values in page.elements_of("a")}
            assert keys["n"] == f"/episodes/0/{at + 1}" and keys.get("p") == (f"/episodes/0/{at - 1}" if at else None)
        end = browser.get(f"/episodes/0/{len(turns)}").page
        assert "Score: 1 " in end.text and "Success" in end.text and not end.buttons()
        assert browser.get(f"/episodes/0/{len(turns) + 1}").status == 404 and browser.get("/episodes/1/0").status == 404


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 6},
        {"show_attributes": True},
        {"observation_mode": "text_rich"},
        {"observation_mode": "page"},
        {"observation_mode": "compact"},
    ],
)
def test_episodes_of_every_setting_of_the_environment(folder, tmp_path, options):
    file = written(tmp_path / "e.jsonl", episode_json(bought(folder, 5, **options)))
    with serving(ShopSetting(folder), file) as browser:
        for at in range(len(read_episode(file.read_bytes()).turns) + 1):
            page = browser.get(f"/episodes/0/{at}").page
            assert "does not show" not in page.text and "Only the record" not in page.text


def test_an_episode_that_the_step_limit_cut(folder, tmp_path):
    file = written(tmp_path / "e.jsonl", episode_json(recorded(folder, 0, "search[lamp]", "click[next >]")))
    with serving(ShopSetting(folder), file) as browser:
        end = browser.get("/episodes/0/2").page
        assert "Page 2 (Total results" in end.text and "ended: step limit" in end.text


def test_a_flat_agent_and_malformed_replies(folder, tmp_path):
    turns = recorded(folder, 0, "search[lamp]", "nonsense")
    flat_reply = "<think>hm</think><action>search[lamp]</action>"
    turns[0] = replace(turns[0], switch="", subgoal="", subgoal_in_force="", reply=flat_reply)
    reply = "no block <script> \ud800"
    turns[1] = replace(turns[1], reply=reply, action="", admissible=False, problems=("missing_action",))
    file = written(tmp_path / "e.jsonl", json.dumps(episode_json(turns)))
    with serving(ShopSetting(folder), file) as browser:
        flat = browser.get("/episodes/0/0").page
        assert {values["class"] for values in flat.elements_of("mark")} == {"think", "action"}
        assert "Sub-goal" not in flat.text
        broken = browser.get("/episodes/0/1").page
        assert not broken.elements_of("mark") and "no block <script> ?" in broken.text
        assert "missing action" in broken.text and "not admissible" in broken.text


def changed(episode: Mapping[str, Any], at: int, **values: Any) -> dict[str, Any]:
    rows = [dict(row) for row in episode["trajectory"]]
    rows[at].update(values)
    return {**episode, "trajectory": rows}


def test_episodes_that_cannot_be_watched(folder, tmp_path):
    good = episode_json(bought(folder, 1))
    whole = json.dumps(good)
    file = written(
        tmp_path / "e.jsonl",
        good,
        whole[: len(whole) // 2],
        {**good, "task_id": "pick_and_place_simple-12"},
        "[1, 2]",
        {name: value for name, value in good.items() if name != "won"},
        {**good, "trajectory": []},
        changed(good, 1, reward="much"),
        {**good, "score": 10**400},
        "[" * 100_000,
    )
    words = ["not JSON", "not the name of a WebShop", "not a JSON object", '"won"', "no turns", '"reward"', '"score"']
    with serving(ShopSetting(folder), file) as browser:
        listed = browser.get("/episodes").page
        assert listed.text.count("Cannot be shown") == 8
        assert browser.get("/episodes/0/0").status == 200
        for number, word in enumerate([*words, "not JSON"], start=1):
            answer = browser.get(f"/episodes/{number}/0")
            assert answer.status == 422 and word in answer.page.text and f"line {number + 1}:" in answer.page.text


def test_episodes_that_do_not_fit_the_shop(folder, tmp_path):
    good = episode_json(bought(folder, 1))
    last = len(good["trajectory"])
    more = [*good["trajectory"], {**good["trajectory"][-1], "observation": "Thank you"}]
    file = written(
        tmp_path / "e.jsonl",
        changed(good, 1, observation="Something else"),
        changed(good, 0, action="search[nothing like it]"),
        {**good, "task_id": "synthetic-fixed-99999"},
        {**good, "score": 0.5},
        {**good, "trajectory": more},
    )
    with serving(ShopSetting(folder), file) as browser:
        assert "From turn" not in browser.get("/episodes/0/0").page.text
        answer = browser.get("/episodes/0/1").page
        assert "From turn 2 on this shop does not show what the agent read" in answer.text
        assert "Something else" in answer.text and "The agent's reply" in answer.text
        assert "From turn 2" in browser.get(f"/episodes/0/{last}").page.text
        assert "From turn 2" in browser.get("/episodes/1/1").page.text
        assert "does not have the task synthetic-fixed-99999" in browser.get("/episodes/2/0").page.text
        assert "recorded a score of 0.5; here the same actions have 1." in browser.get(f"/episodes/3/{last}").page.text
        assert f"From turn {last + 1}" in browser.get(f"/episodes/4/{last + 1}").page.text


def test_turns_after_the_purchase_do_not_fit(folder, tmp_path):
    turns = bought(folder, 1)
    env = WebShopEnv(folder)
    env.reset(options={"goal_index": 1})
    for one in turns:
        receipt = env.step(one.action)[0]
    after = replace(turns[-1], turn=len(turns), observation=receipt, action="search[mug]")
    file = written(tmp_path / "e.jsonl", episode_json([*turns, after]))
    with serving(ShopSetting(folder), file) as browser:
        page = browser.get(f"/episodes/0/{len(turns)}").page
        assert f"Turn {len(turns) + 1} continues after the purchase" in page.text


def test_an_episode_file_that_changes_under_the_server(folder, tmp_path):
    file = written(tmp_path / "e.jsonl", episode_json(bought(folder, 1)))
    with serving(ShopSetting(folder), file) as browser:
        file.write_text("something else\n", encoding="utf-8")
        answer = browser.get("/episodes/0/0")
        assert answer.status == 422 and "changed after the server started" in answer.page.text
        file.unlink()
        assert browser.get("/episodes/0/0").status == 422


def test_a_missing_episode_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere.jsonl cannot be read"):
        EpisodeList([tmp_path / "nowhere.jsonl"])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.data())
def test_a_changed_episode_is_read_or_refused(data):
    """For any value of a field, the only error is `TaskError`."""
    episode = json.loads(json.dumps(episode_json([turn(0), keep(1)], [{"values": {"high": 0.5}}] * 2)))
    target = data.draw(st.sampled_from([episode, episode["trajectory"][0]]))
    target[data.draw(st.sampled_from(sorted(target)))] = data.draw(json_values)
    try:
        read = read_episode(json.dumps(episode).encode())
    except TaskError:
        return
    assert read.turns


@given(st.lists(st.sampled_from(["<switch>", "</switch>", "<subgoal>", "</subgoal>", "<action>", "</action>", "<think>",
                                 "</think>", "KEEP", " ", "x<", "<b>"]), max_size=14), st.booleans())  # fmt: skip
def test_marks_leave_nothing_of_a_reply_out(pieces, has_subgoal):
    reply = "".join(pieces)
    assert "".join(part.text for part in split_reply(reply, has_subgoal)) == reply
