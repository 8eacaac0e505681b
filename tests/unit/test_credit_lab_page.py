# SPDX-License-Identifier: Apache-2.0
"""The command of the credit lab: what it writes and prints, and how it fails."""

from __future__ import annotations

import csv
import re
from html.parser import HTMLParser

import pytest
from made_episodes import line, write
from PIL import Image

from recipe.hiper.credit_lab.command import main, run_settings
from recipe.hiper.credit_lab.page import CAPTIONS

CONFIG = "algorithm:\n  gamma: {gamma}\n  lam: {lam}\n  hae:\n    lam_seg: 0.9\n"


def episodes(folder, name: str = "train_000001.jsonl", **about):
    """Two groups of a won and a lost episode."""
    outcomes = (("g_0", 10.0), ("g_1", 0.0), ("h_0", 10.0), ("h_1", 0.0))
    lines = [line(session, [0.0, last], values=(5.0, 5.0, 5.0), **about) for session, last in outcomes]
    return write(folder / "episodes" / name, lines)


class Balanced(HTMLParser):
    """Refuses a page whose elements are not closed, and collects what it loads."""

    def __init__(self, text: str):
        super().__init__()
        self.loads: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.loads.extend(value for name, value in attrs if name in ("src", "srcset", "href"))
        if tag not in ("meta", "img", "source"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag


def fails(capsys, *arguments: str) -> str:
    """The message of a command that ends with status 2."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


@pytest.fixture
def no_pictures(monkeypatch):
    """Drawing is most of the time, and most tests look at the words."""
    monkeypatch.setattr("recipe.hiper.credit_lab.command.draw", lambda comparison, theme: {})


def test_everything_is_written_and_the_same_again(tmp_path, capsys):
    path, out = str(episodes(tmp_path)), tmp_path / "new" / "lab"
    main([path, "--out", str(out)])
    assert str(out / "credit_lab.html") in capsys.readouterr().out
    pictures = {f"{name}.png" for name in CAPTIONS}
    assert {file.name for file in out.iterdir()} == {"credit_lab.html", "credit_lab.csv", *pictures}
    page = (out / "credit_lab.html").read_text(encoding="utf-8")
    loads = Balanced(page).loads
    assert len(loads) == 2 * len(CAPTIONS) and all(load.startswith("data:image/png;base64,") for load in loads)
    assert "prefers-color-scheme" in page and "<script" not in page and "http" not in page
    for title, caption in CAPTIONS.values():
        assert title in page and caption[:40].replace("'", "&#39;") in page
    for name in CAPTIONS:
        with Image.open(out / f"{name}.png") as picture:
            assert picture.width > 400
    main([path, "--out", str(tmp_path / "again")])
    for file in out.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name


def test_the_printed_table(no_pictures, tmp_path, capsys):
    out = ["--out", str(tmp_path / "lab")]
    main([str(episodes(tmp_path)), *out, "--estimators", "rloo", "turn_gae", "--turn-lam", "0"])
    printed = capsys.readouterr().out
    expected = """\
Action decisions: 8 turns

| estimator          |           bias [95%] |     sd | variance ratio | equal signs | correlation | zeros |
| ------------------ | -------------------: | -----: | -------------: | ----------: | ----------: | ----: |
| Monte Carlo        | 0.000 [0.000, 0.000] |  5.000 |          1.000 |        100% |       1.000 |    0% |
| rloo               | 0.000 [0.000, 0.000] | 10.000 |          4.000 |        100% |       1.000 |    0% |
| turn_gae, lambda 0 | 0.000 [0.000, 0.000] |  3.536 |          0.500 |        100% |       0.707 |   50% |

4 episodes of 1 file, 8 turns (2.0 an episode), 50% won; groups of 2 episodes.
gamma 1, hae's lambda 1 and 0.95 over segments (the trainer's defaults: no run's config.yaml beside these files).
The recorded values explain this fraction of the variance of the return-to-go: switch 0%, sub-goal 0%, action 0%.
The advantages that the run recorded are none of these."""
    assert expected in printed


def test_the_csv_has_all_rows_as_numbers(no_pictures, tmp_path):
    main([str(episodes(tmp_path)), "--out", str(tmp_path / "lab"), "--estimators", "grpo"])
    with open(tmp_path / "lab" / "credit_lab.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["decision"], row["label"]) for row in rows] == [
        (decision, label)
        for decision in ("switch", "sub-goal", "action")
        for label in ("Monte Carlo", "grpo", "grpo, no std")
    ]
    assert float(rows[-1]["variance_ratio"]) == pytest.approx(1.0)
    assert float(rows[-1]["bias_high"]) == pytest.approx(0.0)
    assert rows[-2]["variance_ratio"] == rows[-2]["bias_low"] == ""


def test_what_the_files_lack_is_listed(tmp_path, capsys):
    """Validation episodes in groups, cut, of unequal number: group estimators only, no pull."""
    lines = [line("g_0", [1.0, 0.0], credit=False, cut=True), line("g_1", [3.0], credit=False)]
    path = write(tmp_path / "val.jsonl", [*lines, line("h_0", [2.0], credit=False)])
    main([str(path), "--out", str(tmp_path / "lab")])
    printed = capsys.readouterr().out
    for note in (
        "Left out: hae, turn_gae, gae. ", "Rewards are the environment's",
        "The step limit cut 1 episodes", "1 of 2 groups are of one episode", "groups of 1 to 2 episodes",
        "Baseline of the reference",
    ):  # fmt: skip
        assert note in printed
    page = (tmp_path / "lab" / "credit_lab.html").read_text(encoding="utf-8")
    assert "<strong>hae, turn_gae, gae</strong>" in page and not (tmp_path / "lab" / "pull.png").exists()


@pytest.mark.parametrize("in_a_run", [True, False])
def test_no_path_of_this_machine_is_written(no_pictures, tmp_path, capsys, in_a_run):
    """The page is sent to others: it names the run and its files, and no folder of the machine that wrote it."""
    lines = [line(f"g_{n}", [0.0, float(n)], values=None, probability=None) for n in range(2)]
    path = write(tmp_path / "my_run" / ("episodes" if in_a_run else "copied") / "train_000001.jsonl", lines)
    (tmp_path / "my_run" / "config.yaml").write_text(CONFIG.format(gamma=1, lam=1))
    main([str(path), "--out", str(tmp_path / "lab")])
    printed = capsys.readouterr().out.removesuffix(f"{tmp_path / 'lab' / 'credit_lab.html'}\n")
    written = [(tmp_path / "lab" / name).read_text(encoding="utf-8") for name in ("credit_lab.html", "credit_lab.csv")]
    for text in (printed, *written):
        assert str(tmp_path) not in text and not re.search(r"(?<![\w<])/\w+/", text)
    where = "my_run/episodes/train_000001.jsonl, line 1" if in_a_run else "null in train_000001.jsonl, line 1"
    assert where in written[0] and "as in my_run/config.yaml" in written[0]


# ---------------------------------------------------------------------------------------------------------------------
# Gamma and lambdas


def test_the_settings_of_the_run_are_the_default(no_pictures, tmp_path, capsys):
    path = episodes(tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text(CONFIG.format(gamma=0.5, lam=0.25))
    main([str(path), "--out", str(tmp_path / "lab")])
    printed = capsys.readouterr().out
    assert re.search(r"gamma 0.5, hae's lambda 0.25 and 0.9 over segments \(as in .*config.yaml\)", printed)
    assert "turn_gae, lambda 0.25" in printed
    main([str(path), "--out", str(tmp_path / "lab"), "--gamma", "1", "--turn-lam", "0"])
    printed = capsys.readouterr().out
    assert re.search(r"gamma 1, hae's lambda 0.25 .*config.yaml, except for the options set\)", printed)
    assert "turn_gae, lambda 0 " in printed and "turn_gae, lambda 0.25" not in printed


def test_runs_that_differ_need_an_answer(no_pictures, tmp_path, capsys):
    paths = [str(episodes(tmp_path / name)) for name in ("x", "y")]
    for name, gamma in (("x", 0.5), ("y", 0.6)):
        (tmp_path / name / "config.yaml").write_text(CONFIG.format(gamma=gamma, lam=1))
    message = fails(capsys, *paths, "--out", str(tmp_path / "lab"))
    assert "algorithm.gamma is 0.5 in" in message and "0.6 in" in message and "--gamma" in message
    main([*paths, "--out", str(tmp_path / "lab"), "--gamma", "1", "--lam", "1", "--lam-seg", "1"])
    assert "from the command line" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text", ["algorithm: {", "algorithm:\n  gamma: 1\n", "a: [1]\n", CONFIG.format(gamma="x", lam=1)]
)
def test_an_unusable_configuration_names_the_options(tmp_path, capsys, text):
    path = episodes(tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text(text)
    message = fails(capsys, str(path), "--out", str(tmp_path / "lab"))
    assert "config.yaml has no usable algorithm.gamma" in message and "Try: --gamma 1 --lam 1 --lam-seg 0.95" in message


def test_loose_files_have_no_settings(tmp_path):
    assert run_settings([episodes(tmp_path)]) == ({}, None)


# ---------------------------------------------------------------------------------------------------------------------
# Errors


def test_errors_end_with_status_2_and_a_remedy(tmp_path, capsys):
    path, out = str(episodes(tmp_path)), ["--out", str(tmp_path / "lab")]
    assert "Try: episode files of a run" in fails(capsys, str(tmp_path / "missing.jsonl"), *out)
    assert "--lam 2 is not in [0, 1]. Try: --lam 0.95" in fails(capsys, path, *out, "--lam", "2")
    assert "--estimators ppo is not one of" in fails(capsys, path, *out, "--estimators", "ppo")
    assert "required: episodes" in fails(capsys, *out)
    assert not (tmp_path / "lab").exists()  # created only for what is written into it


def test_a_folder_that_cannot_be_written_to(no_pictures, tmp_path, capsys):
    path = str(episodes(tmp_path))
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "lab"):
        assert "Try: --out <another folder>" in fails(capsys, path, "--out", str(folder))
    (tmp_path / "lab" / "credit_lab.html").mkdir(parents=True)
    assert "Try: --out <another folder>" in fails(capsys, path, "--out", str(tmp_path / "lab"))
