# SPDX-License-Identifier: Apache-2.0
"""A small byte-level BPE tokenizer in Qwen2's own tokenizer class, trained on the games' own text.

The class matters: `AutoTokenizer`, and with it verl and vLLM, gives every model of type `qwen2` a `Qwen2Tokenizer` with
Qwen2's normalizer and word splitting, whatever a tokenizer file says about them. A tokenizer with a pipeline of its own
would be trained with one segmentation and used with another.

Qwen2 splits off digits without the space before them. Here a digit with its space is a token that is added whole, so
that every name of the games is two tokens, ` drawer` and ` 2`, in prompts and replies alike: copying a name is copying
two tokens. Each tag of the plan-execute protocol is one token of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer

PAD = "<|pad|>"
END = "<|endoftext|>"
TAGS = ("<switch>", "</switch>", "<subgoal>", "</subgoal>", "<action>", "</action>", "KEEP", "SWITCH")
NUMBERS = tuple(f" {digit}" for digit in range(1, 10))
"""Like TAGS, tokens whatever the texts hold; not special ones: decoding with `skip_special_tokens` keeps them."""

CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""A chat is its messages' contents and nothing else: the model was never shown roles."""


def train_tokenizer(texts: Iterable[str], max_vocabulary: int, model_max_length: int) -> Qwen2Tokenizer:
    """Learns merges from `texts`.

    Args:
        texts: prompts and replies.
        max_vocabulary: upper limit of the vocabulary before tags and numbers are added. Fewer entries come out when
            every word of the texts is one token already.
        model_max_length: written to the tokenizer's configuration.

    Returns:
        A tokenizer for which `decode(encode(x)) == x` for every text in Unicode's composed form (NFC, in which
        Qwen2 reads all text). Use `len()` for the vocabulary of the model.
    """
    pipeline = Qwen2Tokenizer().backend_tokenizer
    learner = Tokenizer(models.BPE())
    learner.normalizer, learner.pre_tokenizer = pipeline.normalizer, pipeline.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=max_vocabulary,
        min_frequency=2,
        special_tokens=[PAD, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator((_without_added(text) for text in texts), trainer)
    learned = json.loads(learner.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=[tuple(merge) for merge in learned["merges"]],
        unk_token=END,
        eos_token=END,
        pad_token=PAD,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=model_max_length,
        padding_side="left",
    )
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in (*TAGS, *NUMBERS)])
    return tokenizer


def _without_added(text: str) -> str:
    for added in (*TAGS, *NUMBERS):
        text = text.replace(added, "\n")
    return text
