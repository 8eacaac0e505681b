# SPDX-License-Identifier: Apache-2.0
"""Generated games in the real engine, and the folder that holds them."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from textworld.core import EnvInfos

from agent_system.environments.alfworld.engine_cache import new_engine
from agent_system.environments.alfworld.env import ALFWorldEnv
from agent_system.environments.alfworld.expert import Expert, Exploration
from agent_system.environments.alfworld.game_spec import GameSpec
from agent_system.environments.alfworld.games import alfworld_panel, find_games
from agent_system.environments.alfworld.generate import MANIFEST, generate_games, main
from agent_system.environments.alfworld.native import process_state_kept
from agent_system.environments.alfworld.rooms import TaskKind
from agent_system.environments.alfworld.verify import Verifier
from agent_system.errors import ConfigError, TaskError

ROOT = Path(__file__).resolve().parents[2]
SPEC = GameSpec(train=6, valid_seen=6, valid_unseen=6, seed=3)
FULL_SIZE = GameSpec(
    receptacles=None, objects_per_receptacle=4, max_instances=3, train=0, valid_seen=0, valid_unseen=6, seed=3
)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def games(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("games")
    generate_games(folder, SPEC, workers=2, progress=False)
    return folder


@pytest.mark.parametrize("split", ["train", "valid_seen", "valid_unseen"])
def test_every_kind_of_task_is_there_and_is_won_by_its_walkthrough(games, split):
    found = find_games(games, split)
    assert {g.kind for g in found} == set(TaskKind)
    engine = new_engine(EnvInfos(won=True))
    for game in found:
        with process_state_kept():
            engine.load(str(game.path))
            state = engine.reset()
            for command in json.loads(game.path.read_bytes())["walkthrough"]:
                assert not state.won
                state, _, _ = engine.step(command)
        assert state.won, game.task_id


def test_full_size_rooms_are_won_by_the_expert_too(tmp_path):
    generate_games(tmp_path, FULL_SIZE, workers=2, progress=False)
    for game in find_games(tmp_path, "valid_unseen"):
        assert expert_wins(game.path, slips=0.0, turns=150), game.task_id


@pytest.mark.parametrize("slips", [0.0, 0.3])
def test_the_expert_wins_also_where_random_actions_come_in_between(games, slips):
    for game in find_games(games, "valid_unseen"):
        assert expert_wins(game.path, slips, turns=100), game.task_id


IN_0_3 = (
    ("You arrive at {r.name}.", "You arrive at {lend.name}."),
    ("You move the {o.name} to the {r.name}.", "You put the {o.name} in/on the {r.name}."),
    ('"move {o} to {r}"', '"put {o} in/on {r}"'),
)
"""Differences of the grammar of alfworld 0.3.5 from the one of 0.4, apart from the action `help`."""


@pytest.mark.parametrize("slips", [0.0, 0.3])
def test_the_expert_wins_games_of_alfworld_before_0_4(games, tmp_path, slips):
    for number, game in enumerate(find_games(games, "valid_unseen")):
        data = json.loads(game.path.read_bytes())
        for new, old in IN_0_3:
            assert new in data["grammar"]
            data["grammar"] = data["grammar"].replace(new, old)
        file = tmp_path / str(number) / "game.tw-pddl"
        file.parent.mkdir()
        file.write_text(json.dumps(data))
        assert expert_wins(file, slips, turns=100), game.task_id


def expert_wins(game: Path, slips: float, turns: int) -> bool:
    rng = random.Random(game.parent.name)
    env = ALFWorldEnv(game, max_steps=turns)
    observation, info = env.reset()
    expert, subgoal = Expert(info["task"], Exploration.LISTED, rng), ""
    for _ in range(turns):
        expert.observe(observation, info["admissible_actions"])
        advice = expert.advise(subgoal)
        assert advice.action in info["admissible_actions"]
        subgoal = advice.subgoal
        action = rng.choice(info["admissible_actions"]) if rng.random() < slips else advice.action
        observation, _, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            break
    env.close()
    return info["won"]


def test_the_same_spec_gives_the_same_bytes_with_any_number_of_workers(games, tmp_path):
    again = generate_games(tmp_path, SPEC, workers=1, progress=False)
    assert contents(tmp_path) == contents(games)
    assert again == generate_games(games, SPEC, workers=1, progress=False)
    assert alfworld_panel(tmp_path, "train").digest == alfworld_panel(games, "train").digest


def test_a_killed_run_leaves_no_half_game_and_is_taken_up(games, tmp_path):
    command = [sys.executable, "-m", "agent_system.environments.alfworld.generate", "--out", str(tmp_path)]
    sizes = ["--train", "6", "--valid-seen", "6", "--valid-unseen", "6", "--seed", "3", "--workers", "1"]
    process = subprocess.Popen([*command, *sizes], cwd=ROOT, stderr=subprocess.DEVNULL)
    while not any(tmp_path.glob("json_2.1.1/*/*/*/game.tw-pddl")):
        assert process.poll() is None, "finished before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    whole = contents(games)
    left = contents(tmp_path / "json_2.1.1")
    assert left and all(whole[f"json_2.1.1/{name}"] == data for name, data in left.items())
    assert not json.loads((tmp_path / MANIFEST).read_text())["complete"]
    generate_games(tmp_path, SPEC, workers=2, progress=False)
    assert contents(tmp_path) == whole


def test_a_candidate_that_cannot_be_won_is_found_out(games):
    path = find_games(games, "train")[0].path
    walkthrough = json.loads(path.read_bytes())["walkthrough"]
    verifier = Verifier()
    assert verifier.fault(path.read_bytes(), walkthrough) is None
    assert verifier.fault(path.read_bytes(), walkthrough[:-1]) == "the walkthrough does not win"
    assert "not admissible" in verifier.fault(path.read_bytes(), ["open the window"])
    assert "already won" in verifier.fault(path.read_bytes(), [*walkthrough, "look"])


def test_a_folder_of_another_spec_is_refused(games, capsys):
    with pytest.raises(ConfigError, match="seed is 3 there and 4 here"):
        generate_games(games, GameSpec(train=6, valid_seen=6, valid_unseen=6, seed=4), workers=1, progress=False)
    with pytest.raises(SystemExit):
        main(["--out", str(games), "--seed", "4"])
    assert (
        "Try: --out <another folder> (in a run env.alfworld.generated.dir=<another folder>)" in capsys.readouterr().err
    )


def test_damaged_folders_are_refused(games, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(games, folder)
    game = find_games(folder, "train")[0].path

    def refusal() -> str:
        with pytest.raises(TaskError) as error:
            generate_games(folder, SPEC, workers=1, progress=False)
        return str(error.value)

    original = game.read_bytes()
    game.write_bytes(original.replace(b"agent1", b"agent2"))
    assert "differ" in refusal()
    game.unlink()
    assert "17 games" in refusal()
    game.write_bytes(original)
    generate_games(folder, SPEC, workers=1, progress=False)
    (folder / MANIFEST).write_text('{"made_from": ')
    assert "delete the folder" in refusal()


def test_a_folder_with_other_things_in_it_is_refused(tmp_path):
    (tmp_path / "json_2.1.1").mkdir()
    with pytest.raises(ConfigError, match="not made by this generator"):
        generate_games(tmp_path, SPEC, workers=1, progress=False)
