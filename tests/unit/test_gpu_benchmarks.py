# SPDX-License-Identifier: Apache-2.0
"""What the GPU path needs and a CPU can check: models of random weights for benchmarks/gpu, fine-tuning, options."""

from __future__ import annotations

import sys
from pathlib import Path

from hydra import compose, initialize_config_module
from transformers import AutoConfig, AutoTokenizer

from recipe.hiper.cold_start.fine_tune import WITHOUT_FLASH_ATTN
from verl_plugins.cpu.main_sft import CPU_DEFAULTS

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


def test_fine_tuning_on_a_gpu_needs_no_flash_attn():
    """verl's own default is flash_attention_2, whose package has no wheels; on a CPU the same two values are set."""
    with initialize_config_module("verl.trainer.config", version_base=None):
        usual, ours = (
            compose("sft_trainer_engine", [f"{key}={value}" for key, value in overrides.items()]).model
            for overrides in ({}, WITHOUT_FLASH_ATTN)
        )
    assert usual.use_remove_padding and "attn_implementation" not in usual.override_config
    assert not ours.use_remove_padding and ours.override_config.attn_implementation == "sdpa"
    assert {key: CPU_DEFAULTS[key] for key in WITHOUT_FLASH_ATTN} == {k: str(v) for k, v in WITHOUT_FLASH_ATTN.items()}
