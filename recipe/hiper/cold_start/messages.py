# SPDX-License-Identifier: Apache-2.0
"""Demonstrations as files of chat messages, and as the token ids that fine-tuning reads.

A row is `{"messages": [{"role": "user", ...}, {"role": "assistant", ...}]}`, with a system message before them where
`env.system_prompt` is set: one turn, in the format that verl, TRL and LLaMA-Factory read. Each turn is a separate
conversation, as in a rollout, where history is part of the prompt.
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

from agent_system.rollout.tokens import PromptEncoder, encode_reply
from recipe.hiper.cold_start.demonstrations import Example


def write_messages(path: Path, examples: Sequence[Example], system_prompt: str | None = None) -> None:
    """Write a parquet file with one row for each turn; `system_prompt` as for `PromptEncoder`."""
    system = [] if system_prompt is None else [{"role": "system", "content": system_prompt}]
    rows = [
        [*system, {"role": "user", "content": example.prompt}, {"role": "assistant", "content": example.reply}]
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
        self._template_kwargs = config.get("apply_chat_template_kwargs")
        self._encoders: dict[str | None, PromptEncoder] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def _encoder(self, system_prompt: str | None) -> PromptEncoder:
        """The encoder of the rows with this system message; a file has one for all."""
        if system_prompt not in self._encoders:
            self._encoders[system_prompt] = PromptEncoder(self._tokenizer, self._template_kwargs, system_prompt)
        return self._encoders[system_prompt]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        *system, prompt, reply = (message["content"] for message in self._rows[index])
        prompt_ids = self._encoder(system[0] if system else None).encode(prompt)
        reply_ids = encode_reply(self._tokenizer, reply)
        input_ids = torch.tensor(prompt_ids + reply_ids)
        loss_mask = torch.zeros_like(input_ids)
        loss_mask[len(prompt_ids) :] = 1
        return {
            "input_ids": input_ids,
            "position_ids": torch.arange(len(input_ids)),
            "loss_mask": loss_mask,
            "responses": torch.tensor(reply_ids),
        }
