# SPDX-License-Identifier: Apache-2.0
"""The house as tables of integers, so that many episodes are played at once.

Nothing is rewritten here: every state, every action and every reply goes once through the game, the prompt renderer and
the one parser of replies (`agent_system.plan_execute`), and their answers are looked up from then on. Sub-goals are
numbered from 1; 0 is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agent_system.plan_execute.prompts import PromptParts, PromptStyle, render_prompt
from agent_system.plan_execute.protocol import decide, parse_flat, parse_reply
from recipe.hiper.toy.game import TASK, House, State

BUCKETS = 512
NONE = 0


def reply_text(house: House, switch: int, subgoal: int, action: int) -> str:
    """A reply in the three blocks; `switch` is 1 for SWITCH, `subgoal` counts from 1."""
    words = ("KEEP", "SWITCH")[switch], subgoal_text(house, subgoal), house.actions[action]
    return "<switch>{}</switch><subgoal>{}</subgoal><action>{}</action>".format(*words)


def subgoal_text(house: House, subgoal: int) -> str:
    """The empty text for none."""
    return house.subgoals[subgoal - 1] if subgoal else ""


@dataclass(frozen=True)
class Tables:
    """The game by number.

    Attributes:
        states: all reachable states; index = number.
        tasks: numbers of the first states.
        next_state, reward, terminated, admissible: `[states, actions]`.
        observation: number of the text of a state, `[states]`: equal for states that read the same.
        clue: room named by the text, -1 for none, `[states]`.
        prompt: number of the prompt, `[observations, subgoals + 1]`; the second index is the sub-goal shown.
        features: `[prompts, words]`, see `features`; buckets that no prompt fills are left out.
    """

    house: House
    states: list[State]
    tasks: NDArray[np.int64]
    next_state: NDArray[np.int64]
    reward: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    admissible: NDArray[np.bool_]
    observation: NDArray[np.int64]
    clue: NDArray[np.int64]
    prompt: NDArray[np.int64]
    features: Tensor


@cache
def compile_house(house: House, plans: bool) -> Tables:
    """Visit every state.

    Args:
        plans: whether prompts show the sub-goal (plan-execute replies) or not (flat replies: the action block alone).
    """
    states = house.tasks()
    actions = [_carried_out_action(house, action, plans) for action in range(len(house.actions))]
    number = {state: index for index, state in enumerate(states)}
    rows = []
    for state in states:  # grows while it is walked
        outcomes = [house.step(state, action) for action in actions]
        for outcome in outcomes:
            if outcome.state not in number:
                number[outcome.state] = len(states)
                states.append(outcome.state)
        rows.append(outcomes)
    texts: dict[str, int] = {}
    offered: list[tuple[str, ...]] = []
    observation = []
    for state in states:
        text = house.observe(state)
        if text not in texts:
            texts[text] = len(texts)
            offered.append(house.admissible(state))
        observation.append(texts[text])
    style = PromptStyle.PLAN_EXECUTE_COMPACT if plans else PromptStyle.FLAT_COMPACT
    prompts: dict[str, int] = {}
    subgoals = range(len(house.subgoals) + 1)
    prompt = np.zeros((len(texts), len(subgoals)), dtype=np.int64)
    for text, index in texts.items():
        for subgoal in subgoals:
            parts = PromptParts(TASK, (), 0, text, subgoal_text(house, subgoal), offered[index])
            prompt[index, subgoal] = prompts.setdefault(render_prompt(style, parts), len(prompts))
    clues = [house.clue(state) for state in states]
    bags = torch.stack([features(text) for text in prompts])
    return Tables(
        house=house,
        states=states,
        tasks=np.arange(len(house.tasks())),
        next_state=np.array([[number[outcome.state] for outcome in row] for row in rows]),
        reward=np.array([[outcome.reward for outcome in row] for row in rows], dtype=np.float32),
        terminated=np.array([[outcome.terminated for outcome in row] for row in rows]),
        admissible=np.array([[outcome.admissible for outcome in row] for row in rows]),
        observation=np.array(observation),
        clue=np.array([-1 if clue is None else clue for clue in clues]),
        prompt=prompt,
        features=bags[:, bags.any(dim=0)],
    )


def features(prompt: str) -> Tensor:
    """A bag of words and word pairs, `[BUCKETS]`, each together with the label of its line, hashed into a bucket."""
    bag = torch.zeros(BUCKETS)
    for line in prompt.splitlines():
        label, _, rest = line.partition(":")
        words = rest.split()
        for text in (*words, *(" ".join(pair) for pair in pairwise(words))):
            bag[crc32(f"{label}:{text}".encode()) % BUCKETS] = 1.0
    return bag


@cache
def decisions(house: House) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """What `decide` makes of every reply: whether it opens a segment and the sub-goal then in force.

    Returns:
        Two arrays `[first turn or later, SWITCH written, sub-goal written, sub-goal kept]`.
    """
    subgoals = len(house.subgoals) + 1
    number = {subgoal_text(house, subgoal): subgoal for subgoal in range(subgoals)}
    shape = (2, 2, subgoals, subgoals)
    boundary, in_force = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=np.int64)
    for later, switch, written, kept in np.ndindex(shape):
        decision = decide(parse_reply(reply_text(house, switch, written, 0)), later, subgoal_text(house, kept))
        boundary[later, switch, written, kept] = decision.boundary
        in_force[later, switch, written, kept] = number[decision.subgoal]
    return boundary, in_force


def _carried_out_action(house: House, action: int, plans: bool) -> str:
    if plans:
        return parse_reply(reply_text(house, 1, 1, action)).action
    return parse_flat(f"<action>{house.actions[action]}</action>", require_think=False).action
