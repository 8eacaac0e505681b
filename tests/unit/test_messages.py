# SPDX-License-Identifier: Apache-2.0
"""Demonstrations as chat messages: what fine-tuning reads is what the rollout will show."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf
from transformers import AutoTokenizer
from verl.utils.dataset.dataset_utils import SFTTensorCollator

from agent_system.rollout.tokens import PromptEncoder, reply_pieces
from recipe.hiper.cold_start.demonstrations import Example
from recipe.hiper.cold_start.messages import TurnDataset, write_messages

REPLY = "<switch>SWITCH</switch><subgoal>find a mug</subgoal><action>go to desk 1</action>"
EXAMPLES = [
    Example("Your task is to: find a mug.\nYou see a desk 1.", REPLY),
    Example("Zeile zwei: äöü 杯", "<switch>KEEP</switch><subgoal>find a mug</subgoal><action>look</action>"),
]


@pytest.fixture
def files(tmp_path) -> str:
    write_messages(tmp_path / "turns.parquet", EXAMPLES)
    return str(tmp_path / "turns.parquet")


@pytest.fixture
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


def test_the_file_has_the_columns_that_other_trainers_read(files):
    rows = pq.read_table(files)["messages"].to_pylist()
    assert rows[0] == [
        {"role": "user", "content": EXAMPLES[0].prompt},
        {"role": "assistant", "content": EXAMPLES[0].reply},
    ]
    assert len(rows) == len(EXAMPLES)


def test_ids_are_those_of_the_rollout_and_the_loss_is_on_the_reply_alone(files, tokenizer):
    turns = TurnDataset(files, tokenizer, OmegaConf.create({}))
    assert len(turns) == len(EXAMPLES)
    for example, turn in zip(EXAMPLES, (turns[0], turns[1]), strict=True):
        prompt = PromptEncoder(tokenizer).encode(example.prompt)
        ids = turn["input_ids"].tolist()
        assert ids[: len(prompt)] == prompt and turn["loss_mask"][: len(prompt)].sum() == 0
        trained = turn["input_ids"][turn["loss_mask"].bool()]
        assert trained.tolist() == turn["responses"].tolist() == ids[len(prompt) :]
        assert ids[-1] == tokenizer.eos_token_id
        assert turn["position_ids"].tolist() == list(range(len(ids)))
    assert "".join(reply_pieces(tokenizer, turns[0]["responses"].tolist(), {tokenizer.eos_token_id})) == REPLY


def test_verl_collates_turns_of_different_lengths(files, tokenizer):
    turns = TurnDataset([files, files], tokenizer, OmegaConf.create({}), max_samples=3)
    assert len(turns) == 3
    batch = SFTTensorCollator("no_padding")([turns[0], turns[1]])
    assert batch["input_ids"].is_nested and batch["responses"].is_nested
    assert batch["input_ids"].offsets().diff().tolist() == [len(turns[0]["input_ids"]), len(turns[1]["input_ids"])]
