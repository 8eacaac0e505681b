# SPDX-License-Identifier: Apache-2.0
"""Generated games as files: determinism, limits and wording, without the engine."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from alfworld.agents.utils.misc import Demangler
from hypothesis import example, given
from hypothesis import strategies as st

from agent_system.environments.alfworld import rooms
from agent_system.environments.alfworld.game_spec import SPLITS, GameSpec
from agent_system.environments.alfworld.generate import main, make_candidate
from agent_system.environments.alfworld.problem import display_names
from agent_system.environments.alfworld.rooms import HELD_OUT_SCENES, PUBLISHED_UNSEEN_SCENES, RoomLimits, TaskKind
from agent_system.errors import ConfigError

PRINT_DIGEST = """
import hashlib
from agent_system.environments.alfworld.game_spec import GameSpec
from agent_system.environments.alfworld.generate import make_candidate
digest = hashlib.sha256()
for index in range(24):
    files = make_candidate(GameSpec(seed=5), "valid_unseen", index, 0)
    digest.update(files.game + files.trajectory + files.folder.encode() + files.trial.encode() if files else b"none")
print(digest.hexdigest())
"""
kinds = st.sampled_from(list(TaskKind))


def make_room(kind: TaskKind, seed: int, limits: RoomLimits):
    """A furnished room, its goal and the generator's state; None where the draw gave no room."""
    rng = random.Random(seed)
    scene = rng.choice([s for s in rooms.scenes() if rooms.goals(s, kind)])
    goal = rng.choice(rooms.goals(scene, kind))
    room = rooms.furnish(scene, goal, limits, rng)
    return None if room is None else (room, goal)


def test_games_do_not_depend_on_the_hash_seed_of_the_process():
    root = Path(__file__).resolve().parents[2]
    digests = {
        subprocess.run(
            [sys.executable, "-c", PRINT_DIGEST],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_seed_split_index_and_attempt_all_change_the_game():
    def digest(seed=0, split="train", index=0, attempt=0):
        return hashlib.sha256(make_candidate(GameSpec(seed=seed), split, index, attempt).game).hexdigest()

    digests = [digest(), digest(seed=1), digest(split="valid_seen"), digest(index=6), digest(attempt=1)]
    assert len(set(digests)) == len(digests)
    assert digest() == digests[0]


@given(kind=kinds, seed=st.integers(0, 10**6), low=st.integers(4, 7), extra=st.integers(0, 4), most=st.integers(1, 3))
# Five homes were once found for a room of four: three objects to clean, a sink and a destination.
@example(kind=TaskKind.PICK_CLEAN, seed=7, low=4, extra=0, most=3)
def test_rooms_keep_to_their_limits(kind, seed, low, extra, most):
    limits = RoomLimits((low, low + extra), same_kind=2, objects_per_receptacle=most, max_instances=most)
    made = make_room(kind, seed, limits)
    if made is None:
        return
    room, goal = made
    assert len(room.receptacles) <= low + extra
    assert max(Counter(r.kind for r in room.receptacles).values()) <= 2
    spots = [r.location for r in room.receptacles]
    assert len(set(spots)) == len(spots) and room.start not in spots
    wanted = 2 if goal.kind is TaskKind.PICK_TWO else 1
    assert wanted <= sum(t.kind == goal.target for t in room.things) <= max(wanted, most)
    assert {t.home for t in room.things} <= {r.id for r in room.receptacles}
    for receptacle in room.receptacles:
        held = [t.kind for t in room.things if t.home == receptacle.id]
        assert len(held) <= most or set(held) <= {goal.target, rooms.LAMP}


@given(kind=kinds, seed=st.integers(0, 10**6), full_size=st.booleans())
def test_no_goal_holds_at_the_start(kind, seed, full_size):
    made = make_room(kind, seed, RoomLimits(None if full_size else (5, 9), 2, 3, 2))
    if made is None:
        return
    room, goal = made
    homes = {room.receptacle(t.home).kind for t in room.things if t.kind == goal.target}
    assert homes and goal.destination not in homes


@given(seed=st.integers(0, 10**6), kind=kinds)
def test_names_are_those_that_alfworld_gives(seed, kind):
    made = make_room(kind, seed, RoomLimits(None, 2, 3, 3))
    if made is None:
        return
    ids = [x.id for x in (*made[0].receptacles, *made[0].things)]
    substitutions = (("-", "_minus_"), ("|", "_bar_"), ("+", "_plus_"), (".", "_dot_"))
    mangled = {}
    for thor_id in ids:
        text = thor_id.lower()
        for sign, word in substitutions:
            text = text.replace(sign, word)
        mangled[thor_id] = text
    theirs = Demangler(game_infos={m: SimpleNamespace(id=m) for m in mangled.values()})
    assert display_names(ids) == {i: theirs.demangle_alfred_name(m).strip() for i, m in mangled.items()}


def test_splits_keep_their_scenes_apart_and_share_the_kinds_evenly():
    spec = GameSpec()
    for split in SPLITS:
        games = [make_candidate(spec, split, index, 0) for index in range(60)]
        scenes = {int(g.folder.rsplit("-", 1)[1]) for g in games if g}
        assert scenes <= HELD_OUT_SCENES if split == "valid_unseen" else not scenes & HELD_OUT_SCENES
        counts = Counter(json.loads(g.trajectory)["task_type"] for g in games if g)
        assert set(counts) == {k.value for k in TaskKind}
    assert PUBLISHED_UNSEEN_SCENES < HELD_OUT_SCENES


def test_an_impossible_spec_is_refused_with_every_problem_and_option():
    with pytest.raises(ConfigError) as refusal:
        GameSpec(receptacles=(3, 2), max_instances=0, train=-1)
    assert all(text in str(refusal.value) for text in ("--receptacles 4-6", "--max-instances", "train=-1"))


def test_the_command_shows_task_types_as_they_are_typed(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0 and "TaskKind" not in text
    assert all(kind.value in text for kind in TaskKind)
    with pytest.raises(SystemExit):
        main(["--out", "games", "--task-types", "juggle"])
    assert "argument --task-types: juggle is not one of pick_and_place_simple, " in capsys.readouterr().err
