# SPDX-License-Identifier: Apache-2.0
"""verl's FSDP2 engines of a tiny Qwen2, in this process alone: real sharding over gloo with one rank, no Ray."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from torch.distributed.tensor import DTensor
from transformers import Qwen2Config, Qwen2ForCausalLM
from verl.trainer.config import CheckpointConfig
from verl.utils import tensordict_utils as tu
from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig

VOCABULARY = 64
BF16 = {"param_dtype": "bf16", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
FP32 = BF16 | {"param_dtype": "fp32"}


@contextmanager
def one_rank(folder: Path) -> Iterator[None]:
    """A process group of this process."""
    address = f"file://{folder / 'process_group'}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=0, world_size=1)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def write_model(folder: Path, **sizes: Any) -> Path:
    """A Qwen2 of some 20,000 parameters without a tokenizer."""
    torch.manual_seed(0)
    standard = dict(vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2)
    heads = dict(num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048)
    Qwen2ForCausalLM(Qwen2Config(**standard | heads | sizes, pad_token_id=0, eos_token_id=1)).save_pretrained(folder)
    return folder


def make_engine(
    engine_class: type,
    path: Path,
    *,
    model: dict[str, Any] | None = None,
    engine: dict[str, Any] | None = None,
    optimizer: dict[str, Any] | None = None,
    checkpoint: dict[str, Any] | None = None,
    override: dict[str, Any] | None = None,
) -> Any:
    """An initialized engine. The dictionaries change verl's configuration of the same names."""
    model_config = HFModelConfig(
        path=str(path),
        load_tokenizer=False,
        enable_gradient_checkpointing=False,
        use_remove_padding=False,
        override_config={"attn_implementation": "sdpa"} | (override or {}),
        **model or {},
    )
    settings: dict[str, Any] = dict(strategy="fsdp2", use_torch_compile=False, mixed_precision=FP32)
    made = engine_class(
        model_config=model_config,
        engine_config=FSDPEngineConfig(**settings | (engine or {})),
        optimizer_config=FSDPOptimizerConfig(**{"lr": 1e-2, "total_training_steps": 10} | (optimizer or {})),
        checkpoint_config=CheckpointConfig(**checkpoint or {}),
    )
    made.initialize()
    return made


def rows(sizes: list[tuple[int, int]], *, packed: bool = False, seed: int = 0) -> TensorDict:
    """Random rows as verl's workers hand them to an engine.

    Args:
        sizes: tokens of the prompt and of the reply of each row.
        packed: without padding.
    """
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randint(2, VOCABULARY, (prompt + reply,), generator=generator) for prompt, reply in sizes]
    replies = [row[prompt:] for row, (prompt, _) in zip(ids, sizes, strict=True)]
    prompts = [row[:prompt] for row, (prompt, _) in zip(ids, sizes, strict=True)]
    masks = [(torch.arange(len(row)) >= prompt).long() for row, (prompt, _) in zip(ids, sizes, strict=True)]

    def nested(parts: list[torch.Tensor]) -> torch.Tensor:
        return torch.nested.as_nested_tensor(parts, layout=torch.jagged)

    data = TensorDict(
        {
            "input_ids": nested(ids),
            "position_ids": nested([torch.arange(len(row)) for row in ids]),
            "loss_mask": nested(masks),
            "prompts": nested(prompts),
            "responses": nested(replies),
            "response_mask": nested([torch.ones_like(reply) for reply in replies]),
        },
        batch_size=len(sizes),
    )
    tu.assign_non_tensor(
        data,
        use_remove_padding=packed,
        use_dynamic_bsz=True,
        max_token_len_per_gpu=4096,
        temperature=1.0,
        pad_token_id=0,
        calculate_entropy=False,
    )
    return data


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of a sharded tensor."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()
