# SPDX-License-Identifier: Apache-2.0
"""The cached engine returns exactly the texts of the stock engine."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections import OrderedDict
from pathlib import Path

import pytest
import textworld
from play_engine import play, stock_engine
from textworld.envs.pddl import PddlEnv

from agent_system.environments.alfworld import engine_cache, game_model
from agent_system.environments.alfworld.engine_cache import CachedPddlEnv, new_engine
from agent_system.environments.alfworld.games import find_games

ASKED = textworld.EnvInfos(won=True, admissible_commands=True)


def first_of_each_kind(data_dir, split):
    games = {game.kind: str(game.path) for game in reversed(find_games(data_dir, split))}
    return sorted(games.values())


def stock_transcripts(games):
    script = Path(__file__).with_name("play_engine.py")
    done = subprocess.run([sys.executable, str(script), *games], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def assert_same_transcripts(games):
    engine = new_engine(ASKED)
    for game, stock in zip(games, stock_transcripts(games), strict=True):
        cached = json.loads(json.dumps(play(engine, game)))
        assert any(entry[-1] for entry in stock), f"the walkthrough of {game} does not win"
        assert cached == stock, game
    engine.close()


def test_transcripts_of_generated_games(generated_games):
    assert_same_transcripts(first_of_each_kind(generated_games, "train"))


def test_transcripts_of_published_games(published_games):
    assert_same_transcripts(first_of_each_kind(published_games, "valid_seen"))


def test_episodes_side_by_side_do_not_touch_each_other(generated_games):
    """Two environments on one game share its model: what one does must not show in the other."""
    game = first_of_each_kind(generated_games, "train")[0]
    alone = play(new_engine(ASKED), game)
    walkthrough = json.loads(Path(game).read_text())["walkthrough"]
    engines = [new_engine(ASKED) for _ in range(3)]
    for engine in engines:
        engine.load(game)
    first, *_ = [engine.reset() for engine in engines]
    together = [[[first.feedback, first.admissible_commands, first.won, False]] for _ in engines]
    for turn in range(len(walkthrough) + 2):  # engine i is i turns behind
        for delay, (engine, transcript) in enumerate(zip(engines, together, strict=True)):
            if 0 <= turn - delay < len(walkthrough):
                command = walkthrough[turn - delay]
                state, _, done = engine.step(command)
                transcript.append([command, state.feedback, state.admissible_commands, state.won, done])
    assert all(transcript == alone[: len(walkthrough) + 1] for transcript in together)


def test_the_same_game_again_is_a_new_episode(generated_games):
    game = first_of_each_kind(generated_games, "train")[1]
    engine = new_engine(ASKED)
    assert play(engine, game) == play(engine, game)


def test_plans_and_facts_are_those_of_the_stock_engine(generated_games):
    """What the expert wrappers of `alfworld` read: plans from the current state, and facts."""
    game = first_of_each_kind(generated_games, "train")[0]
    asked = textworld.EnvInfos(policy_commands=True, facts=True, moves=True, extras=["walkthrough"])
    stock, cached = PddlEnv(asked), CachedPddlEnv(asked)
    for engine in (stock, cached):
        engine.load(game)
    states = [engine.reset() for engine in (stock, cached)]
    for command in ["look", None, None, None]:
        assert states[0].policy_commands and states[0].policy_commands == states[1].policy_commands
        assert set(states[0].facts) == set(states[1].facts)
        assert states[0].moves == states[1].moves
        assert states[0].command_templates == states[1].command_templates
        assert states[0]["extra.walkthrough"] == states[1]["extra.walkthrough"]
        command = command or next(c for c in states[0].admissible_commands if c.startswith(("go", "open", "take")))
        states = [engine.step(command)[0] for engine in (stock, cached)]


def test_a_template_that_an_action_can_change_is_not_remembered(generated_games, tmp_path):
    """A game whose commands name the state of things: the text of `examine` depends on what was opened."""
    template, stateful = 'template :: "examine {r}";', 'template :: "examine #how#{r}";'
    opened = '{"condition": "openable(r:receptacle) & opened(r:receptacle)", "rhs": "open "}'
    rules = '"intro": [', f'"how": [{opened}, {{"rhs": ""}}], "intro": ['
    for game in first_of_each_kind(generated_games, "train"):
        data = json.loads(Path(game).read_text())
        if any(command.startswith("open") for command in data["walkthrough"]):
            break
    assert template in data["grammar"] and rules[0] in data["grammar"]
    data["grammar"] = data["grammar"].replace(template, stateful).replace(*rules)
    changed = tmp_path / "game.tw-pddl"
    changed.write_text(json.dumps(data))
    engine = new_engine(ASKED)
    transcript = play(engine, str(changed))
    assert any("examine open" in command for entry in transcript for command in entry[-3])
    assert transcript == play(stock_engine(), str(changed))


def test_shared_memory_of_games_is_bounded(generated_games, monkeypatch):
    monkeypatch.setattr(game_model, "MODEL_CACHE_SIZE", 2)
    monkeypatch.setattr(game_model, "_models", OrderedDict())
    engine = new_engine(ASKED)
    games = first_of_each_kind(generated_games, "train")
    for game in games:
        engine.load(game)
        engine.reset()
    assert len(game_model._models) == 2
    assert play(engine, games[0]) == play(new_engine(ASKED), games[0])


def test_facts_do_not_pile_up_in_textworlds_global_table(generated_games):
    from mementos.core import _memento_cache

    engine = new_engine(ASKED)
    games = first_of_each_kind(generated_games, "train")
    play(engine, games[0])
    before = len(_memento_cache)
    for game in games[1:]:
        play(engine, game)
    assert len(_memento_cache) - before < 20  # a few predicates; one game has hundreds of facts


def test_the_process_is_left_as_it_was(generated_games):
    arguments, stdout = sys.argv, sys.stdout
    play(new_engine(ASKED), first_of_each_kind(generated_games, "train")[0])
    assert sys.argv is arguments and sys.stdout is stdout


def test_libraries_are_handed_on():
    first, second = CachedPddlEnv(), CachedPddlEnv()
    assert first.downward_lib is not second.downward_lib
    library = first.downward_lib
    first.close()
    first.close()
    assert CachedPddlEnv().downward_lib is library


def test_an_unproven_textworld_gets_the_stock_engine_and_a_warning(monkeypatch):
    monkeypatch.setattr(engine_cache, "PROVEN_VERSIONS", {"textworld": "9.9.9"})
    engine_cache.engine_class.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="textworld 1.7.0 is installed, 9.9.9 is the proven version"):
            assert engine_cache.engine_class() is PddlEnv
    finally:
        engine_cache.engine_class.cache_clear()


def test_the_pinned_textworld_is_a_proven_one():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert engine_cache.version_mismatches() == []
