# SPDX-License-Identifier: Apache-2.0
"""The web application in a real headless browser: by keyboard, on a phone, with a hostile catalogue, and replays."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from agent_system.environments.webshop.browser.app import create_app
from agent_system.environments.webshop.browser.episodes import EpisodeList
from agent_system.environments.webshop.browser.server import LocalServer
from agent_system.environments.webshop.browser.sessions import ShopSetting
from agent_system.environments.webshop.env import WebShopEnv
from agent_system.environments.webshop.generator.catalogue import CatalogueSpec, write_catalogue
from agent_system.environments.webshop.goals import Goal, Goals, Split
from agent_system.environments.webshop.prepare import ShopSpec, prepare_shop
from agent_system.plan_execute.admissible import is_admissible
from agent_system.rollout.records import TurnRecord, episode_json

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HURT = "<script>window.hurt = 1</script><img src=x onerror='window.hurt = 2'>"
HOSTILE = f"{HURT} Zwieback Rack"
GOAL = 2
SMALLEST_TARGET = 44
LEAST_CONTRAST = 4.5

TARGETS = """() => [...document.querySelectorAll("a, button, input:not([type=hidden]), summary")]
    .filter(e => e.checkVisibility() && !e.matches(".skip"))
    .map(e => [e.textContent.trim() || e.id, e.getBoundingClientRect()])
    .map(([name, box]) => [name, Math.round(box.width), Math.round(box.height)])"""

# Ratio of luminances (WCAG 2.2, 1.4.3) of every piece of text and the nearest background that is painted behind it.
CONTRASTS = """() => {
    const parts = color => color.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = e => {
        for (; e; e = e.parentElement) {
            const color = parts(getComputedStyle(e).backgroundColor);
            if (color.length < 4 || color[3] > 0) return color;
        }
        return null;
    };
    return [...document.querySelectorAll("body *")]
        .filter(e => e.checkVisibility() && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
        .map(e => {
            const [a, b] = [light(parts(getComputedStyle(e).color)), light(behind(e))];
            return [e.textContent.trim().slice(0, 40), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
        });
}"""


def spaced(text: str) -> str:
    """As a browser shows it."""
    return " ".join(text.split())


FOCUS = """() => {
    const e = document.activeElement, style = getComputedStyle(e);
    return {text: e.textContent.trim().replace(/\\s+/g, " "), id: e.id, tag: e.tagName,
            outline: style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth)};
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A prepared shop with one product that is named in markup."""
    source, path = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("shop")
    write_catalogue(source, CatalogueSpec(products=60))
    file = source / "items_shuffle.json"
    items = json.loads(file.read_text(encoding="utf-8"))
    items[-1].update(name=HOSTILE, full_description=HOSTILE, small_description=[HOSTILE], product_category=HOSTILE)
    items[-1]["customization_options"] = {HOSTILE: [{"value": HOSTILE}, {"value": "plain"}]}
    file.write_text(json.dumps(items), encoding="utf-8")
    prepare_shop(path, ShopSpec(source=str(source)))
    return path


@pytest.fixture(scope="module")
def goal(folder) -> Goal:
    wanted = ShopSetting(folder).shop.goal(Goals.SYNTHETIC, Split.FIXED, 0, GOAL)
    assert wanted.options  # or the tests would choose none
    return wanted


@pytest.fixture(scope="module")
def episodes(folder, goal, tmp_path_factory) -> Path:
    """A file as a run writes it, with one episode that buys the product of the goal."""
    env = WebShopEnv(folder)
    observation, info = env.reset(options={"goal_index": GOAL})
    choices = [f"click[{value}]" for value in goal.options.values()]
    turns = []
    actions = [f"search[{spaced(goal.product.title)}]", f"click[{goal.product.asin}]", *choices, "click[buy now]"]
    for number, action in enumerate(actions):
        seen, admissible = observation, is_admissible(action, info["admissible_actions"])
        observation, reward, terminated, _, info = env.step(action)
        word = "KEEP" if number == 1 else "SWITCH"
        turns.append(
            TurnRecord(
                task_id=f"synthetic-fixed-{GOAL}",
                kind=info["task_kind"],
                split="eval",
                turn=number,
                prompt=seen,
                reply=f"<switch>{word}</switch>\n<subgoal>step</subgoal>\n<action>{action}</action>",
                observation=seen,
                switch=word,
                subgoal="step",
                action=action,
                problems=(),
                boundary=word == "SWITCH",
                subgoal_in_force="step",
                copied_exactly=word == "KEEP",
                comparable=number > 0,
                admissible=admissible,
                reward=reward,
                terminated=terminated,
                truncated=False,
                stop="won" if terminated else "",
                won=info["won"],
                score=info["score"],
                spans=((0, 1), (1, 2), (2, 3)),
                value_low=2,
                dropped_turns=0,
                observation_cut=False,
            )
        )
    assert turns[-1].won
    file = tmp_path_factory.mktemp("episodes") / "eval_000001.jsonl"
    file.write_text(json.dumps(episode_json(turns)) + "\n", encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def address(folder, episodes) -> Iterator[str]:
    server = LocalServer(create_app(ShopSetting(folder), EpisodeList([episodes])), port=0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield server.address.rstrip("/")
    server.stop()
    thread.join()


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


def tab_to(page, **wanted: str) -> None:
    """Press Tab until an element with this text or id has the focus; every element before it must show the focus."""
    for _ in range(120):
        page.keyboard.press("Tab")
        focus = page.evaluate(FOCUS)
        if focus["tag"] != "BODY":
            assert focus["outline"] >= 2, f"no focus to be seen on {focus}"
        if all(focus[name] == value for name, value in wanted.items()):
            return
    pytest.fail(f"Tab does not reach {wanted}")


def enter(page, key: str = "Enter") -> None:
    with page.expect_navigation():
        page.keyboard.press(key)


def access_key(page, letter: str, leads_on: bool = True) -> None:
    """Press Alt and a letter as a keyboard does; Playwright's own `press` leaves the character out."""
    session = page.context.new_cdp_session(page)
    event = {"modifiers": 1, "key": letter, "windowsVirtualKeyCode": ord(letter.upper())}
    with page.expect_navigation() if leads_on else nullcontext():
        session.send("Input.dispatchKeyEvent", {**event, "type": "rawKeyDown"})
        session.send("Input.dispatchKeyEvent", {**event, "type": "char", "text": letter, "unmodifiedText": letter})
        session.send("Input.dispatchKeyEvent", {**event, "type": "keyUp"})


def click(page, name: str, first: bool = False) -> None:
    button = page.get_by_role("button", name=name, exact=True)
    with page.expect_navigation():
        (button.first if first else button).click()


def test_a_purchase_by_keyboard_alone(chromium, address, goal):
    page = chromium.new_page()
    page.goto(address)
    page.keyboard.press("Tab")
    assert page.evaluate(FOCUS)["text"] == "Skip to the page" and page.locator(".skip").is_visible()
    page.keyboard.press("Enter")
    tab_to(page, id="goal")
    page.keyboard.type(str(GOAL))
    enter(page)
    assert page.locator(".task p").inner_text() == spaced(goal.instruction)
    access_key(page, "s", leads_on=False)
    assert page.evaluate(FOCUS)["id"] == "query"
    page.keyboard.type(spaced(goal.product.title))
    enter(page)
    tab_to(page, text=spaced(goal.product.title))
    enter(page)
    for value in goal.options.values():
        tab_to(page, text=value)
        enter(page, "Space")
        assert page.locator(f'[aria-pressed="true"]:text-is("{value}")').count() == 1
        assert page.evaluate(FOCUS)["text"] == value  # the focus stays where it was
    access_key(page, "y")
    assert page.locator("h1").inner_text() == "Score: 1"
    assert page.locator("aside > section li").count() == 3 + len(goal.options)
    page.close()


def check_phone(page) -> None:
    """Nothing scrolls sideways, and everything that is pressed is large enough for a finger."""
    width, seen = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert width <= seen == 375
    targets = page.evaluate(TARGETS)
    assert targets
    assert [one for one in targets if min(one[1:]) < SMALLEST_TARGET] == []


def test_a_purchase_by_mouse_on_a_phone(chromium, address, goal):
    context = chromium.new_context(viewport={"width": 375, "height": 667})
    page = context.new_page()
    page.goto(address)
    check_phone(page)
    page.fill("#goal", str(GOAL))
    click(page, "Shop")
    page.locator("#query").click()
    page.keyboard.type(spaced(goal.product.title))
    check_phone(page)
    click(page, "Search")
    check_phone(page)
    click(page, "Next >", first=True)
    assert "Page 2" in page.inner_text("main")
    click(page, "< Prev")
    click(page, spaced(goal.product.title))
    check_phone(page)
    for value in goal.options.values():
        click(page, value)
        assert page.get_by_role("button", name=value, exact=True, pressed=True).count() == 1
    for label in ("Description", "Features", "Reviews"):
        click(page, label)
        assert page.locator("h1").inner_text() == label
        check_phone(page)
        click(page, "< Prev")
    page.get_by_text("What the agent sees now").click()
    assert "Buy Now" in page.locator(".agent pre").inner_text()
    check_phone(page)
    click(page, "Buy Now")
    assert page.locator("h1").inner_text() == "Score: 1"
    check_phone(page)
    for path in ("/episodes", "/episodes/0/0", "/episodes/0/1", "/nowhere", "/sessions/1-gone"):
        page.goto(address + path)
        check_phone(page)
    context.close()


def test_everything_works_without_scripts(chromium, address):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    with page.expect_navigation():
        page.get_by_role("button", name="Train").click()
    page.fill("#query", "zwieback")
    enter(page)
    with page.expect_navigation():
        page.locator(".hit").first.click()
    click(page, "Buy Now")
    assert page.locator("h1").inner_text().startswith("Score: ")
    context.close()


def test_a_hostile_title_runs_no_script(chromium, address):
    """Even with the policy that forbids scripts switched off, so that it is the escaping that holds."""
    context = chromium.new_context(bypass_csp=True)
    page = context.new_page()
    seen: list[str] = []
    page.on("request", lambda request: seen.append(request.url))
    page.goto(f"{address}/")
    with page.expect_navigation():
        page.get_by_role("button", name="Test").first.click()
    page.fill("#query", f"zwieback {HURT}")
    enter(page)
    with page.expect_navigation():
        page.locator(".hit", has_text="Zwieback").click()
    assert page.locator("h1").inner_text() == HOSTILE
    with page.expect_navigation():
        page.locator(".option").first.click()
    click(page, "Description")
    assert HURT in page.inner_text("main")
    click(page, "< Prev")
    click(page, "Buy Now")
    assert HURT in page.inner_text("main")
    assert page.evaluate("window.hurt") is None and page.locator("script, img").count() == 0
    assert all(url.startswith(address) for url in seen) and not any(url.endswith("/x") for url in seen)
    context.close()


def test_the_policy_forbids_scripts_too(chromium, address):
    page = chromium.new_page()
    page.goto(address)
    page.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "window.hurt = 3";
        document.body.append(script);
    }""")
    assert page.evaluate("window.hurt") is None
    page.close()


def test_another_site_cannot_press_a_button(chromium, address, folder):
    """A page of another origin (another port counts) sends a form."""
    foreign = LocalServer(create_app(ShopSetting(folder), EpisodeList([])), port=0)
    thread = threading.Thread(target=foreign.run, daemon=True)
    thread.start()
    context = chromium.new_context(bypass_csp=True)
    page = context.new_page()
    page.goto(foreign.address)
    with page.expect_navigation() as answer:
        page.evaluate(
            """to => {
                const form = document.createElement("form");
                form.method = "post";
                form.action = to;
                document.body.append(form);
                form.submit();
            }""",
            f"{address}/sessions",
        )
    assert answer.value.status == 403
    assert page.locator("h1").inner_text() == "Request from another site"
    context.close()
    foreign.stop()
    thread.join()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_of_every_text(chromium, address, goal, scheme):
    context = chromium.new_context(color_scheme=scheme)
    page = context.new_page()
    backgrounds = set()

    def check() -> None:
        backgrounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        contrasts = page.evaluate(CONTRASTS)
        assert len(contrasts) > 3 and [one for one in contrasts if one[1] < LEAST_CONTRAST] == []

    page.goto(address)
    check()
    page.fill("#goal", str(GOAL))
    page.focus("#goal")
    enter(page)
    page.locator(".agent summary").click()
    check()
    page.fill("#query", spaced(goal.product.title))
    page.focus("#query")
    enter(page)
    check()
    click(page, spaced(goal.product.title))
    with page.expect_navigation():
        page.locator(".option").first.click()
    check()
    page.locator(".agent summary").click()
    page.fill("#action", "click[nothing]")
    page.focus("#action")
    enter(page)
    check()
    click(page, "Buy Now")
    check()
    for path in ("/episodes", "/episodes/0/0", "/episodes/0/1", "/episodes/0/2", "/nowhere"):
        page.goto(address + path)
        check()
    assert len(backgrounds) == 1 and ("255, 255, 255" in backgrounds.pop()) == (scheme == "light")
    context.close()


def test_watching_an_episode_by_keyboard(chromium, address, episodes, goal):
    turns = json.loads(episodes.read_text(encoding="utf-8"))["trajectory"]
    page = chromium.new_page()
    page.goto(f"{address}/episodes")
    tab_to(page, text="Episode 0")
    enter(page)
    for at, turn in enumerate(turns):
        assert page.locator("h1").inner_text() == f"Episode 0, turn {at + 1} of {len(turns)}"
        assert page.locator("mark.switch").inner_text() == f"<switch>{turn['switch']}</switch>"
        assert page.locator("mark.action").inner_text() == f"<action>{turn['action']}</action>"
        assert page.locator(".page .clicked").count() == 1
        assert page.locator("button").count() == 0
        access_key(page, "n")
    assert page.locator(".page h2").first.inner_text() == "Score: 1"
    access_key(page, "p")
    assert page.locator("h1").inner_text() == f"Episode 0, turn {len(turns)} of {len(turns)}"
    assert page.locator(".option.chosen").count() == len(goal.options)
    page.close()
