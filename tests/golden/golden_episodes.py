# SPDX-License-Identifier: Apache-2.0
"""Plays the recorded episodes: scripted players, whose replies are often defective, in generated games and a shop.

Only `record.py --episodes` runs this. The tests read what it wrote.
"""

from __future__ import annotations

import math
import random
import re
import tempfile
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import adapter
import numpy as np

SEED = 17
GROUP = 4
"""Episodes of a task."""
PADDING_ROWS = 5
STEP_LIMITS = (12, 12, 5, 12)
"""Of the episodes of a group: the third is cut early, if it is not over by then."""
_PIECES = re.compile(r"[^\r\n\w]?[^\W\d_]+|\d| ?(?:[^\s\w]|_)+[\r\n]*|\s+(?!\S)|\s+")
"""Roughly how byte-level tokenizers split text: a token may hold the end of one block and the beginning of the next."""

_DEFECTS_OF_BLOCKS = (
    "drifted copy",
    "spaces in the copy",
    "other letter case",
    "needless switch",
    "switch without sub-goal",
    "empty sub-goal",
    "no switch block",
    "unknown switch word",
    "no action block",
    "unclosed action",
    "empty action",
    "two actions",
    "text outside",
    "wrong order",
    "nested tag",
    "CJK character",
    "nothing",
    "no block at all",
)
_DEFECTS_OF_ACTIONS = ("inadmissible action", "random action")
_DEFECTS_OF_FLAT = ("no think block", "no action block", "unclosed action", "text outside", "two actions", "nothing")


def token_pieces(text: str, has_end_token: bool) -> list[str]:
    """The text split as a tokenizer would, and the empty piece of the end-of-sequence token."""
    pieces = []
    for piece in _PIECES.findall(text):
        if re.search("[\u4e00-\u9fff]", piece):
            pieces.append("")  # the first token of a character that takes two adds no text
        pieces.append(piece)
    assert "".join(pieces) == text, text
    return [*pieces, ""] if has_end_token or not pieces else pieces


def _blocks(switch: str, subgoal: str, action: str, defect: str | None, short_keep: bool) -> str:
    """A reply in the three blocks, with a defect."""
    switch_block, subgoal_block = f"<switch>{switch}</switch>", f"<subgoal>{subgoal}</subgoal>"
    action_block = f"<action>{action}</action>"
    if short_keep and switch == "KEEP":
        subgoal_block = ""
    match defect:
        case "drifted copy":
            subgoal_block = f"<subgoal>{subgoal} now</subgoal>"
        case "spaces in the copy":
            subgoal_block = f"<subgoal> {subgoal.replace(' ', '  ')}\n</subgoal>"
        case "other letter case":
            switch_block, action_block = f"<SWITCH>{switch.lower()}</Switch>", f"<action>{action.upper()}</action>"
        case "needless switch":
            switch_block, subgoal_block = "<switch>SWITCH</switch>", "<subgoal>look around</subgoal>"
        case "switch without sub-goal":
            switch_block, subgoal_block = "<switch>SWITCH</switch>", ""
        case "empty sub-goal":
            subgoal_block = "<subgoal> </subgoal>"
        case "no switch block":
            switch_block = ""
        case "unknown switch word":
            switch_block = "<switch>HOLD</switch>"
        case "no action block":
            action_block = ""
        case "unclosed action":
            action_block = f"<action>{action}"
        case "empty action":
            action_block = "<action></action>"
        case "two actions":
            action_block += "<action>look</action>"
        case "text outside":
            switch_block = f"I think about it. {switch_block}"
        case "wrong order":
            switch_block, action_block = action_block, switch_block
        case "nested tag":
            action_block = f"<action><switch>{action}</switch></action>"
        case "CJK character":
            subgoal_block = f"<subgoal>{subgoal} 杯</subgoal>"
        case "nothing":
            return ""
        case "no block at all":
            return f"I {action} to {subgoal}."
    return "\n".join(block for block in (switch_block, subgoal_block, action_block) if block)


def _flat(subgoal: str, action: str, defect: str | None) -> str:
    """A reply with a think block, with a defect."""
    think_block, action_block = f"<think>I want to {subgoal}.</think>", f"<action>{action}</action>"
    match defect:
        case "no think block":
            think_block = ""
        case "no action block":
            action_block = ""
        case "unclosed action":
            action_block = f"<action>{action}"
        case "text outside":
            action_block += " Done."
        case "two actions":
            action_block += action_block
        case "nothing":
            return ""
    return think_block + action_block


def _play(
    env: Any, advise: adapter.Adviser, first: tuple[str, dict], reply_format: str, rng: random.Random, defects: Iterator
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """One episode: its turns, and the state after the last one."""
    turns, kept = [], ""
    observation, info = first
    ended = False
    while not ended:
        admissible = list(info["admissible_actions"])
        switch, subgoal, action = advise(observation, admissible, kept)
        defect = next(defects) if rng.random() < 0.35 else None
        if defect == "inadmissible action":
            action = "fly to the moon"
        elif defect == "random action":
            action = rng.choice(admissible)
        if reply_format == "flat":
            text = _flat(subgoal, action, defect)
        else:
            text = _blocks(switch, subgoal, action, defect, reply_format == "short_keep" and bool(kept))
        pieces = token_pieces(text, has_end_token=defect != "unclosed action")
        reply = adapter.read_reply(reply_format, pieces, len(turns), kept)
        sent, is_admissible = adapter.listed_action(reply["action"], admissible)
        after, reward, terminated, truncated, info = env.step(sent)
        ended = terminated or truncated
        stop = "" if not ended else "step_limit" if not terminated else "won" if info["won"] else "failed"
        turns.append(
            {
                "observation": observation,
                "admissible_actions": admissible,
                "pieces": pieces,
                **_of_the_model(len(pieces), rng, reply["switch_span"]),
                "reply": reply,
                "action": sent,
                "admissible": is_admissible,
                "reward": float(reward),
                "terminated": bool(terminated),
                "truncated": bool(truncated),
                "stop": stop,
                "won": bool(info["won"]),
                "score": float(info["score"]),
            }
        )
        observation, kept = after, reply["subgoal_in_force"]
    row_after = {
        "observation": observation,
        "pieces": [""],
        **_of_the_model(1, rng),
        "log_probs": [0.0],
        "reward": 0.0,
    }
    return turns, row_after


def _of_the_model(tokens: int, rng: random.Random, switch_span: Sequence[int] = (0, 0)) -> dict[str, Any]:
    """Values of three heads before each token, and log-probabilities of the tokens.

    The probability of the switch block must not depend on the processor. Log-probabilities are multiples of 1/64, whose
    sums are exact in float32 in any order. The exponential of the sum is within a fifth of a float32 step of a
    float32, so every exponential function that errs by less than 0.8 steps gives that one.
    """
    values = [[round(rng.gauss(4.0, 3.0), 3) for _ in range(tokens)] for _ in range(3)]
    log_probs = [-int(rng.expovariate(0.2)) / 64 for _ in range(tokens)]
    start, end = switch_span
    while start < end and not _has_certain_exponential(sum(log_probs[start:end])):
        log_probs[start] -= 1 / 64
    return {"values": values, "log_probs": log_probs}


def _has_certain_exponential(x: float) -> bool:
    nearest = np.float32(math.exp(x))
    return abs(math.exp(x) - float(nearest)) < 0.2 * float(np.spacing(nearest))


def _batch(name: str, reply_format: str, tasks: Sequence[Any]) -> dict[str, Any]:
    """A batch: the episodes of some tasks in groups, and its rows shuffled with padding among them."""
    rng = random.Random(f"{SEED}/{name}")
    defects = list(_DEFECTS_OF_FLAT if reply_format == "flat" else _DEFECTS_OF_BLOCKS)
    defects += _DEFECTS_OF_ACTIONS * 2
    rng.shuffle(defects)
    defects = cycle(defects)
    episodes = []
    for task, (environment, options, open_env, make_adviser) in enumerate(tasks):
        for session in range(GROUP):
            env = open_env(STEP_LIMITS[session] if task else (12, 1, 2, 12)[session])
            first = env.reset(options=options)
            advise = make_adviser(first[1]["task"], rng, env)
            turns, after = _play(env, advise, first, reply_format, rng, defects)
            episodes.append(
                {
                    "name": f"task{task}_{session}",
                    "environment": environment,
                    "task": first[1]["task"],
                    "turns": turns,
                    "after": after if turns[-1]["stop"] == "step_limit" else None,
                }
            )
    rows = [
        {"episode": number, "turn": turn, "padding": False}
        for number, episode in enumerate(episodes)
        for turn in range(len(episode["turns"]) + (episode["after"] is not None))
    ]
    rng.shuffle(rows)
    turns = [row for row in rows if row["turn"] < len(episodes[row["episode"]]["turns"])]
    for row in rng.sample(turns, PADDING_ROWS):
        rows.insert(rng.randrange(len(rows)), {**row, "padding": True})
    return {"format": reply_format, "episodes": episodes, "rows": rows}


def recorded_episodes() -> dict[str, Any]:
    """All batches, by name."""
    with tempfile.TemporaryDirectory() as temporary:
        games = adapter.make_games(Path(temporary) / "games", number=6, seed=SEED)
        shop = adapter.make_shop(Path(temporary) / "shop", products=150, seed=SEED)

        def game(number: int) -> tuple:
            def open_env(max_steps: int):
                return adapter.open_game(games[number], max_steps)

            return "alfworld", {}, open_env, lambda task, rng, env: adapter.game_adviser(task, rng)

        def visit(goal: int, observation_mode: str, penalty: float) -> tuple:
            def open_env(max_steps: int):
                return adapter.open_shop(shop, observation_mode, max_steps, penalty)

            return "webshop", {"goal_index": goal}, open_env, adapter.shop_adviser

        return {
            "three_blocks": _batch(
                "three_blocks",
                "three_blocks",
                [game(0), game(1), game(3), visit(3, "compact", 0.0), visit(4, "compact", -1.0), visit(6, "page", 0.0)],
            ),
            "short_keep": _batch("short_keep", "short_keep", [game(2), visit(1, "compact", 0.0)]),
            "flat": _batch("flat", "flat", [game(4), visit(1, "page", -1.0)]),
        }
