# SPDX-License-Identifier: Apache-2.0
"""Finding and reading ALFWorld game files. No engine: the files only have to look like games."""

from __future__ import annotations

import json

import pytest

from agent_system.environments.alfworld.games import alfworld_panel, find_games, read_game, task_kind
from agent_system.environments.alfworld.rooms import TaskKind
from agent_system.errors import ConfigError, TaskError

GAME = {"pddl_domain": "d", "grammar": "g", "pddl_problem": "p", "solvable": True, "walkthrough": []}
PICK = "pick_and_place_simple-Mug-None-Shelf-1"


def add_game(data_dir, name=f"train/{PICK}/trial_1", game=GAME, kind="pick_and_place_simple"):
    folder = data_dir / "json_2.1.1" / name
    folder.mkdir(parents=True)
    (folder / "game.tw-pddl").write_text(game if isinstance(game, str) else json.dumps(game))
    if kind is not None:
        (folder / "traj_data.json").write_text(json.dumps({"task_type": kind}))
    return folder / "game.tw-pddl"


def test_games_are_found_sorted_with_their_kind(tmp_path):
    for name, kind in ((f"{PICK}/trial_2", "pick_and_place_simple"), ("b/trial_1", "pick_two_obj_and_place")):
        add_game(tmp_path, f"train/{name}", kind=kind)
    add_game(tmp_path, f"valid_seen/{PICK}/trial_9")
    games = find_games(tmp_path, "train")
    assert [game.task_id for game in games] == ["train/b/trial_1", f"train/{PICK}/trial_2"]
    assert [game.kind for game in games] == [TaskKind.PICK_TWO, TaskKind.PICK_AND_PLACE]


def test_what_the_original_leaves_out_is_left_out(tmp_path):
    kept = add_game(tmp_path)
    add_game(tmp_path, "train/pick_and_place_with_movable_recep-X/trial_1", kind="pick_and_place_with_movable_recep")
    add_game(tmp_path, "train/pick_and_place_simple-AppleSliced-None-Fridge-1/trial_1")
    add_game(tmp_path, f"train/{PICK}/trial_unsolvable", {**GAME, "solvable": False})
    add_game(tmp_path, f"train/{PICK}/trial_unmarked", {k: v for k, v in GAME.items() if k != "solvable"})
    add_game(tmp_path, "train/other/trial_1", kind="some_other_task")
    assert [game.path for game in find_games(tmp_path, "train")] == [kept.resolve()]


def test_words_in_the_path_above_the_data_folder_do_not_count(tmp_path):
    add_game(tmp_path / "movable")
    assert len(find_games(tmp_path / "movable", "train")) == 1


def test_the_kind_falls_back_to_the_folder_name(tmp_path):
    assert task_kind(add_game(tmp_path, kind=None)) is TaskKind.PICK_AND_PLACE
    assert task_kind(add_game(tmp_path, "train/mystery/trial_1", kind=None)) is None


def test_an_empty_folder_is_refused_with_the_path_and_the_override(tmp_path, monkeypatch):
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path / "nowhere"))
    for data_dir in (tmp_path, None):
        with pytest.raises(ConfigError, match=r"env\.alfworld\.data_dir=.*ALFWORLD_DATA") as refusal:
            find_games(data_dir, "valid_unseen")
        looked_at = (data_dir or tmp_path / "nowhere") / "json_2.1.1" / "valid_unseen"
        assert str(looked_at) in str(refusal.value) and "0 playable" in str(refusal.value)


def test_a_missing_held_out_split_is_refused_with_one_that_is_there(tmp_path):
    """The CPU profile evaluates on valid_unseen, and a download may hold the other one alone."""
    add_game(tmp_path)
    add_game(tmp_path, f"valid_seen/{PICK}/trial_9")
    with pytest.raises(ConfigError, match=r"no split valid_unseen.*Try: env.alfworld.eval_dataset=valid_seen"):
        find_games(tmp_path, "valid_unseen")


def test_no_folder_at_all_is_refused(monkeypatch):
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    with pytest.raises(ConfigError, match="no ALFWorld data folder"):
        find_games(None, "train")


def test_the_environment_variable_is_used(tmp_path, monkeypatch):
    add_game(tmp_path)
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    assert len(find_games(None, "train")) == 1


@pytest.mark.parametrize(
    ("game", "reason"),
    [
        (json.dumps(GAME)[:40], "not valid JSON"),
        ("", "not valid JSON"),
        ("[1, 2]", "needed, not a list"),
        ({**GAME, "pddl_problem": 5}, "'pddl_problem'"),
        ({"solvable": True}, "'pddl_domain', 'grammar', 'pddl_problem'"),
    ],
)
def test_a_corrupt_game_is_an_error_and_never_skipped(tmp_path, game, reason):
    add_game(tmp_path)
    corrupt = add_game(tmp_path, f"train/{PICK}/trial_2", game)
    for read in (lambda: find_games(tmp_path, "train"), lambda: read_game(corrupt)):
        with pytest.raises(TaskError, match=reason) as refusal:
            read()
        assert str(corrupt) in str(refusal.value)


@pytest.mark.parametrize("solvable", [False, None, "yes", 1])
def test_a_game_not_marked_solvable_cannot_be_played(tmp_path, solvable):
    with pytest.raises(TaskError, match="'solvable'"):
        read_game(add_game(tmp_path, game={**GAME, "solvable": solvable}))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TaskError, match="game.tw-pddl: cannot be read"):
        read_game(tmp_path / "game.tw-pddl")


@pytest.mark.parametrize("trajectory", ["{", "{}", "[]", '{"task_type": 3}'])
def test_a_corrupt_trajectory_is_named(tmp_path, trajectory):
    game = add_game(tmp_path)
    (game.parent / "traj_data.json").write_text(trajectory)
    with pytest.raises(TaskError, match="traj_data.json"):
        task_kind(game)


def test_a_panel_is_the_same_wherever_the_data_lies(tmp_path):
    panels = []
    for folder in (tmp_path / "a", tmp_path / "b" / "c"):
        add_game(folder)
        add_game(folder, f"train/{PICK}/trial_2", {**GAME, "grammar": "other"})
        panels.append(alfworld_panel(folder, "train"))
    assert panels[0].digest == panels[1].digest
    assert panels[0][1].task_id == f"train/{PICK}/trial_2"
    assert panels[0][1].options["game_file"].startswith(str(tmp_path / "a"))
    (tmp_path / "a" / "json_2.1.1" / panels[0][1].task_id / "game.tw-pddl").write_text(json.dumps(GAME))
    assert alfworld_panel(tmp_path / "a", "train").digest != panels[1].digest
