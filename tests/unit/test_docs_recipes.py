# SPDX-License-Identifier: Apache-2.0
"""The recipes of docs/extending.md work word for word: their code is read from the page."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from made_config import check, composed

from agent_system.rollout import environment_registry
from recipe.hiper.tasks.preparation import prepare

PAGE = Path(__file__).resolve().parents[2] / "docs" / "extending.md"


def code(module: str) -> str:
    """The code block of the page that starts with `# <module>.py`."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return next(block for block in blocks if block.startswith(f"# {module}.py\n"))


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Saves a module of the page in a folder on the path, and imports it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def save(name: str):
        (tmp_path / f"{name}.py").write_text(code(name), "utf-8")
        return importlib.import_module(name)

    yield save
    for name in ("my_estimator", "my_game"):
        sys.modules.pop(name, None)
    gymnasium.registry.pop("FindNumber-v0", None)


def test_the_recipes_are_short():
    assert len(code("my_estimator").splitlines()) <= 42
    assert len(code("my_game").splitlines()) <= 66


def test_the_estimator_on_a_hand_worked_example(module):
    from recipe.hiper.estimators.config import EstimatorConfig, HAEConfig
    from recipe.hiper.estimators.registry import TurnGrids, estimate_advantages, find_estimator
    from recipe.hiper.estimators.shaping import ShapingConfig

    module("my_estimator")
    entry = find_estimator("my_estimator:RETURN_TO_GO")
    # A terminated episode of three turns, and one of two turns that the step limit cut; gamma is a half.
    rewards = torch.tensor([[0.0, 2.0, 8.0], [4.0, 0.0, 0.0]])
    valid = torch.tensor([[True, True, True], [True, True, False]])
    ones = torch.ones_like(valid)
    grids = TurnGrids(
        rewards=rewards,
        valid=valid,
        boundary=ones & valid,
        copied_exactly=ones,
        comparable=ones,
        well_formed=ones,
        admissible=ones,
        terminated=torch.tensor([[False, False, True], [False, False, False]]),
        anchor=torch.zeros(2, 3, dtype=torch.long),
        group=torch.tensor([0, 1]),
        switch_probability=torch.full((2, 3), 0.5),
        values=torch.full((2, 3, 3), 1.0),
        bootstrap=torch.tensor([[6.0, 0.0, 0.0], [6.0, 0.0, 0.0]]),
    )
    config = EstimatorConfig(entry.name, HAEConfig(gamma=0.5, lam_turn=1.0, lam_seg=1.0), ShapingConfig())
    result = estimate_advantages(grids, config)
    # 0 + 6/2 = 3, 2 + 8/2 = 6, 8; and 4 + 3/2 = 5.5, 0 + 6/2 = 3: minus the value 1 each.
    expected = torch.tensor([[2.0, 5.0, 7.0], [4.5, 2.0, 0.0]])
    assert torch.equal(result.action, expected) and torch.equal(result.switch, expected)
    assert torch.equal(result.targets[..., 0], torch.tensor([[3.0, 6.0, 8.0], [5.5, 3.0, 0.0]]))
    assert torch.equal(result.has_target[..., 0], valid) and not result.has_target[..., 1:].any()


def test_the_environment_keeps_the_contract(module):
    module("my_game")
    env = gymnasium.make("my_game:FindNumber-v0", max_steps=3)
    check_env(env.unwrapped, skip_render_check=True)
    observation, info = env.reset(options={"number": 5})
    assert observation == "The number is between 1 and 8." and info["task"] == "find the number"
    assert env.step("dance")[:4] == ("Nothing happens.", 0.0, False, False)
    assert env.step(info["admissible_actions"][1])[:4] == ("It is higher.", 0.0, False, False)
    observation, reward, terminated, truncated, info = env.step("Guess 5")
    assert (observation, reward, terminated, truncated) == ("Correct.", 10.0, True, False)  # on the last step
    assert info["won"] and info["score"] == 1.0
    env.reset(options={"number": 5})
    assert [env.step("guess 8")[2:4] for _ in range(3)] == [(False, False), (False, False), (False, True)]


def test_the_environment_passes_the_check_of_the_page(tmp_path):
    (tmp_path / "my_game.py").write_text(code("my_game"), "utf-8")
    arguments = re.search(r"python -m (agent_system\.environments\.check_env .*)", PAGE.read_text("utf-8"))[1].split()
    path = os.pathsep.join([str(tmp_path), str(PAGE.parents[1])])
    run = subprocess.run(
        [sys.executable, "-m", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0 and "no findings" in run.stdout, run.stdout + run.stderr


def test_the_environment_is_prepared_with_the_overrides_of_the_page(module, tmp_path, monkeypatch):
    monkeypatch.setenv("HIPER_CACHE", str(tmp_path / "cache"))
    module("my_game")
    page = PAGE.read_text("utf-8")
    command = re.search(r"PYTHONPATH=\$PWD python -m recipe.hiper.main (.*?)\n\n", page.replace("\\\n", ""), re.DOTALL)
    overrides = command[1].replace("<folder or name of a model>", "somewhere").split()
    assert "env.env_name=my_game:FIND_NUMBER" in overrides
    config = composed(f"run_dir={tmp_path / 'run'}", "trainer.total_training_steps=4", *overrides)
    prepare(config, check(config), progress=False)
    tasks = json.loads((tmp_path / "run" / "tasks" / "val.json").read_text())["tasks"]
    assert sorted(task["task_id"] for task in tasks) == [f"val-{number}" for number in range(1, 9)]
    spec = environment_registry.environment_spec(config.env.env_name)
    assert spec.environment == "a guessing game"
    assert not (tmp_path / "cache").exists()


def test_the_estimator_trains_in_a_folder_of_its_own():
    """The README trains hae in another folder: a shared one would be refused as another run."""
    page = PAGE.read_text("utf-8").replace("\\\n", "")
    command = re.search(r"run_alfworld\.sh (.*algorithm\.adv_estimator=my_estimator.*)", page)
    (folder,) = re.findall(r"run_dir=(\S+)", command[1])
    assert folder == "outputs/my_estimator"
    assert folder not in re.findall(r"run_dir=(\S+)", (PAGE.parents[1] / "README.md").read_text("utf-8"))
