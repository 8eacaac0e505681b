# SPDX-License-Identifier: Apache-2.0
"""Between token ids and text, without ever tokenising a reply again."""

from __future__ import annotations

from tokenizers.decoders import DecodeStream


def reply_pieces(tokenizer, token_ids: list[int]) -> list[str]:
    """The text each generated token adds to the reply, in order.

    A token that completes no character adds "", and the token that completes it adds the whole character. Special
    tokens (end of sequence) add "". Bytes at the end that never became a character are the last token's. The pieces
    joined are the reply's text, so character positions found in it are positions in the tokens that were sampled.

    Args:
        tokenizer: a fast Hugging Face tokenizer.
        token_ids: as the rollout engine returned them.
    """
    stream = DecodeStream(skip_special_tokens=True)
    backend = tokenizer.backend_tokenizer
    pieces = [stream.step(backend, token_id) or "" for token_id in token_ids]
    if pieces:
        pieces[-1] += backend.decode(token_ids, skip_special_tokens=True)[sum(map(len, pieces)) :]
    return pieces


class PromptEncoder:
    """Turns the text of one user message into the token ids of a prompt.

    Args:
        tokenizer: a fast Hugging Face tokenizer with a chat template.
        template_kwargs: passed to the template (`data.apply_chat_template_kwargs`).
    """

    def __init__(self, tokenizer, template_kwargs: dict | None = None) -> None:
        self._tokenizer = tokenizer
        self._template_kwargs = dict(template_kwargs or {})
        self._latest: tuple[str, list[int]] = ("", [])

    def encode(self, text: str) -> list[int]:
        """Token ids of a conversation that holds this message and ends where the reply starts."""
        if text != self._latest[0] or not text:  # a prompt that fits is counted and then encoded
            self._latest = text, self._encode(text)
        return list(self._latest[1])

    def _encode(self, text: str) -> list[int]:
        prompt = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False, **self._template_kwargs
        )
        return self._tokenizer(prompt, add_special_tokens=False).input_ids

    def count(self, text: str) -> int:
        """Number of those tokens."""
        return len(self.encode(text))
