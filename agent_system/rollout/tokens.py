# SPDX-License-Identifier: Apache-2.0
"""Between text and token ids: prompts are rendered and encoded here only, replies are never tokenised again.

Rollouts, the cold start and evaluation all use this file, so that a model is trained on exactly the ids that it is
asked with.

The content of a message is data. A control token (a *special* token of the tokenizer, such as `<|im_end|>`) that an
observation, a task or a sub-goal spells out is encoded as the characters that it consists of. Only the chat template
writes control tokens. What the model samples is data as well: of a reply only the stop token at its end is not text.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any
from uuid import uuid4

from jinja2 import TemplateError
from tokenizers import AddedToken
from tokenizers.decoders import DecodeStream

from agent_system.errors import ConfigError


def reply_pieces(tokenizer, token_ids: list[int], stop_ids: Collection[int]) -> list[str]:
    """The text each generated token adds to the reply, in order.

    A token that completes no character adds "", and the token that completes it adds the whole character. Bytes at the
    end that never became a character are the last token's. A stop token adds "" where it ends the reply; any other
    special token, and a stop token before the end, is text. The pieces joined are the reply's text, so character
    positions found in it are positions in the tokens that were sampled.

    Args:
        tokenizer: a fast Hugging Face tokenizer.
        token_ids: as the rollout engine returned them.
        stop_ids: tokens that end a reply (`stop_tokens.stop_token_ids`).
    """
    backend = tokenizer.backend_tokenizer
    has_ended = not is_cut(token_ids, stop_ids)
    text_ids = token_ids[:-1] if has_ended else token_ids
    stream = DecodeStream(skip_special_tokens=False)
    pieces = [stream.step(backend, token_id) or "" for token_id in text_ids]
    if pieces:
        pieces[-1] += backend.decode(text_ids, skip_special_tokens=False)[sum(map(len, pieces)) :]
    return [*pieces, ""] if has_ended else pieces


def is_cut(token_ids: list[int], stop_ids: Collection[int]) -> bool:
    """Whether a reply reached the length limit before its end: its last token is not a stop token."""
    return not token_ids or token_ids[-1] not in stop_ids


def reply_text(tokenizer, token_ids: list[int], stop_ids: Collection[int]) -> str:
    """The text of a reply."""
    return "".join(reply_pieces(tokenizer, token_ids, stop_ids))


def encode_reply(tokenizer, text: str) -> list[int]:
    """Token ids of a demonstrated reply with its end token. Control tokens in the text are encoded as plain text."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
    return [*ids, tokenizer.eos_token_id]


class PromptEncoder:
    """Turns the text of one user message into the token ids of a prompt.

    For a text without control tokens the ids are those of `apply_chat_template(tokenize=True)`.

    Args:
        tokenizer: a fast Hugging Face tokenizer with a chat template.
        template_kwargs: passed to the template (`data.apply_chat_template_kwargs`).
        system_prompt: content of the system message (`env.system_prompt`). None: there is no such message, and the
            template may write a text of its own. "": an empty message, which replaces that text.

    Raises:
        ConfigError: the chat template cannot render these messages, or does not write their text exactly once.
    """

    def __init__(
        self, tokenizer, template_kwargs: Mapping[str, Any] | None = None, system_prompt: str | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._template_kwargs = dict(template_kwargs or {})
        self._system_prompt = system_prompt
        special = {index: token for index, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._control_tokens: dict[int, AddedToken] = special
        self._latest: tuple[str, list[int]] = ("", [])
        if written := self._control_ids(self._tokenize(system_prompt or "")):
            raise ConfigError(
                f"env.system_prompt holds the control token {special[written[0]].content}, which would end or start a "
                "message. Try: env.system_prompt=<a text without it>"
            )
        self._template_control_ids = self._control_ids(self._tokenize("".join(self._around_message())))

    def encode(self, text: str) -> list[int]:
        """Token ids of a conversation that holds this message and ends where the reply starts."""
        if text != self._latest[0] or not text:  # a prompt that fits is counted and then encoded
            self._latest = text, self._encode(text)
        return list(self._latest[1])

    def count(self, text: str) -> int:
        """Number of those tokens."""
        return len(self.encode(text))

    def after_reply(self) -> list[int]:
        """Token ids that the template writes after a reply: its end token, where it has one, and what follows."""
        mark = uuid4().hex
        rendered = self._render([*self._messages(mark), {"role": "assistant", "content": mark}], False)
        return self._tokenize(rendered.rpartition(mark)[2])

    def _encode(self, text: str) -> list[int]:
        prompt = self._render(self._messages(text), True)
        ids = self._tokenize(prompt)
        if self._control_ids(ids) == self._template_control_ids:
            return ids
        return self._encode_with_plain_content(prompt)

    def _messages(self, text: str) -> list[dict[str, str]]:
        user = {"role": "user", "content": text}
        return [user] if self._system_prompt is None else [{"role": "system", "content": self._system_prompt}, user]

    def _render(self, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        try:
            rendered: str = self._tokenizer.apply_chat_template(
                messages, add_generation_prompt=add_generation_prompt, tokenize=False, **self._template_kwargs
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise ConfigError(
                f"the chat template cannot render the roles {', '.join(m['role'] for m in messages)} with "
                f"data.apply_chat_template_kwargs={self._template_kwargs} ({error}). Try: env.system_prompt=null "
                "data.apply_chat_template_kwargs={}, or another actor_rollout_ref.model.path"
            ) from error
        return rendered

    def _tokenize(self, rendered: str) -> list[int]:
        ids: list[int] = self._tokenizer(rendered, add_special_tokens=False).input_ids
        return ids

    def _control_ids(self, ids: list[int]) -> list[int]:
        return [token_id for token_id in ids if token_id in self._control_tokens]

    def _around_message(self) -> tuple[str, str]:
        """What the template writes before and after the user's message."""
        mark = uuid4().hex
        rendered = self._render(self._messages(mark), True)
        shows_system = not self._system_prompt or self._system_prompt.strip() in rendered
        if rendered.count(mark) != 1 or not shows_system:
            raise ConfigError(
                "the chat template does not write every message exactly once, so the model would be shown something "
                "else than the prompt. Try: actor_rollout_ref.model.path=<a model with another chat template>, or "
                "env.system_prompt=null"
            )
        before, _, after = rendered.partition(mark)
        return before, after

    def _encode_with_plain_content(self, prompt: str) -> list[int]:
        """The ids of a rendered prompt in which only the template's control tokens are control tokens.

        In a copy of the tokenizer that knows no control tokens, each has an alias, an ordinary added token with a name
        that no text can guess. With the template's own control tokens replaced by their aliases, the prompt is encoded
        in one piece: what is next to the message is tokenised together with it, as always.
        """
        before, after = self._around_message()
        content = prompt[len(before) : len(prompt) - len(after)]  # some templates strip it
        if before + content + after != prompt:
            raise ConfigError(
                "the chat template writes another text around this message, so control tokens in the message cannot "
                "be told from its own. Try: actor_rollout_ref.model.path=<a model with another chat template>"
            )
        tokenizer, aliases, ids = self._without_control_tokens
        pattern = re.compile("|".join(re.escape(text) for text in sorted(aliases, key=len, reverse=True)))
        before, after = (pattern.sub(lambda match: aliases[match[0]], part) for part in (before, after))
        encoded = tokenizer.encode(before + content + after, add_special_tokens=False).ids
        # The unknown token may be a control token too (SmolLM2: <|endoftext|>): what has no token is left out.
        return [ids.get(token_id, token_id) for token_id in encoded if token_id not in self._control_tokens]

    @cached_property
    def _without_control_tokens(self) -> tuple[Any, dict[str, str], dict[int, int]]:
        """The copy of the tokenizer; the alias of each control token's text; the control token of each alias's id."""
        tokenizer = copy.deepcopy(self._tokenizer.backend_tokenizer)
        tokenizer.encode_special_tokens = True  # as plain text
        tokenizer.no_truncation()
        tokenizer.no_padding()
        aliases, ids = {}, {}
        for index, token in self._control_tokens.items():
            alias = f"<{uuid4().hex}>"
            flags = {name: getattr(token, name) for name in ("lstrip", "rstrip", "single_word", "normalized")}
            tokenizer.add_tokens([AddedToken(alias, special=False, **flags)])
            aliases[token.content] = alias
            ids[tokenizer.token_to_id(alias)] = index
        return tokenizer, aliases, ids
