# SPDX-License-Identifier: Apache-2.0
"""Whether prompts and replies survive a tokenizer and its chat template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent_system.errors import ConfigError
from agent_system.plan_execute.protocol import TAGS
from agent_system.rollout.stop_tokens import stop_problems
from agent_system.rollout.tokens import PromptEncoder


def tokenizer_problems(
    tokenizer, template_kwargs: Mapping[str, Any] | None = None, system_prompt: str | None = None
) -> list[str]:
    """A message for everything that makes a tokenizer, or its chat template, unfit for prompts and replies.

    Args:
        tokenizer: a fast Hugging Face tokenizer with a chat template.
        template_kwargs, system_prompt: see `PromptEncoder`.
    """
    problems = []
    if hidden := [tag for tag in TAGS if _decoded(tokenizer, tag) != tag]:
        problems.append(
            f"tokenizer.json: {' '.join(hidden)} decode to another text or to nothing, so replies that hold these tags "
            'read as malformed; as tags they must not be special tokens. Try: "special": false for them in '
            "tokenizer.json and tokenizer_config.json"
        )
    try:
        PromptEncoder(tokenizer, template_kwargs, system_prompt)
    except ConfigError as error:
        problems.append(str(error))
    return problems


def _decoded(tokenizer, text: str) -> str:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    decoded: str = tokenizer.decode(ids, skip_special_tokens=True)
    return decoded.strip()


def text_problems(model: str, tokenizer, template_kwargs: Mapping[str, Any], system_prompt: str | None) -> list[str]:
    """`tokenizer_problems` and, where there are none, `stop_problems`, each with the model's path."""
    problems = tokenizer_problems(tokenizer, template_kwargs, system_prompt)
    key = f"actor_rollout_ref.model.path={model}"
    return [f"{key}: {problem}" for problem in problems] or [
        f"{key}: {problem}" for problem in stop_problems(model, tokenizer, template_kwargs, system_prompt)
    ]
