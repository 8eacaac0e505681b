# SPDX-License-Identifier: Apache-2.0
"""Statements of README and docs about the repository hold: error texts, links, anchors, commands, paths, overrides.

Every failure names the page, the line, the quoted text and the closest thing that exists.
"""

from __future__ import annotations

import ast
import difflib
import re
import shlex
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import pytest

from agent_system.rollout.environment_registry import FAMILY_NAMES
from recipe.hiper.configuration.overrides import check_overrides

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
SOURCES = ("agent_system", "recipe", "verl_plugins", "benchmarks", "example_scripts")
OURS = (*SOURCES, "tests", "docs", "requirements")
WORDS_OF_THE_README = 900
PENDING: set[str] = set()
"""Commands that the docs name before the module exists. Empty this set once they do."""

INSERTED = "\0"
"""Stands for `{...}` of an f-string in the messages read from the source."""

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def lines(page: Path, *, code: bool) -> Iterator[tuple[int, str]]:
    """Numbered lines of a page: with `code` those of its code blocks, else the prose."""
    fenced = False
    for number, line in enumerate(page.read_text("utf-8").splitlines(), start=1):
        if line.startswith("```"):
            fenced = not fenced
        elif (fenced or line.startswith("    ")) == code:
            yield number, line


def place(page: Path, number: int) -> str:
    return f"{page.relative_to(ROOT)}:{number}"


# Error texts


@cache
def messages() -> dict[str, str]:
    """Every string of the source code and every message of a shell script, with the place it comes from.

    `INSERTED` stands for what is filled in.
    """
    texts: dict[str, str] = {}
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(path.read_text("utf-8"))
            docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            for node in ast.walk(tree):
                if id(node) in docstrings:
                    continue
                if isinstance(node, ast.JoinedStr):
                    parts = (part.value if isinstance(part, ast.Constant) else INSERTED for part in node.values)
                    texts.setdefault("".join(parts), f"{path.relative_to(ROOT)}:{node.lineno}")
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.setdefault(node.value, f"{path.relative_to(ROOT)}:{node.lineno}")
        for path in sorted((ROOT / folder).rglob("*.sh")):
            for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
                for text in re.findall(r'_say "([^"]+)"', line):
                    texts.setdefault(re.sub(r"\$\w+", INSERTED, text), f"{path.relative_to(ROOT)}:{number}")
    return texts


def pattern(head: str) -> re.Pattern[str]:
    """The head of a message as the page quotes it: `...` is any text, N, M and K are numbers that are filled in."""
    parts = re.split(r"(\.\.\.|\b[NMK]\b%?)", head)
    wild = {"...": r"[^\n]*?"}
    return re.compile("".join(wild.get(p, INSERTED) if i % 2 else re.escape(p) for i, p in enumerate(parts)))


def quoted_heads() -> list[tuple[int, str]]:
    """The error texts of troubleshooting.md: every `text` in bold, other packages' (the last section) left out."""
    page = ROOT / "docs" / "troubleshooting.md"
    heads = []
    for number, line in lines(page, code=False):
        if line.startswith("## ") and "other packages" in line:
            break
        for bold in re.findall(r"^\*\*(.*?)\*\*", line):
            heads += [(number, head) for head in re.findall(r"`([^`]+)`", bold)]
    return heads


@pytest.mark.parametrize(("number", "head"), quoted_heads(), ids=lambda value: str(value)[:40])
def test_a_quoted_error_text_is_one_of_the_source_code(number, head):
    wanted = pattern(head)
    if any(wanted.search(message) for message in messages()):
        return
    readable = {message.replace(INSERTED, "..."): where for message, where in messages().items() if len(message) > 12}
    near = difflib.get_close_matches(head, [text[: len(head) + 20] for text in readable], n=1, cutoff=0.3)
    closest = next(((text, where) for text, where in readable.items() if near and text.startswith(near[0])), None)
    pytest.fail(
        f"docs/troubleshooting.md:{number} quotes `{head}`, which no string of {', '.join(SOURCES)} contains. "
        + (f"The closest one is at {closest[1]}: {closest[0][:150]!r}" if closest else "Nothing is close to it.")
    )


def test_troubleshooting_quotes_error_texts():
    assert len(quoted_heads()) > 15


def test_a_pattern_is_strict_about_the_words():
    assert pattern("N of M episodes could not be ...").search(f"{INSERTED} of {INSERTED} episodes could not be played")
    assert not pattern("N of M episodes could not be ...").search("4 of 5 episodes could not be played")
    assert not pattern("verl did not load").search("verl does not load")


# Links and anchors


def anchors(page: Path) -> set[str]:
    """Anchors that GitHub makes of headings, and explicit ones."""
    made: list[str] = []
    for _, line in lines(page, code=False):
        if heading := re.match(r"#+ (.*)", line):
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1])
            slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
            made.append(slug if slug not in made else f"{slug}-{made.count(slug)}")
        made += re.findall(r'<a (?:id|name)="([^"]+)"', line)
    return set(made)


@pages
def test_links_and_anchors_resolve(page):
    problems = []
    for number, line in lines(page, code=False):
        for target in re.findall(r"\]\(([^)\s]+)\)", line):
            if re.match(r"\w+:", target):
                continue
            name, _, anchor = target.partition("#")
            file = (page.parent / name).resolve() if name else page
            if not file.exists():
                problems.append(f"{place(page, number)}: link to {target}, but there is no {file}")
            elif anchor and anchor not in anchors(file):
                near = difflib.get_close_matches(anchor, anchors(file), n=1, cutoff=0.0)
                problems.append(f"{place(page, number)}: {target}: no such heading; the closest one is #{near[0]}")
    assert not problems, "\n".join(problems)


def test_every_page_is_linked_from_the_readme():
    linked = {(ROOT / target).resolve() for target in re.findall(r"\]\(([^)#\s]+)", (ROOT / "README.md").read_text())}
    others = [page for page in PAGES if page.parent != ROOT and page.name != "STATUS.md"]  # notes of unfinished work
    missing = [str(page.relative_to(ROOT)) for page in others if page not in linked]
    assert not missing, f"README.md links to none of {', '.join(missing)}"


# Commands, paths and names


def module_file(module: str) -> Path | None:
    """The file that `python -m module` runs; None where there is none."""
    path = ROOT.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__main__.py") if file.exists()), None)


@pages
def test_commands_exist(page):
    problems = []
    for number, line in enumerate(page.read_text("utf-8").splitlines(), start=1):
        for module in re.findall(r"python -m ([\w.]+\w)", line):
            ours = module.split(".")[0] in SOURCES
            if module not in PENDING and (module_file(module) if ours else find_spec(module)) is None:
                problems.append(f"{place(page, number)}: python -m {module}: there is no such module to run")
        for script in re.findall(r"\b(?:python|bash) ([\w./-]+\.(?:py|sh))\b", line):
            if not (ROOT / script).is_file():
                problems.append(f"{place(page, number)}: {script}: there is no such script")
    assert not problems, "\n".join(problems)


def expanded(path: str) -> Iterator[str]:
    """`a/{b,c}.py` as a/b.py and a/c.py."""
    parts = [part.split(",") if i % 2 else [part] for i, part in enumerate(re.split(r"\{([^}]*)\}", path))]
    yield from ("".join(choice) for choice in product(*parts))


@pages
def test_named_files_and_modules_exist(page):
    """In backticks: `folder/file`, from the root of the repository, and `package.module` or `package.module.name`."""
    problems = []
    for number, line in lines(page, code=False):
        for quoted in re.findall(r"`([^`]+)`", line):
            if re.fullmatch(r"[\w./{},*-]+", quoted) and quoted.split("/")[0] in OURS and "/" in quoted:
                missing = [path for path in expanded(quoted.rstrip("/")) if not any(ROOT.glob(path))]
                problems += [f"{place(page, number)}: `{path}` is not in the repository" for path in missing]
            elif re.fullmatch(r"(agent_system|recipe|verl_plugins)(\.\w+)+", quoted) and not exists(quoted):
                problems.append(f"{place(page, number)}: `{quoted}` is neither a module nor a name in one")
    assert not problems, "\n".join(problems)


def exists(dotted: str) -> bool:
    path = ROOT.joinpath(*dotted.split("."))
    if path.is_dir() or path.with_suffix(".py").is_file():
        return True
    module, _, name = dotted.rpartition(".")
    folder = ROOT.joinpath(*module.split("."))
    file = folder.with_suffix(".py") if folder.with_suffix(".py").is_file() else folder / "__init__.py"
    return file.is_file() and re.search(rf"\b{name}\b", file.read_text("utf-8")) is not None


def commands_with_overrides(page: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Training commands in code blocks, lines ending in a backslash joined: line, environment, overrides."""
    pending, start = "", 0
    for number, line in lines(page, code=True):
        start = start if pending else number
        pending += line.split("   #")[0].strip()
        if pending.endswith("\\"):
            pending = pending[:-1] + " "
            continue
        command, pending = pending, ""
        if re.search(rf"run_({'|'.join(FAMILY_NAMES)})\.sh|-m recipe\.hiper\.(main|prepare)\b", command):
            words = shlex.split(re.sub(r"<[^>]*>", "placeholder", command))
            words = [word for word in words if re.match(r"[~+]*[a-z_].*=", word)]  # key=value, not VARIABLE=value
            if words:
                yield start, next((name for name in FAMILY_NAMES if name in command), FAMILY_NAMES[0]), words


@pages
def test_overrides_in_commands_are_known_keys(page):
    problems = []
    for number, environment, overrides in commands_with_overrides(page):
        profile = [] if any(word.startswith("profile=") for word in overrides) else ["profile=cpu"]
        try:
            check_overrides([*profile, f"env={environment}", *overrides])
        except Exception as error:  # any refusal shows that the page is wrong
            problems.append(f"{place(page, number)}: {' '.join(overrides)}: {error}")
    assert not problems, "\n".join(problems)


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text("utf-8")
    words = len(text.split())
    assert words < WORDS_OF_THE_README, f"README.md has {words} words, at most {WORDS_OF_THE_README - 1} are allowed"
    figures = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", text)
    assert figures == ["docs/figures/smollm2_alfworld.png"], f"README.md has the figures {figures}"
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) <= 12, f"README.md has {len(rows)} rows of tables: results belong to docs/results.md"
