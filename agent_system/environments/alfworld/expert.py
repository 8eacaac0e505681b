# SPDX-License-Identifier: Apache-2.0
"""A scripted expert that plays ALFWorld the way an agent has to: from the text alone, exploring.

It sees the task sentence, the observations and the admissible actions, and nothing else. Its state is a function of
what it has observed, never of what it meant to do, so it can advise in the middle of any player's episode:
after random actions, with the wrong object in hand, or with the right one put down in the wrong place.

Each piece of advice is a plan-execute decision. The sub-goal names the phase of the task and changes with it:
`find X` -> (`clean X` | `heat X` | `cool X`) -> `put X in Y`, or -> `use desklamp`; with two objects, `find second X`
and `put second X in Y` follow.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from agent_system.errors import TaskError
from agent_system.plan_execute.advice import Advice

_TOOLS = {"clean": "sinkbasin", "heat": "microwave", "cool": "fridge"}
_STATES = {"clean": "clean", "hot": "heat", "cool": "cool"}
_UNDOES = {"heat": "cool", "cool": "heat"}

_TASKS = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?:look at (?:an? |the )?|examine the )(?P<target>\w+) (?:under|with) the (?P<lamp>\w+)",
        r"(?:put two|find two) (?P<two>\w+) (?:and put them )?(?:in|on) (?P<destination>\w+)",
        r"put an? (?P<state>clean|hot|cool) (?P<target>\w+) (?:in|on) (?P<destination>\w+)",
        r"(?P<verb>clean|heat|cool) some (?P<target>\w+) and put it (?:in|on) (?P<destination>\w+)",
        r"put (?:an?|some) (?P<target>\w+) (?:in|on) (?P<destination>\w+)",
    )
)
# Before alfworld 0.4: "You arrive at loc 12. On the shelf 1, you see ...", or "The drawer 1 is closed."
_ARRIVE = re.compile(r"You arrive at (?:the )?(?:loc \d+\. (?:On the|The) )?([a-z]+ \d+)")
_CONTENTS = re.compile(r"(?:On the ([a-z]+ \d+)|The ([a-z]+ \d+) is open\. In it), you see ([^.]*)")
_THING = re.compile(r"[a-z]+ \d+")
_TAKE = re.compile(r"You pick up the ([a-z]+ \d+) from the ([a-z]+ \d+)")
_PUT = re.compile(r"You (?:move|put) the ([a-z]+ \d+) (?:to|in/on) the ([a-z]+ \d+)")
_PUT_ACTIONS = ("move {thing} to ", "put {thing} in/on ")
"""Since alfworld 0.4, and before."""
_TREAT = re.compile(r"You (clean|heat|cool) the ([a-z]+ \d+) using")


class Exploration(str, Enum):
    """In which order receptacles are searched."""

    LISTED = "listed"
    """The next place in the list of admissible actions after the agent's own, in a cycle."""
    RANDOM = "random"
    """Any one of those not searched yet."""


@dataclass(frozen=True)
class Intent:
    """A task sentence, understood. `verb` is clean, heat, cool or None; either a destination or a lamp is given."""

    target: str
    count: int = 1
    verb: str | None = None
    destination: str | None = None
    lamp: str | None = None

    @property
    def subgoals(self) -> tuple[str, ...]:
        """The expert's sub-goals for this task, in the order of its phases."""
        search = (f"find {self.target}",)
        if self.lamp:
            return (*search, f"use {self.lamp}")
        treat = (f"{self.verb} {self.target}",) if self.verb else ()
        once = (*search, *treat, f"put {self.target} in {self.destination}")
        again = (f"find second {self.target}", f"put second {self.target} in {self.destination}")
        return (*once, *again) if self.count == 2 else once


def parse_task(task: str) -> Intent:
    """Parses a task sentence. Knows the templates of the six published task types.

    Raises:
        TaskError: the sentence follows none of them.
    """
    for pattern in _TASKS:
        if match := pattern.search(task.lower()):
            parts = match.groupdict()
            return Intent(
                target=parts.get("target") or parts["two"],
                count=2 if parts.get("two") else 1,
                verb=parts.get("verb") or _STATES.get(parts.get("state") or ""),
                destination=parts.get("destination"),
                lamp=parts.get("lamp"),
            )
    raise TaskError(f"the expert cannot parse the task {task!r}: it knows only ALFWorld's six templates")


class Expert:
    """Advice for one episode. Call `observe` on every turn, and `advise` on the turns that need advice.

    Args:
        task: the task sentence.
        exploration: the order in which receptacles are searched.
        rng: draws the order of `Exploration.RANDOM`.
        hasty: forget to clean, heat or cool until the thing was put down at the destination once, to no avail.

    Raises:
        TaskError: the task sentence is not one of ALFWorld's.
    """

    def __init__(self, task: str, exploration: Exploration, rng: random.Random, *, hasty: bool = False):
        self.intent = parse_task(task)
        self._exploration, self._rng = exploration, rng
        self._forgets_treatment = hasty
        self._admissible: tuple[str, ...] = ()
        self._location: str | None = None
        self._held: str | None = None
        self._seen_at: dict[str, str] = {}
        """Receptacle in which each object was seen last; objects in hand are absent."""
        self._came_from: str | None = None
        self._searched: set[str] = set()
        self._treated: set[tuple[str, str]] = set()

    def observe(self, observation: str, admissible: Sequence[str]) -> None:
        """Update the state with the current observation."""
        self._admissible = tuple(admissible)
        if match := _ARRIVE.search(observation):
            self._location = match[1]
        if match := _CONTENTS.search(observation):
            receptacle = match[1] or match[2]
            self._searched.add(receptacle)
            self._seen_at = {thing: at for thing, at in self._seen_at.items() if at != receptacle}
            self._seen_at |= dict.fromkeys(_THING.findall(match[3]), receptacle)
        if match := _TAKE.search(observation):
            self._held, self._came_from = match[1], match[2]
            self._seen_at.pop(match[1], None)
        if match := _PUT.search(observation):
            self._held = None
            self._seen_at[match[1]] = match[2]
            if (_kind(match[1]), _kind(match[2])) == (self.intent.target, self.intent.destination):
                self._forgets_treatment = False
        if match := _TREAT.search(observation):
            verb, thing = match[1], match[2]
            self._treated.add((verb, thing))
            self._treated.discard((_UNDOES.get(verb, ""), thing))

    def advise(self, subgoal: str) -> Advice:
        """What to do now, given the sub-goal in force ("" before the first turn)."""
        next_subgoal, action = self._plan()
        return Advice.towards(next_subgoal, action, subgoal)

    # --- phases ---------------------------------------------------------------------------------------------------

    def _plan(self) -> tuple[str, str]:
        intent, held = self.intent, self._held
        second = "second " if self._delivered() else ""
        if held is None or _kind(held) != intent.target:
            return f"find {second}{intent.target}", self._put_aside(held) if held else self._find()
        if intent.lamp:
            return f"use {intent.lamp}", self._use_lamp()
        if intent.verb and (intent.verb, held) not in self._treated and not self._forgets_treatment:
            return f"{intent.verb} {intent.target}", self._treat(held)
        return f"put {second}{intent.target} in {intent.destination}", self._deliver(held)

    def _find(self) -> str:
        done = set(self._delivered())
        known = sorted(t for t in self._seen_at if _kind(t) == self.intent.target and t not in done)
        here = [t for t in known if f"take {t} from {self._seen_at[t]}" in self._admissible]
        if here:
            return f"take {here[0]} from {self._seen_at[here[0]]}"
        return self._reach(self._seen_at[known[0]]) if known else self._explore()

    def _use_lamp(self) -> str:
        switches = [a for a in self._admissible if a.startswith(f"use {self.intent.lamp} ")]
        if switches:
            return switches[0]
        known = sorted(at for thing, at in self._seen_at.items() if _kind(thing) == self.intent.lamp)
        return self._reach(known[0]) if known else self._explore()

    def _treat(self, held: str) -> str:
        assert self.intent.verb is not None  # else there is nothing to treat
        tool = _TOOLS[self.intent.verb]
        ready = [a for a in self._admissible if a.startswith(f"{self.intent.verb} {held} with {tool} ")]
        return ready[0] if ready else self._go_to_kind(tool)

    def _deliver(self, held: str) -> str:
        delivered = self._delivered()
        if delivered:  # two objects have to end up in the same receptacle
            receptacle = self._seen_at[delivered[0]]
            return self._ways_to_put(held).get(receptacle) or self._reach(receptacle)
        for receptacle, action in self._ways_to_put(held).items():
            if _kind(receptacle) == self.intent.destination:
                return action
        if self._location and _kind(self._location) == self.intent.destination:
            return self._reach(self._location)
        assert self.intent.destination is not None  # only a task with a lamp has none
        return self._go_to_kind(self.intent.destination)

    def _put_aside(self, held: str) -> str:
        """Put down an object that is not needed: here if it fits here, else where it came from."""
        if ways := self._ways_to_put(held):
            return next(iter(ways.values()))
        opening = f"open {self._location}"
        assert self._came_from is not None  # set together with `_held`
        return opening if opening in self._admissible else self._reach(self._came_from)

    def _ways_to_put(self, held: str) -> dict[str, str]:
        """The admissible actions that put the object in hand down, in their order, by receptacle."""
        beginnings = tuple(form.format(thing=held) for form in _PUT_ACTIONS)
        return {
            action.removeprefix(beginning): action
            for action in self._admissible
            for beginning in beginnings
            if action.startswith(beginning)
        }

    def _delivered(self) -> list[str]:
        """Of a task with two objects: those that are in a suitable receptacle, in the best one of them."""
        if self.intent.count == 1:
            return []
        at: dict[str, list[str]] = {}
        for thing, receptacle in sorted(self._seen_at.items()):
            if _kind(thing) == self.intent.target and _kind(receptacle) == self.intent.destination:
                at.setdefault(receptacle, []).append(thing)
        return max(at.values(), key=len, default=[])

    # --- movements ------------------------------------------------------------------------------------------------

    def _reach(self, receptacle: str) -> str:
        """The next step to having `receptacle` open in front of one."""
        for action in (f"open {receptacle}", f"go to {receptacle}"):
            if action in self._admissible:
                return action
        return self._explore()

    def _go_to_kind(self, kind: str) -> str:
        ways = [a for a in self._admissible if a.startswith(f"go to {kind} ")]
        return ways[0] if ways else self._explore()

    def _explore(self) -> str:
        """Looks into the receptacle in front, or walks to one that was not searched yet; starts over after the last."""
        opening = f"open {self._location}"
        if opening in self._admissible and self._location not in self._searched:
            return opening
        ways = [a for a in self._admissible if a.startswith("go to ")]
        fresh = [a for a in ways if a.removeprefix("go to ") not in self._searched]
        if not fresh:
            self._searched.clear()
            fresh = ways
        if not fresh:
            return self._admissible[0] if self._admissible else "look"
        if self._exploration is Exploration.RANDOM:
            return self._rng.choice(fresh)
        later = [a for a in fresh if a > f"go to {self._location or ''}"]
        return (later or fresh)[0]


def _kind(name: str) -> str:
    """``drawer`` of ``drawer 2``."""
    return name.rsplit(" ", 1)[0]
