# SPDX-License-Identifier: Apache-2.0
"""What benchmarks/gpu measure with: models of random weights."""

from __future__ import annotations

import sys
from pathlib import Path

from transformers import AutoConfig, AutoTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "gpu"))

from random_model import save

TEXT = "You are in the middle of a room. <switch>KEEP</switch><action>go to desk 1</action>"


def test_a_random_model_has_as_many_tokens_as_outputs(tiny_model, tmp_path):
    """Else vLLM and the trainer would normalize over different sets, by construction."""
    folder = save("tiny", tiny_model, tmp_path / "model", "cpu")
    before, after = (AutoTokenizer.from_pretrained(path) for path in (tiny_model, folder))
    assert len(before) < len(after) == AutoConfig.from_pretrained(folder).vocab_size == 4096
    assert after(TEXT).input_ids == before(TEXT).input_ids
    assert after.eos_token_id == before.eos_token_id and after.pad_token_id == before.pad_token_id
    decoded = [after.decode([index]) for index in range(len(before), len(after))]
    assert all(decoded) and len(set(decoded)) == len(decoded), "a sampled reply can be shown, whatever it holds"
