# SPDX-License-Identifier: Apache-2.0
"""The token budget of micro-batches on CPU follows from the memory that is free."""

from __future__ import annotations

import pytest
from made_config import check, composed
from omegaconf import OmegaConf

from agent_system.errors import ConfigError
from recipe.hiper.configuration.host_memory import (
    FOLLOWERS,
    activation_bytes,
    fill_in_token_budgets,
    free_bytes,
    resident_bytes,
)
from recipe.hiper.configuration.model_sizes import ModelSize

SMOLLM2 = ModelSize(134_515_008, 134_515_008, 28_311_552)
FIELDS = dict(
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    vocab_size=49152,
)
ACTOR, CRITIC = "actor_rollout_ref.actor.ppo_max_token_len_per_gpu", "critic.ppo_max_token_len_per_gpu"
IN_FP32 = (
    "actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=fp32",
    "actor_rollout_ref.rollout.dtype=float32",
)


def fill_in(*overrides: str, free: float, env: str = "alfworld"):
    config = composed(*IN_FP32, *overrides, model="smollm2", environment=env)
    line = fill_in_token_budgets(config, {"actor": SMOLLM2}, {"actor": FIELDS}, int(free * 1e9))
    return config.actor_rollout_ref.actor.ppo_max_token_len_per_gpu, config.critic.ppo_max_token_len_per_gpu, line


def test_activations_by_hand():
    # A layer: 576 x (12 + 4/3) = 7,680 and 5 x 1,536 = 7,680
    assert activation_bytes(FIELDS, 4, reply_share=0.0) == 30 * 15_360 * 4
    assert activation_bytes(FIELDS, 2, reply_share=0.0) == 30 * 15_360 * 2
    assert activation_bytes(FIELDS, 4, reply_share=0.25) == 30 * 15_360 * 4 + 5 * 49_152
    assert activation_bytes(FIELDS, 4, checkpointing=True, reply_share=0.0) == (30 * 576 + 15_360) * 4


def test_what_a_run_holds_by_hand():
    config = composed(*IN_FP32, "actor_rollout_ref.actor.use_kl_loss=false", model="smollm2")
    weights, engine = 24 * SMOLLM2.parameters, 2 * 4 * SMOLLM2.parameters
    assert resident_bytes(config, {"actor": SMOLLM2}) == 6_200_000_000 + 2**30 + weights + engine
    with_reference = composed(*IN_FP32, model="smollm2")
    assert resident_bytes(with_reference, {"actor": SMOLLM2}) == resident_bytes(config, {"actor": SMOLLM2}) + (
        8 * SMOLLM2.parameters
    )
    adapters = ModelSize(SMOLLM2.parameters, 1_000_000, SMOLLM2.largest)
    assert resident_bytes(config, {"actor": adapters}) < resident_bytes(config, {"actor": SMOLLM2}) - 2_000_000_000


def test_enough_memory_gives_what_is_useful():
    assert fill_in(free=22) == (1024, 1024, None)


def test_the_keys_that_follow_the_budget_are_filled_in_too():
    """By then the configuration is resolved, and they no longer refer to it."""
    config = composed(*IN_FP32, model="smollm2")
    OmegaConf.resolve(config)
    followers = [name for names in FOLLOWERS.values() for name in names]
    assert all(OmegaConf.select(config, name) is None for name in followers)
    fill_in_token_budgets(config, {"actor": SMOLLM2}, {"actor": FIELDS}, 22 * 10**9)
    assert all(OmegaConf.select(config, name) == 1024 for name in followers)


def test_less_memory_gives_fewer_tokens_and_says_so():
    actor, critic, line = fill_in(free=14)
    assert actor == critic and actor % 128 == 0 and 384 <= actor < 1024
    assert line.startswith(f"{ACTOR}={actor}, computed: 14.0 GB of memory are free, and the run holds about 12.7 GB")
    assert fill_in(free=13.8)[0] < actor


def test_the_longest_row_fits_in_any_case():
    assert fill_in(env="webshop", free=22)[0] == 1088  # 1,024 tokens of prompt and 64 of reply


def test_too_little_memory_is_refused_with_what_helps():
    with pytest.raises(ConfigError, match=rf"13.0 GB .* 384 tokens. Try: .*lora_rank=32, .* {ACTOR}=384 {CRITIC}=384"):
        fill_in(free=13)
    with pytest.raises(ConfigError, match="Try: data.max_prompt_length=<fewer tokens>"):
        fill_in("actor_rollout_ref.model.lora_rank=32", free=12)


def test_chosen_budgets_stay():
    assert fill_in(f"{ACTOR}=512", f"{CRITIC}=640", free=1) == (512, 640, None)
    assert fill_in(f"{ACTOR}=512", free=22) == (512, 1024, None)


def test_on_gpus_the_budget_must_be_given():
    with pytest.raises(ConfigError, match=rf"{ACTOR}=null is computed on CPU only. Try: {ACTOR}=32768"):
        check(composed(f"{ACTOR}=null", profile="gpu"))


def test_the_limit_of_a_container_counts(tmp_path):
    everything = free_bytes(tmp_path)
    (tmp_path / "memory.max").write_text("3000\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert free_bytes(tmp_path) == 2000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(tmp_path) > 1e6
    assert everything > 1e6
