# SPDX-License-Identifier: Apache-2.0
"""Which tokens end a reply, and whether the chat template ends it with one of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig, GenerationConfig

from agent_system.rollout.tokens import PromptEncoder


def stop_token_ids(model: str, tokenizer) -> frozenset[int]:
    """The tokens at which vLLM ends a reply: the tokenizer's end token, and those of the generation configuration.

    Args:
        model: folder or hub name of the model.
        tokenizer: a fast Hugging Face tokenizer.
    """
    return frozenset({tokenizer.eos_token_id, *_configured_stop_ids(model)[1]} - {None})


def _configured_stop_ids(model: str) -> tuple[str, tuple[int, ...]]:
    """`eos_token_id` of generation_config.json, or of config.json where there is no such file; and the file's name."""
    try:
        name, generation = "generation_config.json", GenerationConfig.from_pretrained(model)
    except OSError:
        name, generation = "config.json", GenerationConfig.from_model_config(AutoConfig.from_pretrained(model))
    ids = generation.eos_token_id
    return name, () if ids is None else (ids,) if isinstance(ids, int) else tuple(ids)


def stop_problems(
    model: str, tokenizer, template_kwargs: Mapping[str, Any] | None = None, system_prompt: str | None = None
) -> list[str]:
    """A message where the chat template ends a reply with a token that does not stop the generation, or nothing does.

    Every reply would run to the length limit and count as malformed. A template that writes nothing after a reply is
    accepted: then only the end token of the tokenizer can be meant.

    Args:
        model: folder or hub name of the model.
        tokenizer: its fast tokenizer, with a chat template.
        template_kwargs, system_prompt: see `PromptEncoder`.
    """
    file, configured = _configured_stop_ids(model)
    if tokenizer.eos_token_id is None:
        return [
            "tokenizer_config.json names no eos_token, so no reply would ever end. Try: name the token there "
            "that the chat template writes after a reply"
        ]
    after = PromptEncoder(tokenizer, template_kwargs, system_prompt).after_reply()
    first = next((token_id for token_id in after if tokenizer.decode([token_id]).strip()), None)
    if first is None or first in stop_token_ids(model, tokenizer):
        return []
    names = ", ".join(f"{tokenizer.convert_ids_to_tokens(token_id)!r} ({token_id})" for token_id in configured)
    return [
        f"the chat template ends a reply with {tokenizer.convert_ids_to_tokens(first)!r} ({first}), but "
        f"tokenizer_config.json names eos_token={tokenizer.eos_token!r} ({tokenizer.eos_token_id}) and {file} names "
        f"eos_token_id={names or 'null'}: every reply would run to the length limit. Try: add {first} to "
        "eos_token_id in generation_config.json of this model"
    ]
