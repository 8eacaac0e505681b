# SPDX-License-Identifier: Apache-2.0
"""Furnished rooms for generated ALFWorld games, drawn from the floor plans that the alfworld wheel ships.

A floor plan names the receptacles of an AI2-THOR scene with the spot from which each is reached, and the kinds of
objects found there. A room keeps some or all of those receptacles, places objects, and is built around one goal, so
that the goal can be reached and does not hold at the start.

Everything here is a function of a `random.Random`: sets are sorted before anything is drawn from them.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path

import alfworld
from alfworld.gen import constants

from agent_system.errors import TaskError


class TaskKind(str, Enum):
    """The six task types of ALFWorld, by the names that its folders and `traj_data.json` use."""

    PICK_AND_PLACE = "pick_and_place_simple"
    LOOK_AT_IN_LIGHT = "look_at_obj_in_light"
    PICK_CLEAN = "pick_clean_then_place_in_recep"
    PICK_HEAT = "pick_heat_then_place_in_recep"
    PICK_COOL = "pick_cool_then_place_in_recep"
    PICK_TWO = "pick_two_obj_and_place"


@dataclass(frozen=True)
class Tool:
    """What a clean, heat or cool task works with: a receptacle, and the objects it works on."""

    verb: str
    receptacle: str
    objects: Collection[str]


TOOLS: dict[TaskKind, Tool] = {
    TaskKind.PICK_CLEAN: Tool("clean", "SinkBasin", constants.VAL_ACTION_OBJECTS["Cleanable"]),
    TaskKind.PICK_HEAT: Tool("heat", "Microwave", constants.VAL_ACTION_OBJECTS["Heatable"]),
    TaskKind.PICK_COOL: Tool("cool", "Fridge", constants.VAL_ACTION_OBJECTS["Coolable"]),
}

LAMP = "DeskLamp"
"""The only lamp in the tasks of published games."""
LAMP_PLACES = frozenset({"Desk", "SideTable", "Dresser", "CoffeeTable", "Shelf", "TVStand"})
"""Where a lamp is in a generated room: open surfaces, because a lamp cannot be used inside a closed drawer."""

RECEPTACLE_KINDS = tuple(
    sorted(
        set(constants.RECEPTACLES) - constants.MOVABLE_RECEPTACLES_SET - {"PaintingHanger"}
        | {"SinkBasin", "BathtubBasin"}
    )
)
_CAN_HOLD = constants.VAL_RECEPTACLE_OBJECTS
PORTABLE_KINDS = frozenset().union(*_CAN_HOLD.values()) - frozenset(RECEPTACLE_KINDS)

PUBLISHED_UNSEEN_SCENES = frozenset({10, 219, 308, 424})
HELD_OUT_SCENES = PUBLISHED_UNSEEN_SCENES | {
    *(5, 15, 20, 25),  # kitchens
    *(205, 210, 216, 224),  # living rooms
    *(303, 315, 320, 327),  # bedrooms
    *(405, 410, 415, 420),  # bathrooms
}
"""Scenes of valid_unseen: the published four, and sixteen more.

With four scenes alone every held-out lamp task would play in one bedroom and every heat task in one kitchen, and the
success rate of 128 games would say little about rooms in general.
"""

_LAYOUTS = Path(alfworld.__file__).parent / "gen" / "layouts"
_STOVE_BURNERS = 4


@dataclass(frozen=True)
class Receptacle:
    """A piece of furniture. `id` is AI2-THOR's (``Kind|x|y|z``); `location` is the spot it is used from."""

    id: str
    kind: str
    location: str

    @property
    def openable(self) -> bool:
        """Whether it starts closed and has to be opened."""
        return self.kind in constants.OPENABLE_CLASS_SET


@dataclass(frozen=True)
class Thing:
    """An object in or on the receptacle `home` (a receptacle's id)."""

    id: str
    kind: str
    home: str


@dataclass(frozen=True)
class Goal:
    """`kind` of task, object kind `target`, and the receptacle kind (or lamp) that it must get to."""

    kind: TaskKind
    target: str
    destination: str


@dataclass(frozen=True)
class Room:
    """A furnished scene. `start` is a spot from which nothing can be reached."""

    scene: int
    start: str
    receptacles: tuple[Receptacle, ...]
    things: tuple[Thing, ...]

    def receptacle(self, receptacle_id: str) -> Receptacle:
        """The receptacle with this id."""
        return next(r for r in self.receptacles if r.id == receptacle_id)


@dataclass(frozen=True)
class RoomLimits:
    """How large and how crowded a room gets.

    Args:
        receptacles: range of the number of receptacles, both ends included; None keeps the whole floor plan, with
            several receptacles at one spot as in the published games. With a range no two share a spot.
        same_kind: at most this many receptacles of one kind (only with a range).
        objects_per_receptacle: nothing is added to a receptacle that holds this many objects. The goal's own objects
            and the lamp go before the others and are not held back: they alone can be more.
        max_instances: at most this many objects of one kind.
    """

    receptacles: tuple[int, int] | None
    same_kind: int
    objects_per_receptacle: int
    max_instances: int


@dataclass(frozen=True)
class _FloorPlan:
    scene: int
    receptacles: tuple[Receptacle, ...]
    unmapped: tuple[str, ...]
    """Receptacle kinds that the scene has, but for which the layout gives no spot (stove burners, toasters, ...)."""
    portable: tuple[str, ...]
    has_lamp: bool


@cache
def scenes() -> tuple[int, ...]:
    """Numbers of all scenes with a floor plan, ascending."""
    scenes = sorted(int(p.name[len("FloorPlan") : -len("-objects.json")]) for p in _LAYOUTS.glob("*-objects.json"))
    if not scenes:
        raise TaskError(
            f"no floor plans in {_LAYOUTS}: the installed package alfworld is incomplete. Try: pip install "
            "--force-reinstall --no-deps alfworld"
        )
    return tuple(scenes)


def room_category(scene: int) -> str:
    """'Kitchen', 'LivingRoom', 'Bedroom' or 'Bathroom': AI2-THOR numbers scenes by category."""
    for limit, name in ((200, "Kitchen"), (300, "LivingRoom"), (400, "Bedroom")):
        if scene < limit:
            return name
    return "Bathroom"


@cache
def _floor_plan(scene: int) -> _FloorPlan:
    spots = json.loads((_LAYOUTS / f"FloorPlan{scene}-openable.json").read_text("utf-8"))
    kinds = sorted(set(json.loads((_LAYOUTS / f"FloorPlan{scene}-objects.json").read_text("utf-8"))))
    receptacles = []
    for receptacle_id, (x, z, rotation, horizon) in sorted(spots.items()):
        parts = receptacle_id.split("|")
        kind = parts[-1] if parts[-1].endswith("Basin") else parts[0]
        # One layout (scene 420) calls a bathtub's basin a SinkBasin: what reads "bathtubbasin" would clean things.
        if kind in RECEPTACLE_KINDS and kind.removesuffix("Basin") == parts[0]:
            spot = f"loc|{round(x / 0.25)}|{round(z / 0.25)}|{round(rotation / 90) % 4}|{horizon}"
            receptacles.append(Receptacle(receptacle_id, kind, spot))
    mapped = {r.kind for r in receptacles}
    return _FloorPlan(
        scene=scene,
        receptacles=tuple(receptacles),
        unmapped=tuple(k for k in kinds if k in RECEPTACLE_KINDS and k not in mapped),
        portable=tuple(k for k in kinds if k in PORTABLE_KINDS),
        has_lamp=LAMP in kinds,
    )


def goals(scene: int, kind: TaskKind) -> tuple[Goal, ...]:
    """All goals of this kind that a room of this scene can have, in a fixed order. Empty where it has none."""
    if room_category(scene) not in constants.GOALS_VALID[kind.value]:
        return ()
    plan = _floor_plan(scene)
    kinds = sorted({r.kind for r in plan.receptacles} | set(plan.unmapped))
    homes = {t: [k for k in kinds if t in _CAN_HOLD.get(k, ())] for t in plan.portable}
    if kind is TaskKind.LOOK_AT_IN_LIGHT:
        lit = plan.has_lamp and any(k in LAMP_PLACES for k in kinds)
        return tuple(Goal(kind, t, LAMP) for t in plan.portable if homes[t]) if lit else ()
    tool = TOOLS.get(kind)
    if tool and tool.receptacle not in kinds:
        return ()
    return tuple(
        Goal(kind, target, destination)
        for target in plan.portable
        if not tool or target in tool.objects
        for destination in homes[target]
        if len(homes[target]) > 1 and not (tool and destination == tool.receptacle)
    )


def furnish(scene: int, goal: Goal, limits: RoomLimits, rng: random.Random) -> Room | None:
    """A room of this scene in which `goal` can be reached and does not hold yet; None if the draw did not work out."""
    stock = _stock(_floor_plan(scene), rng)
    chosen = _Selection(stock, limits, rng)
    tool = TOOLS.get(goal.kind)
    look = goal.kind is TaskKind.LOOK_AT_IN_LIGHT
    count = 2 if goal.kind is TaskKind.PICK_TWO else 1

    fixed = [goal.destination] if not look else []
    fixed += [tool.receptacle] if tool else []
    if not all(chosen.require({kind}) for kind in fixed):
        return None
    things: list[Thing] = []
    if look:
        place = chosen.require(LAMP_PLACES)
        if place is None:
            return None
        things.append(Thing(_object_id(rng, LAMP), LAMP, place.id))
    homes = {r.kind for r in stock if goal.target in _CAN_HOLD.get(r.kind, ())} - {goal.destination}
    for _ in range(rng.randint(count, max(count, limits.max_instances))):
        home = chosen.require(homes)
        if home is None:
            return None
        things.append(Thing(_object_id(rng, goal.target), goal.target, home.id))
    receptacles = chosen.fill_up()
    things += _distractors(_floor_plan(scene).portable, goal, receptacles, things, limits, rng)
    ids = [*(x.id for x in receptacles), *(x.id for x in things)]
    if len(set(ids)) < len(ids):
        return None
    taken = {r.location for r in receptacles}
    while (start := _spot(rng, 8, (30,))) in taken:
        pass
    return Room(scene, start, receptacles, tuple(things))


class _Selection:
    """Receptacles that a room keeps: first those that its goal needs, then others up to the room's size."""

    def __init__(self, stock: list[Receptacle], limits: RoomLimits, rng: random.Random):
        self._stock, self._limits, self._rng = stock, limits, rng
        self._chosen: list[Receptacle] = list(stock) if limits.receptacles is None else []
        self._size = len(stock) if limits.receptacles is None else rng.randint(*limits.receptacles)

    def require(self, kinds: Collection[str]) -> Receptacle | None:
        """A receptacle of one of `kinds`, newly chosen if need be; None where the room has no spot left for one."""
        options = [r for r in self._stock if r.kind in kinds and (r in self._chosen or self._fits(r))]
        if not options:
            return None
        pick = self._rng.choice(options)
        if pick not in self._chosen:
            self._chosen.append(pick)
        return pick

    def fill_up(self) -> tuple[Receptacle, ...]:
        """Chooses others at random until the room is full, and returns all, ordered by id."""
        others = [r for r in self._stock if r not in self._chosen]
        self._rng.shuffle(others)
        for receptacle in others:
            if self._fits(receptacle):
                self._chosen.append(receptacle)
        return tuple(sorted(self._chosen, key=lambda r: r.id))

    def _fits(self, receptacle: Receptacle) -> bool:
        if len(self._chosen) >= self._size:
            return False
        if sum(r.kind == receptacle.kind for r in self._chosen) >= self._limits.same_kind:
            return False
        return all(r.location != receptacle.location for r in self._chosen)


def _stock(plan: _FloorPlan, rng: random.Random) -> list[Receptacle]:
    """The floor plan's receptacles, with invented coordinates for those that it does not map."""
    stock = list(plan.receptacles)
    for kind in plan.unmapped:
        for _ in range(_STOVE_BURNERS if kind == "StoveBurner" else 1):
            stock.append(Receptacle(_object_id(rng, kind), kind, _spot(rng, 12, (30, 45, 60))))
    return stock


def _distractors(
    portable: tuple[str, ...],
    goal: Goal,
    receptacles: tuple[Receptacle, ...],
    placed: list[Thing],
    limits: RoomLimits,
    rng: random.Random,
) -> list[Thing]:
    """Objects of other kinds than the target's, spread over the room."""
    used = Counter(t.home for t in placed)
    capacity = {r.id: rng.randint(0, limits.objects_per_receptacle) - used[r.id] for r in receptacles}
    kinds = [k for k in portable if k != goal.target for _ in range(rng.randint(1, limits.max_instances))]
    rng.shuffle(kinds)
    things = []
    for kind in kinds:
        homes = [r.id for r in receptacles if capacity[r.id] > 0 and kind in _CAN_HOLD.get(r.kind, ())]
        if homes:
            home = rng.choice(homes)
            capacity[home] -= 1
            things.append(Thing(_object_id(rng, kind), kind, home))
    return things


def _object_id(rng: random.Random, kind: str) -> str:
    """An id with invented coordinates in AI2-THOR's format: ``Kind|x|y|z``; ``Sink|x|y|z|SinkBasin`` for a basin."""
    place = "|".join(f"{value:+06.2f}" for value in (rng.uniform(-3, 3), rng.uniform(0, 2), rng.uniform(-3, 3)))
    fixture = kind.removesuffix("Basin")
    return f"{kind}|{place}" if fixture == kind else f"{fixture}|{place}|{kind}"


def _spot(rng: random.Random, reach: int, horizons: tuple[int, ...]) -> str:
    x, z, turn = rng.randint(-reach, reach), rng.randint(-reach, reach), rng.randint(0, 3)
    return f"loc|{x}|{z}|{turn}|{rng.choice(horizons)}"
