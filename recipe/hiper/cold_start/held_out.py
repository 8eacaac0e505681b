# SPDX-License-Identifier: Apache-2.0
"""How well a fine-tuned model predicts held-out demonstrations, given the right reply so far (teacher forcing)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import pad
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer

from recipe.hiper.cold_start.messages import TurnDataset

ROWS_AT_ONCE = 8


@dataclass(frozen=True)
class HeldOut:
    """Figures over held-out turns.

    Attributes:
        turns: number of them.
        loss: mean over reply tokens, in nats.
        exact: share of replies in which every token, the end included, is the model's most likely one.
    """

    turns: int
    loss: float
    exact: float


@torch.inference_mode()
def measure_held_out(model_folder: Path, turns: Path, *, limit: int = 256, progress: bool) -> HeldOut:
    """Measure a model on the first turns of a file.

    Args:
        model_folder: Hugging Face folder.
        turns: file of `messages.write_messages`.
        limit: turns that are read.
        progress: whether a progress bar is drawn on standard error.
    """
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    data = TurnDataset(str(turns), tokenizer, {}, max_samples=limit)
    rows = sorted((data[index] for index in range(len(data))), key=lambda row: len(row["input_ids"]))
    loss, tokens, exact = 0.0, 0, 0
    with tqdm(total=len(rows), desc="held-out turns", unit="turn", disable=not progress) as bar:
        for first in range(0, len(rows), ROWS_AT_ONCE):
            some = rows[first : first + ROWS_AT_ONCE]
            for log_probs, is_best in _replies(model, some):
                loss -= float(log_probs.sum())
                tokens += len(log_probs)
                exact += bool(is_best.all())
            bar.update(len(some))
    return HeldOut(turns=len(rows), loss=loss / tokens, exact=exact / len(rows))


def _replies(model: Any, rows: list[dict[str, torch.Tensor]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Of each row: the log-probabilities of its reply tokens, and whether each is the most likely token."""
    lengths_B = torch.tensor([len(row["input_ids"]) for row in rows])
    width = int(lengths_B.max())
    ids_BL = torch.stack([pad(row["input_ids"], (width - len(row["input_ids"]), 0)) for row in rows])
    mask_BL = torch.arange(width) >= width - lengths_B.unsqueeze(1)
    kept = max(len(row["responses"]) for row in rows) + 1
    output = model(
        input_ids=ids_BL,
        attention_mask=mask_BL.long(),
        position_ids=(mask_BL.long().cumsum(1) - 1).clamp(min=0),
        logits_to_keep=kept,
        use_cache=False,
    )
    results = []
    for logits_LV, row in zip(output.logits, rows, strict=True):
        reply = row["responses"]
        log_probs_LV = logits_LV[-len(reply) - 1 : -1].float().log_softmax(-1)
        results.append((log_probs_LV.gather(1, reply.unsqueeze(1)).squeeze(1), log_probs_LV.argmax(1) == reply))
    return results
