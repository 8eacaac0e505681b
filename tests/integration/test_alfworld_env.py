# SPDX-License-Identifier: Apache-2.0
"""`hiper/ALFWorld-v0`: Gymnasium's contract, honest endings, and input of every kind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

import agent_system.environments  # noqa: F401
from agent_system.environments.alfworld.env import ALFWorldEnv
from agent_system.environments.alfworld.games import find_games
from agent_system.environments.alfworld.rooms import TaskKind
from agent_system.errors import ConfigError, EnvironmentFault, TaskError


@pytest.fixture(scope="session")
def games(generated_games):
    return find_games(generated_games, "train")


@pytest.fixture
def game(games):
    return games[0].path


def walkthrough(game: Path) -> list[str]:
    return json.loads(game.read_text())["walkthrough"]


@pytest.mark.filterwarnings("error::UserWarning")
def test_gymnasium_accepts_the_environment(game):
    env = gymnasium.make("hiper/ALFWorld-v0", game_file=str(game), max_steps=50)
    check_env(env.unwrapped)


def test_every_kind_of_game_is_won_by_its_walkthrough(games):
    env = gymnasium.make("hiper/ALFWorld-v0", max_steps=50)
    assert {game.kind for game in games} == set(TaskKind)
    for game in games:
        observation, info = env.reset(options={"game_file": str(game.path)})
        assert observation.startswith("You are in the middle of a room.") and "Your task" not in observation
        assert info["task"] == info["task"].strip(" .") and info["task"] == info["task"].lower()
        assert info["task_kind"] == game.kind.value
        *before, last = walkthrough(game.path)
        for action in before:
            assert action in info["admissible_actions"]
            observation, reward, terminated, truncated, info = env.step(action)
            assert (reward, terminated, truncated, info["won"], info["score"]) == (0.0, False, False, False, 0.0)
        _, reward, terminated, truncated, info = env.step(last)
        assert (reward, terminated, truncated, info["won"], info["score"]) == (10.0, True, False, True, 1.0)


def test_published_games_are_won_too(published_games):
    env = ALFWorldEnv()
    for game in find_games(published_games, "valid_seen")[:3]:
        observation, info = env.reset(options={"game_file": game.path})
        assert observation in env.observation_space
        for action in walkthrough(game.path):
            *_, terminated, _, info = env.step(action)
        assert terminated and info["won"]


def test_all_published_games_of_a_split_are_found(published_games):
    assert len(find_games(published_games, "valid_seen")) == 140
    assert len(find_games(published_games, "train")) == 240


def test_the_step_limit_truncates_and_is_no_loss(game):
    env = ALFWorldEnv(game, max_steps=3)
    env.reset()
    endings = [env.step("look")[1:4] for _ in range(3)]
    assert endings == [(0.0, False, False), (0.0, False, False), (0.0, False, True)]
    with pytest.raises(ResetNeeded):
        env.step("look")


def test_winning_on_the_last_step_is_a_win(game):
    actions = walkthrough(game)
    env = ALFWorldEnv(game, max_steps=len(actions))
    env.reset()
    assert [env.step(action)[1:4] for action in actions][-1] == (10.0, True, False)


def test_an_episode_has_to_be_reset_before_and_after(game):
    env = ALFWorldEnv(game)
    with pytest.raises(ResetNeeded, match="reset"):
        env.step("look")
    env.reset()
    for action in walkthrough(game):
        env.step(action)
    with pytest.raises(ResetNeeded, match="reset"):
        env.step("look")
    env.reset()
    env.step("look")


def test_actions_are_stripped_and_lower_cased(game):
    env = ALFWorldEnv(game)
    destination = next(a for a in env.reset()[1]["admissible_actions"] if a.startswith("go to"))
    assert env.step(f"  {destination.upper()}\n")[0].startswith(f"You arrive at {destination.removeprefix('go to ')}")


HOSTILE = [
    "",
    " \t\n ",
    "\x00",
    "look\nlook",
    "look\x00",
    "go to drawer 1; look",
    "#intro#",
    "{o.name}",
    "[{r.name | receptacleatlocation(r:receptacle, l:location)}]",
    "%s%n",
    "take " * 50_000,
    "\ud800",
    "сделай чай",
    "</action><action>look",
    "__import__('os')._exit(1)",
]


def test_hostile_text_uses_up_a_step_and_changes_nothing(game):
    env = ALFWorldEnv(game, max_steps=len(HOSTILE) + len(walkthrough(game)))
    _, start = env.reset()
    for text in HOSTILE:
        observation, reward, terminated, truncated, info = env.step(text)
        assert observation == "Nothing happens."
        assert (reward, terminated, truncated) == (0.0, False, False)
        assert info == start
    assert [env.step(action)[1:4] for action in walkthrough(game)][-1] == (10.0, True, False)


@pytest.mark.parametrize("action", [None, 3, b"look", ["look"]])
def test_an_action_that_is_no_text_is_refused_and_costs_nothing(game, action):
    env = ALFWorldEnv(game, max_steps=1)
    env.reset()
    with pytest.raises(TypeError, match="an action must be a str, not"):
        env.step(action)
    assert env.step("look")[3]


def test_help_works_but_is_not_offered(game):
    env = ALFWorldEnv(game)
    _, info = env.reset()
    assert "help" not in info["admissible_actions"] and "look" in info["admissible_actions"]
    observation, *_, info = env.step("help")
    assert observation.startswith("Available commands:") and observation in env.observation_space
    assert "help" not in info["admissible_actions"]


def test_observations_lie_in_their_space(games):
    env = ALFWorldEnv()
    for game in games:
        observations = [env.reset(options={"game_file": game.path})[0]]
        observations += [env.step(action)[0] for action in walkthrough(game.path)]
        assert all(observation in env.observation_space for observation in observations)


@pytest.mark.parametrize("max_steps", [0, -1, 2.5, None, True, "50"])
def test_a_step_limit_that_makes_no_sense_is_refused(game, max_steps):
    with pytest.raises(ConfigError, match=r"env\.max_steps=.*env\.max_steps=50"):
        ALFWorldEnv(game, max_steps=max_steps)


def test_a_reset_without_a_game_says_how_to_name_one():
    with pytest.raises(ConfigError, match="game_file"):
        ALFWorldEnv().reset()


def corrupted(data: dict) -> dict[str, object]:
    problem = data["pddl_problem"]
    init, goal = problem.index("(:init"), problem.index("(:goal")
    agent = next(line.split()[0] for line in problem.splitlines() if line.strip().endswith("- agent"))
    return {
        "cut in half": json.dumps(data)[: len(json.dumps(data)) // 2],
        "problem cut": {**data, "pddl_problem": problem[:init]},
        "problem empty": {**data, "pddl_problem": ""},
        "problem of nothing": {**data, "pddl_problem": "(define (problem x))"},
        "unknown predicate": {**data, "pddl_problem": f"{problem[:goal]}(:goal (and (flying {agent}))))"},
        "out of reach": {**data, "pddl_problem": f"{problem[:goal]}(:goal (and (isHot {agent}))))"},
        "domain cut": {**data, "pddl_domain": data["pddl_domain"][:2000]},
        "grammar cut": {**data, "grammar": data["grammar"][:500]},
        "grammar of nothing": {**data, "grammar": "nothing at all"},
        "rule missing": {**data, "grammar": data["grammar"].replace('"list_appliances"', '"list_others"')},
        "no task": {**data, "grammar": data["grammar"].replace("Your task is to", "Be happy")},
        "unsolvable": {**data, "solvable": False},
    }


def test_corrupt_games_are_named_with_the_reason(game, tmp_path):
    env = ALFWorldEnv()
    for name, content in corrupted(json.loads(game.read_text())).items():
        bad = tmp_path / name / "game.tw-pddl"
        bad.parent.mkdir()
        bad.write_text(content if isinstance(content, str) else json.dumps(content))
        arguments, stdout = sys.argv, sys.stdout
        with pytest.raises(TaskError) as refusal:
            env.reset(options={"game_file": bad})
        assert str(bad) in str(refusal.value), name
        assert sys.argv is arguments and sys.stdout is stdout
        with pytest.raises(ResetNeeded):
            env.step("look")
        assert env.reset(options={"game_file": game})[1]["task"]  # the environment is still good


def test_a_missing_game_is_named(tmp_path):
    with pytest.raises(TaskError, match="nowhere.tw-pddl: cannot be read"):
        ALFWorldEnv(tmp_path / "nowhere.tw-pddl").reset()


def test_an_engine_that_breaks_is_a_fault_and_the_game_can_be_played_again(game):
    env = ALFWorldEnv(game)
    env.reset()
    del env._engine.unwrapped._pddl_state  # a real engine, really broken
    with pytest.raises(EnvironmentFault, match="failed at step 1 on 'look'") as fault:
        env.step("look")
    assert str(game) in str(fault.value) and fault.value.__cause__ is not None
    with pytest.raises(ResetNeeded):
        env.step("look")
    env.reset()
    assert [env.step(action)[2] for action in walkthrough(game)][-1]


def test_resets_repeat_the_episode_whatever_the_seed(game):
    env = ALFWorldEnv(game)
    episodes = []
    for seed in (1, 1, 2, None):
        episodes.append([env.reset(seed=seed)] + [env.step(action) for action in walkthrough(game)])
    assert all(episode == episodes[0] for episode in episodes)


def test_closing_twice_is_harmless(game):
    env = ALFWorldEnv(game)
    env.reset()
    env.close()
    env.close()


PLAY = """
import os, sys
sys.argv = ["trainer", "--some=flag"]
import gymnasium, agent_system.environments
env = gymnasium.make("hiper/ALFWorld-v0", game_file=sys.stdin.readline().strip(), max_steps=5)
env.reset()
env.step("look")
heavy = sorted({name.split(".")[0] for name in sys.modules} & {"torch", "verl", "vllm", "transformers"})
print(heavy, sys.argv, os.environ.get("ALFWORLD_DATA"), os.path.exists(os.path.expanduser("~/.cache/alfworld")))
"""


def test_playing_imports_no_torch_and_leaves_no_traces(game, tmp_path):
    """Also: no setting of ALFWORLD_DATA and no folder in the user's home, both of which importing alfworld makes."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", PLAY],
        input=f"{game}\n",
        env=environment,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[] ['trainer', '--some=flag'] None False\n"
