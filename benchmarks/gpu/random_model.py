# SPDX-License-Identifier: Apache-2.0
"""Models of a published architecture with random weights: as fast and as large as the real ones, without a download."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

_QWEN = dict(
    vocab_size=151_936,
    max_position_embeddings=32_768,
    rope_theta=1e6,
    rms_norm_eps=1e-6,
    tie_word_embeddings=True,
)
ARCHITECTURES = {
    "qwen2.5-1.5b": dict(
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
        **_QWEN,
    ),
    "qwen2.5-0.5b": dict(
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        **_QWEN,
    ),
    "tiny": dict(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        **(_QWEN | {"vocab_size": 4096}),
    ),
}
"""Sizes of the published configurations, and one to try these benchmarks on a CPU with."""


def make(architecture: str, device: str, dtype: torch.dtype, **settings) -> Qwen2ForCausalLM:
    """A model with random weights (seed 0)."""
    torch.manual_seed(0)
    with torch.device(device):
        return Qwen2ForCausalLM(Qwen2Config(**ARCHITECTURES[architecture], **settings)).to(dtype)


def save(architecture: str, tokenizer_of: Path, folder: Path, device: str) -> Path:
    """Write a model with random weights and the tokenizer of another, unless it is there, and return its folder.

    The tokenizer gets as many tokens as the model has outputs: verl lets vLLM sample the tokenizer's tokens only, while
    the trainer normalizes over all outputs. With 1,500 tokens and 151,936 outputs all probabilities would differ by a
    factor of 100, and their comparison would show that instead of an error of the weight sync.
    """
    outputs = int(ARCHITECTURES[architecture]["vocab_size"])
    if not (folder / "tokenizer.json").exists():
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_of)
        special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "eos", "bos")}
        make(architecture, device, torch.bfloat16, **special).cpu().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        pad_tokenizer(folder / "tokenizer.json", outputs)
    size = len(AutoTokenizer.from_pretrained(folder))
    if size != outputs:
        raise SystemExit(f"{folder}: the tokenizer has {size} tokens, and the model has {outputs} outputs")
    return folder


def pad_tokenizer(path: Path, size: int) -> None:
    """Add tokens that no text is encoded with to a BPE tokenizer's file, until it has `size` tokens.

    They are entries without merges. As `added_tokens` they would be looked for in every text. Those that are there get
    an entry too: transformers may build the tokenizer again, and numbers those without one after the others.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    vocabulary |= {token["content"]: token["id"] for token in content["added_tokens"]}
    taken = set(vocabulary.values())
    vocabulary |= {f"<unused {index}>": index for index in range(size) if index not in taken}
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
