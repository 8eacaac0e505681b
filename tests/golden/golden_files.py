# SPDX-License-Identifier: Apache-2.0
"""The data files of the golden tests: where they are, how numbers are written, how rows are built from episodes.

Knows nothing of the project's modules.

    data/episodes.json.gz         recorded episodes: observations, replies in token pieces, values, parse results
    data/replies.json             single replies that break the format in every way, and what is read in them
    data/advantages.json.gz       token advantages, masks and value targets of every case of `golden_cases.ESTIMATORS`
    data/prompts.json             which turns and budgets are rendered, and the styles of `env.env_name`
    data/prompts/*.txt            rendered prompts, one file for each environment and style
    data/configurations/*.yaml    `--cfg job` of the HiPER scripts, for each environment and profile
    data/run.json                 metrics of the small run of the script, and the machine that logged them
    data/configurations/scripts.yaml   what each other script changes in that of its environment and profile
"""

from __future__ import annotations

import gzip
import json
import struct
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

DATA = Path(__file__).resolve().parent / "data"
EPISODES, REPLIES = DATA / "episodes.json.gz", DATA / "replies.json"
ADVANTAGES = DATA / "advantages.json.gz"
PROMPTS, PROMPT_TEXTS = DATA / "prompts.json", DATA / "prompts"
CONFIGURATIONS = DATA / "configurations"
RUN = DATA / "run.json"


def read(path: Path) -> Any:
    """The value of a JSON file, compressed or not."""
    data = path.read_bytes()
    return json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)


def write(path: Path, value: Any) -> None:
    """Write a JSON file, a list with a line for each entry. The same value gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        path.write_bytes(gzip.compress(text.encode(), mtime=0))
    elif isinstance(value, list):
        lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in value)
        path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    else:
        path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


# --- numbers ----------------------------------------------------------------------------------------------------------


def encoded(x: torch.Tensor) -> list[str]:
    """A line of text for each row of a tensor: runs of equal entries, "entry" or "entry*length".

    float32 is written as its 8 hexadecimal digits, so that nothing is rounded; -0.0 is written as 0.0, which it equals.

    Raises:
        TypeError: the tensor is neither float32 nor bool.
    """
    if x.dtype not in (torch.float32, torch.bool):
        raise TypeError(f"expected float32 or bool, got {x.dtype}")
    digits = (lambda entry: "01"[entry]) if x.dtype == torch.bool else (lambda entry: struct.pack(">f", entry).hex())
    lines = []
    for row in x.reshape(len(x), -1).tolist():
        runs = [
            (entry, len(list(run)))
            for entry, run in groupby(digits(entry + 0.0 if x.is_floating_point() else entry) for entry in row)
        ]
        lines.append(" ".join(entry if length == 1 else f"{entry}*{length}" for entry, length in runs))
    return lines


def readable(line: str) -> str:
    """An encoded line with its float32 entries as decimals that identify them."""
    words = []
    for word in line.split():
        entry, star, length = word.partition("*")
        number = f"{struct.unpack('>f', bytes.fromhex(entry))[0]:.9g}" if len(entry) == 8 else entry
        words.append(number + star + length)
    return " ".join(words)


# --- episodes ---------------------------------------------------------------------------------------------------------


_NO_TOKENS = {"switch_span": [0, 0], "subgoal_span": [0, 0], "action_span": [0, 0], "value_low": 0}


def batch_rows(batch: dict[str, Any], with_bootstrap: bool) -> list[dict[str, Any]]:
    """The rows of a training batch, in their recorded order.

    Args:
        batch: of `EPISODES`.
        with_bootstrap: whether the states after episodes that the step limit cut have rows, as they do in a run whose
            estimator values them.
    """
    rows = []
    for place in batch["rows"]:
        episode = batch["episodes"][place["episode"]]
        turn = place["turn"]
        is_bootstrap = turn == len(episode["turns"])
        if is_bootstrap and not with_bootstrap:
            continue
        row = episode["turns"][min(turn, len(episode["turns"]) - 1)]
        if is_bootstrap:
            row = {**row, **episode["after"], "reply": {**row["reply"], **_NO_TOKENS}}
        row = {
            **row,
            "episode": episode["name"],
            "environment": episode["environment"],
            "turn": turn,
            "padding": place["padding"],
            "bootstrap": is_bootstrap,
            "response_mask": [0 if is_bootstrap else 1] * len(row["log_probs"]),
        }
        if place["padding"]:
            # A copy of a real row that only fills up the batch; it has one token, regardless of its record.
            row |= {
                "values": [[0.0]] * 3,
                "log_probs": [0.0],
                "response_mask": [0],
                "episode": f"{row['episode']}_fill",
            }
        rows.append(row)
    return rows
