# SPDX-License-Identifier: Apache-2.0
"""Demonstrations as files of chat messages, and as the token ids that fine-tuning reads.

A row is `{"messages": [{"role": "user", ...}, {"role": "assistant", ...}]}`: one turn, in the format that verl, TRL and
LLaMA-Factory read. Each turn is a conversation of its own, as in a rollout, where history is part of the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.utils.data import Dataset

from agent_system.rollout.tokens import PromptEncoder
from recipe.hiper.cold_start.demonstrations import Example


def write_messages(path: Path, examples: Sequence[Example]) -> None:
    """Write a parquet file with one row for each turn."""
    rows = [
        [{"role": "user", "content": example.prompt}, {"role": "assistant", "content": example.reply}]
        for example in examples
    ]
    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    pq.write_table(pa.table({"messages": pa.array(rows, pa.list_(message))}), path)


class TurnDataset(Dataset):
    """Turns of demonstrations for verl's SFT trainer (`data.custom_cls`).

    verl's own data set renders message by message and cuts the system prompt out of all but the first. This one builds
    the prompt with the encoder of the rollout, so that the model learns from exactly the ids it will see, and trains on
    the reply with its end token alone.

    Args:
        parquet_files: files of `write_messages`; the names of the arguments are verl's.
        tokenizer: a fast tokenizer with a chat template.
        config: the section `data` of the trainer.
        processor: of images; not used.
        max_samples: rows that are read, from the first on; all of them if it is not positive.

    An item holds `input_ids`, `position_ids`, `loss_mask` (all `[tokens]`) and `responses` (`[tokens of the reply]`).
    """

    def __init__(self, parquet_files, tokenizer, config, processor=None, max_samples: int = -1) -> None:
        paths = [parquet_files] if isinstance(parquet_files, str) else list(parquet_files)
        rows = pa.concat_tables([pq.read_table(path, columns=["messages"]) for path in paths])["messages"].to_pylist()
        self._rows: list[list[dict[str, Any]]] = rows[:max_samples] if max_samples > 0 else rows
        self._tokenizer = tokenizer
        self._encoder = PromptEncoder(tokenizer, config.get("apply_chat_template_kwargs"))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        prompt, reply = (message["content"] for message in self._rows[index])
        prompt_ids = self._encoder.encode(prompt)
        reply_ids = [*self._tokenizer(reply, add_special_tokens=False)["input_ids"], self._tokenizer.eos_token_id]
        input_ids = torch.tensor(prompt_ids + reply_ids)
        loss_mask = torch.zeros_like(input_ids)
        loss_mask[len(prompt_ids) :] = 1
        return {
            "input_ids": input_ids,
            "position_ids": torch.arange(len(input_ids)),
            "loss_mask": loss_mask,
            "responses": torch.tensor(reply_ids),
        }
