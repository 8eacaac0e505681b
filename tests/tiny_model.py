# SPDX-License-Identifier: Apache-2.0
"""A model of some 100,000 parameters that writes plan-execute replies, most of them well formed: made in seconds."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

TAGS = [f"<{slash}{name}>" for name in ("switch", "subgoal", "action") for slash in ("", "/")]
WORDS = ["KEEP", "SWITCH", "find mug", "open box", "look", "inventory"]
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<|reply|>{% endif %}"


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Single bytes, and one token for each tag and each word of a reply."""
    # The end-of-sequence token has to have this name: AutoTokenizer adds one of that name to Qwen2 otherwise.
    special = ["<|pad|>", "<|endoftext|>", "<|reply|>"]
    vocabulary = special + sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(vocabulary)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(special)
    backend.add_tokens([AddedToken(text, special=False) for text in TAGS + WORDS])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<|pad|>", eos_token="<|endoftext|>", chat_template=TEMPLATE
    )


def _reply(generator: random.Random, short_keep: bool) -> str:
    switch, subgoal, action = generator.choice(WORDS[:2]), generator.choice(WORDS[2:4]), generator.choice(WORDS[4:])
    if short_keep and switch == "KEEP":
        return f"<switch>KEEP</switch><action>{action}</action><|endoftext|>"
    return f"<switch>{switch}</switch><subgoal>{subgoal}</subgoal><action>{action}</action><|endoftext|>"


def make_model(folder: Path, *, short_keep: bool = False) -> Path:
    """Write model and tokenizer to `folder`, the same ones every time, and return it.

    With `short_keep` the model leaves the sub-goal out after KEEP.
    """
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=64,  # two heads of 32, the smallest that vLLM has CPU attention for
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    ).float()
    generator = random.Random(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(80):
        prompt = "".join(generator.choices("abcdefghijklmnopqrstuvwxyz 123|:,.\n", k=generator.randint(20, 300)))
        texts = [f"{prompt}<|reply|>{_reply(generator, short_keep)}" for _ in range(8)]
        rows = tokenizer(
            texts, padding=True, return_tensors="pt"
        ).input_ids  # on the right, where it is not attended to
        labels = rows.masked_fill(rows == tokenizer.pad_token_id, -100)
        labels[:, : len(prompt) + 1] = -100
        model(input_ids=rows, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
