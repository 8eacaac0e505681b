# SPDX-License-Identifier: Apache-2.0
"""Names that a benchmark does not know end in one line that lists the known ones, not in a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    script, *arguments = command.split()
    path = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
    return subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("errand_game.py --arms turn_gae --out out", "argument --arms: invalid choice: 'turn_gae' (choose from"),
        ("errand_game.py --games castle --out out", "argument --games: invalid choice: 'castle' (choose from 'memory'"),
        ("errand_game.py --seeds 0 --out out", "argument --seeds: 0 is not at least 1"),
        ("errand_game.py --arms flat_gae --games rewrite --out out", "flat estimators do not play rewrite. Try: "),
        ("estimators.py --only turn_gae --out out", "argument --only: invalid choice: 'turn_gae' (choose from"),
        ("learning.py --seeds --out out", "argument --seeds: expected at least one argument"),
        ("hae_oracle.py --episodes 0 --out out/picture.png", "--episodes at least 100"),
        ("webshop_search.py --docs --data nowhere", "--data nowhere is not a folder"),
        (
            "webshop_reachable.py --source nowhere",
            "nowhere holds neither items_shuffle.json nor items_shuffle_1000.json",
        ),
        ("alfworld_speed.py --data-dir nowhere --split test", "0 playable ALFWorld games in nowhere"),
        ("seeded_sampling.py --model nowhere", "--model nowhere is not the folder of a model"),
        ("gpu/training.py large --architecture gpt", "argument --architecture: invalid choice: 'gpt' (choose from"),
    ],
    ids=lambda text: text.split(" --out")[0],
)
def test_a_wrong_option_is_one_line(command, message, tmp_path):
    result = run(command, tmp_path)
    assert result.returncode == 2, result.stderr
    last = result.stderr.rstrip().splitlines()[-1]
    assert message in last and "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_the_help_of_the_errand_game_lists_its_names(tmp_path):
    text = run("errand_game.py --help", tmp_path).stdout
    for name in ("memory", "markov", "hae_released", "turn_gae_0.95", "flat_gigpo", "hae_critic_8", "keep_turn"):
        assert name in text
