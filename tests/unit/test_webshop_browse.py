# SPDX-License-Identifier: Apache-2.0
"""Sessions over HTTP, in a prepared shop. (In a real browser: tests/e2e.)"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from typing import Any

import pytest
from shop_browser import Browser, Document, serving

from agent_system.environments.webshop.browser.pages import PageRenderer
from agent_system.environments.webshop.browser.sessions import MAX_ACTIONS, ShopSession, ShopSetting
from agent_system.environments.webshop.env import MAX_ACTION_CHARACTERS, WebShopEnv
from agent_system.environments.webshop.generator.catalogue import CatalogueSpec, write_catalogue
from agent_system.environments.webshop.goals import Goals, Split
from agent_system.environments.webshop.prepare import ShopSpec, prepare_shop

HOSTILE = "<script>window.hurt=1</script>\"'><img src=x onerror=alert(1)> zwieback \ud800 end"


@pytest.fixture(scope="module")
def folder(small_shop):
    """A generated shop."""
    return small_shop


@pytest.fixture(scope="module")
def hostile_folder(tmp_path_factory):
    """A shop whose first product with options is named, described and offered in markup."""
    source, path = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("hostile")
    write_catalogue(source, CatalogueSpec(products=60))
    file = source / "items_shuffle.json"
    items = json.loads(file.read_text(encoding="utf-8"))
    item = next(one for one in items if isinstance(one["customization_options"], dict))
    item.update(name=HOSTILE, full_description=HOSTILE, small_description=[HOSTILE], product_category=HOSTILE)
    item["customization_options"] = {HOSTILE: [{"value": HOSTILE}, {"value": "plain"}], "buy now": [{"value": "plain"}]}
    file.write_text(json.dumps(items), encoding="utf-8")
    prepare_shop(path, ShopSpec(source=str(source)))
    return path, item["asin"]


@pytest.fixture(scope="module")
def browser(folder):
    with serving(ShopSetting(folder)) as one:
        yield one


def test_start_page_lists_goals_of_each_part(browser, folder):
    setting = ShopSetting(folder)
    ranges = setting.shop.ranges(setting.goals, setting.split)
    for part, indices in ranges.items():
        page = browser.get(f"/?part={part}").page
        listed = [int(values["value"]) for values, _ in page.pressed if values.get("name") == "goal"]
        assert listed == list(indices[:25])
        first = setting.shop.goal(setting.goals, setting.split, 0, indices[0])
        assert " ".join(first.instruction.split()) in page.text
    assert browser.get("/?part=all&page=999999").page.text.count("Shop goal") > 0
    assert browser.get("/?part=nowhere").status == 404 and browser.get("/?page=first").status == 404


def test_a_goal_by_number_or_at_random_from_a_part(browser, folder):
    setting = ShopSetting(folder)
    ranges = setting.shop.ranges(setting.goals, setting.split)
    page = browser.post("/sessions", goal=7)
    goal = setting.shop.goal(setting.goals, setting.split, 0, 7)
    assert page.status == 200 and " ".join(goal.instruction.split()) in page.page.text
    for part in (*ranges, "all"):
        for _ in range(5):
            browser.post("/sessions", part=part)
            index = int(re.match(r"/sessions/(\d+)-", browser.place)[1])
            assert part == "all" or index in ranges[part]
    for wrong in ({"goal": 10**6}, {"goal": "-1"}, {"goal": "one"}, {"goal": ""}, {"part": "other"}):
        answer = browser.post("/sessions", **wrong)
        assert answer.status == 400 and "No such goal" in answer.page.text


def shown_to_agent(page: Document, env: WebShopEnv, observation: str) -> None:
    """The page shows exactly what the agent sees, and offers exactly what can be clicked."""
    assert page.text.count(" ".join(observation.split())) == 1
    for action in env.admissible_actions():
        assert " ".join(action.split()) in page.text
    clickables = env.site.clickables
    buttons = page.buttons()
    assert sorted(buttons) == [i for i, text in enumerate(clickables) if text != "search"]


@pytest.mark.parametrize("goal", range(6))
def test_a_person_can_do_what_an_agent_can(browser, folder, goal):
    """A walk of random presses, step by step beside the environment that an agent plays in."""
    rng = random.Random(goal)
    env = WebShopEnv(folder, max_steps=100)
    observation, info = env.reset(options={"goal_index": goal})
    answer = browser.post("/sessions", goal=goal)
    for step in range(30):
        shown_to_agent(answer.page, env, observation)
        assert f"Your actions: {step}" in answer.page.text
        links = sorted(answer.page.buttons())
        if not links:
            action = f"search[{' '.join(info['task'].split()[:6])}]"
            answer = browser.send(answer, query=action[7:-1])
        else:
            link = rng.choice(links)
            if "buy now" in env.site.clickables and step < 25:
                link = rng.choice([one for one in links if env.site.clickables[one] != "buy now"])
            action = f"click[{env.site.clickables[link]}]"
            answer = browser.send(answer, link=link)
        observation, _, terminated, _, info = env.step(action)
        assert answer.status == 200
        if terminated:
            break
    if terminated:
        assert f"Score: {info['score']:.4g}" in answer.page.text


def test_a_perfect_purchase(browser, folder):
    goal = ShopSetting(folder).shop.goal(Goals.SYNTHETIC, Split.FIXED, 0, 3)
    answer = browser.post("/sessions", goal=3)
    answer = browser.send(answer, query=goal.product.title)
    labels = {label: link for link, names in answer.page.buttons().items() for label in names}
    answer = browser.send(answer, link=labels[" ".join(goal.product.title.split())])
    for value in goal.options.values():
        answer = browser.send(answer, action=f"click[{value}]")
        chosen = [label for values, label in answer.page.pressed if values.get("aria-pressed") == "true"]
        assert " ".join(value.split()) in chosen
    answer = browser.send(answer, action="click[Buy Now]")
    text = answer.page.text
    assert "Score: 1 " in text and "Success" in text and "No success" not in text
    parts = len(goal.attributes) + len(goal.options) + 1
    assert f"÷ {parts} requirements" in text and text.count(" yes ") == parts + 2
    assert f"goal {goal.index}" not in text and "This goal again" in text


def test_what_changes_nothing_is_shown_and_counted(browser):
    answer = browser.post("/sessions", goal=0)
    answer = browser.send(answer, action="click[buy now]")
    assert "click[buy now] changed nothing" in answer.page.text and "Your actions: 1" in answer.page.text
    answer = browser.send(answer, query="a[b")  # greedy: the verb would be "search[a"
    assert "search[a[b] changed nothing" in answer.page.text
    answer = browser.send(answer, query="mug")
    assert "changed nothing, as" not in answer.page.text
    answer = browser.send(answer, action="search[lamp]")
    assert (
        "search[lamp] not listed as admissible, carried out" in answer.page.text
        and "Results for “lamp”" in answer.page.text
    )


def test_empty_results_and_pages_beyond_the_last(browser):
    answer = browser.send(browser.post("/sessions", goal=0), query="qqqq")
    assert "Page 1 (Total results: 0)" in answer.page.text and "No products match" in answer.page.text
    labels = {label: link for link, names in answer.page.buttons().items() for label in names}
    for number in (2, 3):
        answer = browser.send(answer, link=labels["Next >"])
        assert f"Page {number} (Total results: 0)" in answer.page.text
        labels = {label: link for link, names in answer.page.buttons().items() for label in names}
    assert "Page 2" in browser.send(answer, link=labels["< Prev"]).page.text


def test_a_form_of_a_page_of_before_is_not_carried_out(browser):
    first = browser.post("/sessions", goal=1)
    browser.send(first, query="mug")
    again = browser.send(first, query="lamp")
    assert "out of date" in again.page.text and "Results for “mug”" in again.page.text
    assert "Your actions: 1" in again.page.text
    answer = browser.send(again, query="lamp")
    assert "out of date" not in answer.page.text and "Results for “lamp”" in answer.page.text


def test_nothing_is_carried_out_after_the_purchase(browser, folder):
    title = ShopSetting(folder).shop.goal(Goals.SYNTHETIC, Split.FIXED, 0, 1).product.title
    answer = browser.send(browser.post("/sessions", goal=1), query=" ".join(title.split()))
    answer = browser.send(answer, link=2)  # after "back to search" and "next >"
    answer = browser.send(answer, action="click[buy now]")
    assert not answer.page.buttons() and "turn" not in {v.get("name") for v in answer.page.elements_of("input")}
    answer = browser.post(browser.place, turn=3, action="search[mug]")
    assert "out of date" in answer.page.text and "Your actions: 3" in answer.page.text


def test_a_session_does_not_grow_for_ever(folder):
    setting = ShopSetting(folder)
    session = ShopSession(setting, 0)
    while not session.is_over:
        session.act("click[nothing]")
    assert len(session.history) == MAX_ACTIONS and session.receipt() is None
    page = Document(PageRenderer(setting, episodes=False).session(session, stale=False))
    assert "It is over without a purchase" in page.text and "This goal again" in page.text
    assert "turn" not in {values.get("name") for values in page.elements_of("input")}


@pytest.mark.parametrize("form", [{"link": 99}, {"link": "x"}, {"link": "-1"}, {}, {"action": "x" * 5000}])
def test_forms_that_make_no_sense(browser, form):
    answer = browser.send(browser.post("/sessions", goal=0), **form)
    assert answer.status == 400 and answer.page.elements_of("h1")


def test_longest_action_is_taken_and_one_more_refused(browser):
    first = browser.post("/sessions", goal=0)
    room = MAX_ACTION_CHARACTERS - len("search[]")
    assert browser.send(first, query="é" * (room + 1)).status == 400
    browser.get(browser.place)
    assert browser.send(first, query="é" * room).status == 200


def test_only_the_last_used_sessions_are_kept(folder):
    with serving(ShopSetting(folder), max_sessions=2) as browser:
        places = []
        for goal in (4, 5, 6):
            browser.post("/sessions", goal=goal)
            places.append(browser.place)
            browser.get(places[0])  # used, so the second one is the oldest
        gone = browser.get(places[1])
        assert (
            gone.status == 410 and "more than 2 sessions" in gone.page.text and "Start goal 5 again" in gone.page.text
        )
        assert browser.get(places[0]).status == browser.get(places[2]).status == 200
        assert browser.post(places[1], turn=0, query="mug").status == 410
        strange = browser.get("/sessions/999999-unknown")
        assert strange.status == 410 and "Start goal" not in strange.page.text


# ---------------------------------------------------------------------- the score


@pytest.mark.parametrize("goals", list(Goals))
@pytest.mark.parametrize("split", list(Split))
def test_receipt_agrees_with_the_score(folder, goals, split):
    """What is shown as found and met, part by part, makes up the shares of the score."""
    setting = ShopSetting(folder, goals, split, seed=6)
    rng = random.Random(0)
    count = len(setting.shop.goals(goals, split, 6))
    for index in range(min(count, 30)):
        session = ShopSession(setting, index)
        words = session.goal.product.title if index % 2 else session.goal.product.query
        session.act(f"search[{' '.join(words.split())}]")
        session.act(f"click[{setting.shop.product(rng.choice(session.site.hits_shown())).asin}]")
        for values in session.site.item.options.values():
            if values:
                session.act(f"click[{rng.choice(values)}]")
        assert session.receipt() is None
        session.act("click[buy now]")
        receipt = session.receipt()
        score = receipt.score
        for checks, share in ((receipt.attributes, score.attributes), (receipt.options, score.options)):
            assert share == (sum(check.met for check in checks) / len(checks) if checks else None)
        met = sum(check.met for check in (*receipt.attributes, *receipt.options)) + score.price
        parts = len(receipt.attributes) + len(receipt.options) + 1
        assert score.total == score.type * (met / parts)
        assert score.price == (receipt.price <= session.goal.price_upper)


def test_few_goals_are_not_split_but_can_be_played(folder):
    with serving(ShopSetting(folder, Goals.HUMAN)) as browser:
        start = browser.get("/")
        assert start.status == 200 and "These goals are not split" in start.page.text
        assert browser.post("/sessions", part="all").status == 200
        assert browser.post("/sessions", part="test").status == 400


def test_attributes_page_on_request(folder):
    with serving(ShopSetting(folder, show_attributes=True)) as browser:
        goal = ShopSetting(folder).shop.goal(Goals.SYNTHETIC, Split.FIXED, 0, 0)
        answer = browser.send(browser.post("/sessions", goal=0), query=goal.product.title)
        answer = browser.send(answer, action=f"click[{goal.product.asin}]")
        answer = browser.send(answer, action="click[attributes]")
        assert goal.product.attributes[0] in answer.page.text and goal.product.product_category in answer.page.text


def test_hostile_catalogue_stays_text(hostile_folder):
    folder, asin = hostile_folder
    setting = ShopSetting(folder, show_attributes=True)
    with serving(setting) as browser:
        answer = browser.send(browser.post("/sessions", goal=0), query="zwieback")
        pages = [answer]
        for action in (f"click[{asin}]", "click[plain]", "click[features]", "click[< prev]", "click[description]"):
            pages.append(answer := browser.send(answer, action=action))
        pages.append(answer := browser.send(answer, query=HOSTILE.replace("\ud800", "")))
        pages.append(browser.send(answer, action=f"click[{HOSTILE[:60]}]"))
        for page in pages:
            assert page.status == 200
            tags = {tag for tag, _ in page.page.elements}
            assert not tags & {"script", "img", "iframe", "object", "style", "base"}
            assert not any(name.startswith("on") for _, values in page.page.elements for name in values)
        assert '<script>window.hurt=1</script>"' in pages[1].page.text and "zwieback ? end" in pages[1].page.text
        # "plain" is in two groups: a click sets the first open one, for a person as for an agent.
        pressed = [values["aria-pressed"] for values, _ in pages[2].page.pressed if "aria-pressed" in values]
        assert pressed == ["false", "true", "false"]
        labels = [label for values, label in pages[1].page.pressed if "aria-pressed" in values]
        assert labels[1] == "plain" and labels[2].startswith("plain sets <script>")


# ---------------------------------------------------------------------- command line

COMMAND = [sys.executable, "-m", "agent_system.environments.webshop.browse"]


def command(*arguments: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=120)


def test_the_command_serves_until_ctrl_c(folder):
    process = subprocess.Popen(
        [*COMMAND, "--data-dir", str(folder), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        line = process.stdout.readline()
        port = int(re.search(r"http://127\.0\.0\.1:(\d+)/", line)[1])
        assert Browser(port).get("/").status == 200
        busy = command("--data-dir", folder, "--port", port)
        assert busy.returncode == 1 and f"port {port} of this machine is in use" in busy.stderr
        assert "--port 8081" in busy.stderr and "Traceback" not in busy.stderr
        os.kill(process.pid, signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
        assert process.returncode == 0 and "stopped" in rest and not errors
    finally:
        process.kill()
        process.wait()


def test_what_the_command_cannot_serve_is_reported(tmp_path, folder):
    missing = command("--data-dir", tmp_path / "nowhere")
    assert missing.returncode == 1 and "holds no prepared shop" in missing.stderr and "Traceback" not in missing.stderr
    wrong = command("--data-dir", folder, "--port", 99999)
    assert wrong.returncode == 1 and "port 99999" in wrong.stderr and "Traceback" not in wrong.stderr
