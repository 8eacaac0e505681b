# SPDX-License-Identifier: Apache-2.0
"""The start of the training in the treasure house: a model that knows the format and has next to nothing to go by."""

from __future__ import annotations

import random
from collections import deque
from pathlib import Path

from treasure_house import ROOMS, THINGS, WAYS, TreasureHouse

from agent_system.plan_execute.memory import EpisodeMemory
from agent_system.plan_execute.prompts import PromptStyle, render_prompt
from agent_system.plan_execute.protocol import KEEP, SWITCH, decide, parse_reply
from recipe.hiper.cold_start.demonstrations import Example
from recipe.hiper.cold_start.model import ModelSpec, build_model
from recipe.hiper.cold_start.tokenizer import train_tokenizer
from recipe.hiper.cold_start.train import TrainSpec, encode, train

PLAYS = 2000
KEEPS = 0.7
"""Share of KEEP among the switch words."""
FOLLOWS = 0.7
"""Share of actions that serve the sub-goal. Were it 0, no sub-goal would be better than another."""
READS = 0.2
"""Share of sub-goals taken from the note, where there is one; the others are any room. Were it 0, the model would learn
not to look at the note, and hundreds of games would go by before it did."""


def way_to(room: str, place: str) -> str | None:
    """The first action of the shortest way from `place`; None on arrival."""
    first: dict[str, str | None] = {place: None}
    queue = deque([place])
    while room not in first:
        here = queue.popleft()
        for action, there in WAYS[here].items():
            if there not in first:
                first[there] = first[here] or action
                queue.append(there)
    return first[room]


def play(generator: random.Random) -> list[Example]:
    """One game with random choices of the switch, the sub-goal, the action and the thing to take."""
    game, memory = TreasureHouse(), EpisodeMemory(history_length=0)
    thing, room = generator.choice(THINGS), generator.choice(ROOMS)
    observation, info = game.reset(options={"thing": thing, "room": room})
    examples, over = [], False
    while not over:
        parts = memory.parts(observation, info["admissible_actions"], info["task"])
        switch = KEEP if generator.random() < KEEPS else SWITCH
        subgoal = memory.subgoal
        if switch == SWITCH or not subgoal:
            subgoal = room if room in observation and generator.random() < READS else generator.choice(ROOMS)
        seen = thing if generator.random() < READS else generator.choice(THINGS)
        action = way_to(subgoal, game.place) or f"take {seen}"
        if generator.random() > FOLLOWS:
            action = generator.choice(info["admissible_actions"])
        reply = f"<switch>{switch}</switch><subgoal>{subgoal}</subgoal><action>{action}</action>"
        examples.append(Example(render_prompt(PromptStyle.PLAN_EXECUTE_COMPACT, parts), reply))
        memory.record(decide(parse_reply(reply), memory.turn, memory.subgoal), observation, action)
        observation, _, terminated, truncated, info = game.step(action)
        over = terminated or truncated
    return examples


def make_player(folder: Path, seed: int = 0) -> Path:
    """Write a model of 100,000 parameters and its tokenizer to `folder` and return it."""
    generator = random.Random(seed)
    examples = [example for _ in range(PLAYS) for example in play(generator)]
    texts = [text for example in examples for text in (example.prompt, example.reply)]
    spec = ModelSpec(hidden=64, layers=2, heads=2, intermediate=128, positions=128)
    tokenizer = train_tokenizer(texts, max_vocabulary=600, model_max_length=spec.positions, max_phrases=16)
    model = build_model(spec, len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id, seed)
    encoded = encode(examples, tokenizer)
    train(model, encoded, encoded[:64], TrainSpec(steps=700, warmup=20, lr=3e-3, seed=seed), progress=False)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
