# SPDX-License-Identifier: Apache-2.0
"""From a furnished room and a goal to the files of one ALFWorld game: PDDL problem, task sentence, walkthrough.

The formats are those of the published games (`game.tw-pddl` and `traj_data.json`); the PDDL domain, the text grammar
and the goal templates are read from the installed alfworld package.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from alfworld.gen import constants
from alfworld.gen.goal_library import gdict
from alfworld.info import ALFRED_PDDL_PATH, ALFRED_TWL2_PATH

from agent_system.environments.alfworld.rooms import (
    LAMP,
    RECEPTACLE_KINDS,
    TOOLS,
    Goal,
    Receptacle,
    Room,
    TaskKind,
    Thing,
)

GENERATOR = "hiper"
_TASK_PLACEHOLDER = "UNKNOWN GOAL"
_MANGLED = (("-", "_minus_"), ("|", "_bar_"), ("+", "_plus_"), (".", "_dot_"), (",", "_comma_"))
_PROPERTIES = (
    ("cleanable", "Cleanable"),
    ("heatable", "Heatable"),
    ("coolable", "Coolable"),
    ("toggleable", "Toggleable"),
    ("sliceable", "Sliceable"),
)


@dataclass(frozen=True)
class GameFiles:
    """One game as it is written to disk: `<split>/<folder>/<trial>/{game.tw-pddl,traj_data.json}`."""

    folder: str
    trial: str
    game: bytes
    trajectory: bytes
    walkthrough: tuple[str, ...]


def compose(room: Room, goal: Goal, trial: str, rng: random.Random) -> GameFiles:
    """The files of the game in which `goal` is to be reached in `room`. `rng` picks the wording of the task."""
    look = goal.kind is TaskKind.LOOK_AT_IN_LIGHT
    template = rng.choice(gdict[goal.kind.value]["templates"])
    task = template.format(obj=goal.target.lower(), recep=goal.destination.lower(), toggle=goal.destination.lower())
    steps = walkthrough(room, goal)
    game = {
        "pddl_domain": _text(ALFRED_PDDL_PATH),
        "grammar": _text(ALFRED_TWL2_PATH).replace(_TASK_PLACEHOLDER, task),
        "pddl_problem": pddl_problem(room, goal, trial),
        "solvable": True,
        "walkthrough": list(steps),
    }
    trajectory = {
        "task_type": goal.kind.value,
        "task_id": trial,
        "generator": GENERATOR,
        "scene": {"scene_num": room.scene, "floor_plan": f"FloorPlan{room.scene}"},
        "pddl_params": {
            "object_target": goal.target,
            "parent_target": "" if look else goal.destination,
            "toggle_target": goal.destination if look else "",
            "mrecep_target": "",
            "object_sliced": False,
        },
        "turk_annotations": {"anns": [{"task_desc": task, "high_descs": []}]},
    }
    return GameFiles(
        folder=f"{goal.kind.value}-{goal.target}-None-{goal.destination}-{room.scene}",
        trial=trial,
        game=json.dumps(game).encode(),
        trajectory=json.dumps(trajectory).encode(),
        walkthrough=steps,
    )


def pddl_problem(room: Room, goal: Goal, name: str) -> str:
    """The PDDL problem in alfworld's `alfred` domain. Every list is sorted: the text depends on the room only."""
    object_kinds = sorted(constants.OBJECTS_SET - set(RECEPTACLE_KINDS))
    present = sorted({t.kind for t in room.things})
    locations = sorted({r.location for r in room.receptacles} | {room.start})
    things = sorted(room.things, key=lambda t: t.id)
    receptacles = sorted(room.receptacles, key=lambda r: r.id)

    declarations = [
        "agent1 - agent",
        *(f"{kind} - object" for kind in object_kinds),
        *(f"{kind}Type - otype" for kind in sorted({*object_kinds, *present})),
        *(f"{kind}Type - rtype" for kind in RECEPTACLE_KINDS),
        *(f"{_mangle(t.id)} - object" for t in things),
        *(f"{_mangle(r.id)} - receptacle" for r in receptacles),
        *(f"{_mangle(location)} - location" for location in locations),
    ]
    portable = [t for t in things if t.kind != LAMP]
    facts = [
        *(f"receptacleType {_mangle(r.id)} {r.kind}Type" for r in receptacles),
        *(f"objectType {_mangle(t.id)} {t.kind}Type" for t in things),
        *(
            f"canContain {kind}Type {held}Type"
            for kind in sorted({r.kind for r in receptacles})
            for held in present
            if held in constants.VAL_RECEPTACLE_OBJECTS.get(kind, ())
        ),
        *(f"pickupable {_mangle(t.id)}" for t in portable),
        *(f"isReceptacleObject {_mangle(t.id)}" for t in portable if t.kind in constants.MOVABLE_RECEPTACLES_SET),
        *(f"openable {_mangle(r.id)}" for r in receptacles if r.openable),
        f"atLocation agent1 {_mangle(room.start)}",
        *(
            f"{predicate} {_mangle(t.id)}"
            for predicate, action in _PROPERTIES
            for t in things
            if t.kind in constants.VAL_ACTION_OBJECTS[action]
        ),
        *(f"inReceptacle {_mangle(t.id)} {_mangle(t.home)}" for t in things),
        *(f"receptacleAtLocation {_mangle(r.id)} {_mangle(r.location)}" for r in receptacles),
        *(f"objectAtLocation {_mangle(t.id)} {_mangle(room.receptacle(t.home).location)}" for t in things),
    ]
    goal_pddl = gdict[goal.kind.value]["pddl"].format(obj=goal.target, recep=goal.destination, toggle=goal.destination)
    indent = "\n        "
    return (
        f"\n(define (problem plan_{name})\n(:domain alfred)\n(:objects{indent}{indent.join(declarations)}{indent})\n\n"
        f"(:init{indent}{indent.join(f'({fact})' for fact in facts)}{indent})\n{goal_pddl.replace('#', '-')}"
    )


def display_names(ids: list[str]) -> dict[str, str]:
    """What the player sees instead of AI2-THOR ids: ``Drawer|+01.00|...`` is called ``drawer 2``.

    alfworld sorts the mangled, lower-case ids and numbers each kind downwards: the first id gets the highest number.
    """
    names: dict[str, str] = {}
    counts: dict[str, int] = {}
    for thor_id in sorted(ids, key=lambda i: _mangle(i).lower(), reverse=True):
        kind = thor_id.split("|")[0].lower() + ("basin" if "basin" in thor_id.lower() else "")
        counts[kind] = counts.get(kind, 0) + 1
        names[thor_id] = f"{kind} {counts[kind]}"
    return names


def walkthrough(room: Room, goal: Goal) -> tuple[str, ...]:
    """Commands that win the game, found with full knowledge of the room."""
    tour = _Tour(room)
    targets = sorted((t for t in room.things if t.kind == goal.target), key=lambda t: t.id)
    if goal.kind is TaskKind.LOOK_AT_IN_LIGHT:
        lamp = next(t for t in room.things if t.kind == goal.destination)
        tour.take(targets[0])
        tour.use(lamp)
        return tuple(tour.commands)
    destination = next(r for r in room.receptacles if r.kind == goal.destination)
    for target in targets[: 2 if goal.kind is TaskKind.PICK_TWO else 1]:
        tour.take(target)
        if goal.kind in TOOLS:
            tool = TOOLS[goal.kind]
            tour.treat(tool.verb, target, next(r for r in room.receptacles if r.kind == tool.receptacle))
        tour.put(target, destination)
    return tuple(tour.commands)


class _Tour:
    """Writes commands while keeping track of the player's place and of what is open."""

    def __init__(self, room: Room):
        self.commands: list[str] = []
        self._room = room
        self._names = display_names([*(x.id for x in room.receptacles), *(x.id for x in room.things)])
        self._location = room.start
        self._open: set[str] = set()

    def take(self, thing: Thing) -> None:
        home = self._room.receptacle(thing.home)
        self._reach(home, inside=True)
        self.commands.append(f"take {self._names[thing.id]} from {self._names[home.id]}")

    def put(self, thing: Thing, receptacle: Receptacle) -> None:
        self._reach(receptacle, inside=True)
        self.commands.append(f"move {self._names[thing.id]} to {self._names[receptacle.id]}")

    def treat(self, verb: str, thing: Thing, receptacle: Receptacle) -> None:
        self._reach(receptacle, inside=False)
        self.commands.append(f"{verb} {self._names[thing.id]} with {self._names[receptacle.id]}")

    def use(self, lamp: Thing) -> None:
        self._reach(self._room.receptacle(lamp.home), inside=True)
        self.commands.append(f"use {self._names[lamp.id]}")

    def _reach(self, receptacle: Receptacle, inside: bool) -> None:
        if self._location != receptacle.location:
            self.commands.append(f"go to {self._names[receptacle.id]}")
            self._location = receptacle.location
        if inside and receptacle.openable and receptacle.id not in self._open:
            self.commands.append(f"open {self._names[receptacle.id]}")
            self._open.add(receptacle.id)


def _mangle(text: str) -> str:
    for sign, word in _MANGLED:
        text = text.replace(sign, word)
    return text


@cache
def _text(path: str) -> str:
    return Path(path).read_text("utf-8")
