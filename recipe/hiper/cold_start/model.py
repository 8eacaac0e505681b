# SPDX-License-Identifier: Apache-2.0
"""The warm-started model's architecture: Qwen2, small enough to be trained and served on two CPU cores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from agent_system.errors import ConfigError


@dataclass(frozen=True)
class ModelSpec:
    """Sizes of the model; the embedding is tied to the output layer.

    Four heads, because vLLM's CPU attention serves heads of 32, 64, 80, 96, ... dimensions and none smaller than 32.

    Raises:
        ConfigError: `heads` does not divide `hidden`.
    """

    hidden: int = 128
    layers: int = 4
    heads: int = 4
    intermediate: int = 384
    positions: int = 1024
    rope_theta: float = 10000.0

    def __post_init__(self) -> None:
        if self.hidden % self.heads:
            raise ConfigError(
                f"a model of hidden={self.hidden} cannot have heads={self.heads}: the heads share the dimensions "
                f"equally. Try: warm_start.model.heads={max(1, self.hidden // 32)}"
            )


def build_model(spec: ModelSpec, vocabulary: int, pad_id: int, end_id: int, seed: int) -> Qwen2ForCausalLM:
    """A freshly initialised float32 model; the same seed gives the same weights.

    Args:
        vocabulary: number of tokens, exactly `len(tokenizer)`.
        pad_id, end_id: ids of the padding and the end-of-sequence token.
    """
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=spec.hidden,
        intermediate_size=spec.intermediate,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.heads,
        max_position_embeddings=spec.positions,
        rope_parameters={"rope_type": "default", "rope_theta": spec.rope_theta},
        tie_word_embeddings=True,
        pad_token_id=pad_id,
        eos_token_id=end_id,
        bos_token_id=None,
    )
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(config).float()
    model.generation_config.pad_token_id = pad_id
    model.generation_config.eos_token_id = end_id
    return model
