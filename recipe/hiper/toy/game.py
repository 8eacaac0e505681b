# SPDX-License-Identifier: Apache-2.0
"""The house: a text game of two errands whose clues are read once.

    hall -- landing --+-- passage -- kitchen      A note in the hall names the room where the parcel is. Taking it
                      +-- passage -- study        from any other room loses. The label on it names the room to deliver
                      +-- passage -- cellar       it to; delivering it in any other room loses. The label can be read
                      +-- passage -- attic        until the room is left, and there is no way back to the hall.

Nine turns do it, ten points are paid at the very end, and the prompt has no history. A clue can be used later only
if it was written into the sub-goal: a sub-goal that is kept is the only memory. With `clue_always_visible` every
text repeats the clue of the current errand: it is then the state of a Markov process, and sub-goals are of no use.

The game is a pure function from state and text to state and reward, without randomness; only the task is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from itertools import permutations
from typing import NamedTuple

ROOMS = ("kitchen", "study", "cellar", "attic", "pantry", "nursery", "library", "workshop")
REWARD = 10.0
# The agent reads hashed words (`tables`): other words give other figures than the published ones.
ENTER, ON, BACK, TAKE, DELIVER = "go to the landing", "go on", "go back", "take the parcel", "deliver the parcel"
DOORS = tuple(f"open the {room} door" for room in ROOMS)
TASK = "find the parcel and deliver it"


class Spot(Enum):
    """Where in the house; passages and rooms exist once for each door."""

    HALL = "hall"
    LANDING = "landing"
    PASSAGE = "passage"
    ROOM = "room"


class State(NamedTuple):
    """Everything about the game, also what the player does not see.

    Attributes:
        parcel_in, deliver_to: the task: indices into `ROOMS`, different ones.
        spot: where the player is.
        door: which passage or room; -1 in the hall and on the landing.
        step: how far into the passage, from 1; 0 elsewhere.
        carrying: whether the parcel was taken.
        label_shows: whether the player still is where it was taken.
    """

    parcel_in: int
    deliver_to: int
    spot: Spot = Spot.HALL
    door: int = -1
    step: int = 0
    carrying: bool = False
    label_shows: bool = False


class Outcome(NamedTuple):
    """What an action led to. `state` is the old one where the episode ended or the action was not offered."""

    state: State
    reward: float
    terminated: bool
    admissible: bool


@dataclass(frozen=True)
class House:
    """The rules.

    Attributes:
        clue_always_visible: the Markov variant.
        size: number of rooms, 3 to 8.
        passage: steps from the landing to a room, at least 1. A perfect episode has 6 + 3 * passage turns.
        horizon: turns after which an episode is cut.

    Raises:
        ValueError: no episode can be won within the horizon, or `size` is out of range.
    """

    clue_always_visible: bool = False
    size: int = 4
    passage: int = 1
    horizon: int = 12

    def __post_init__(self) -> None:
        if self.passage < 1:
            raise ValueError(f"passage={self.passage}: at least 1 step is needed. Try: passage=1")
        if self.horizon < self.shortest:
            raise ValueError(
                f"passage={self.passage}, horizon={self.horizon}: at least {self.shortest} turns are needed to win. "
                f"Try: horizon={self.shortest}"
            )
        if not 3 <= self.size <= len(ROOMS):
            raise ValueError(f"size={self.size} is not in 3..{len(ROOMS)}. Try: size=4")

    @property
    def shortest(self) -> int:
        """Turns of the shortest episode that wins."""
        return 6 + 3 * self.passage

    @property
    def actions(self) -> tuple[str, ...]:
        """All actions; most are offered in a few places only."""
        return (ENTER, *DOORS[: self.size], ON, BACK, TAKE, DELIVER)

    @property
    def subgoals(self) -> tuple[str, ...]:
        """What a planner may write: a room, or a text without information."""
        return (*(f"reach the {room}" for room in ROOMS[: self.size]), "look around")

    def tasks(self) -> list[State]:
        """The first state of every task."""
        return [State(*pair) for pair in permutations(range(self.size), 2)]

    def clue(self, state: State) -> int | None:
        """The room that the text names, if it does."""
        if state.carrying:
            return state.deliver_to if state.label_shows or self.clue_always_visible else None
        return state.parcel_in if state.spot is Spot.HALL or self.clue_always_visible else None

    def observe(self, state: State) -> str:
        """What the player reads."""
        where = {Spot.PASSAGE: f"passage {state.step} to the {ROOMS[state.door]}", Spot.ROOM: ROOMS[state.door]}
        text = f"you are in the {where.get(state.spot, state.spot.value)}"
        if state.carrying:
            text += " with the parcel"
        clue = self.clue(state)
        if clue is None:
            return text
        return text + (f" . label : {ROOMS[clue]}" if state.carrying else f" . note : {ROOMS[clue]}")

    def admissible(self, state: State) -> tuple[str, ...]:
        """The actions that do something."""
        if state.spot is Spot.HALL:
            return (ENTER,)
        if state.spot is Spot.LANDING:
            return DOORS[: self.size]
        if state.spot is Spot.PASSAGE:
            return ON, BACK
        return (DELIVER if state.carrying else TAKE), BACK

    def step(self, state: State, action: str) -> Outcome:
        """Carry out an action. One that is not offered, the empty text among them, costs the turn and does nothing."""
        if action not in self.admissible(state):
            return Outcome(state, 0.0, False, False)
        if action == TAKE:
            if state.door != state.parcel_in:
                return Outcome(state, 0.0, True, True)
            return Outcome(state._replace(carrying=True, label_shows=True), 0.0, False, True)
        if action == DELIVER:
            return Outcome(state, REWARD if state.door == state.deliver_to else 0.0, True, True)
        return Outcome(self._walk(state, action)._replace(label_shows=False), 0.0, False, True)

    def _walk(self, state: State, action: str) -> State:
        if action == ENTER:
            return state._replace(spot=Spot.LANDING)
        if action in DOORS:
            return state._replace(spot=Spot.PASSAGE, door=DOORS.index(action), step=1)
        if state.spot is Spot.ROOM:
            return state._replace(spot=Spot.PASSAGE, step=self.passage)
        step = state.step + (1 if action == ON else -1)
        if step == 0:
            return state._replace(spot=Spot.LANDING, door=-1, step=0)
        if step > self.passage:
            return state._replace(spot=Spot.ROOM, step=0)
        return state._replace(step=step)
