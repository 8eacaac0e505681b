# SPDX-License-Identifier: Apache-2.0
"""A small byte-level BPE tokenizer in Qwen2's own tokenizer class, trained on the games' own text.

The class matters: `AutoTokenizer`, and with it verl and vLLM, gives every model of type `qwen2` a `Qwen2Tokenizer` with
Qwen2's normalizer and word splitting, regardless of the tokenizer file. A tokenizer with a pipeline of its own
would be trained with one segmentation and used with another. What goes beyond that segmentation is added as whole
tokens, which are found before words are split:

- each tag of the plan-execute protocol;
- a digit with the space before it, which Qwen2 splits off: every name of the games is two tokens, ` drawer` and ` 2`,
  in prompts and replies alike, and copying a name is copying two tokens;
- phrases of several words that the games repeat (`You arrive at`, ` | go to`), as SuperBPE has them (Liu et al. 2025,
  arXiv 2503.13423). They never reach into a name, a kind of thing or a tag: the same thing is always the same tokens.

Phrases shorten prompts by a third, and with them every forward pass of rollout and training.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer

PAD = "<|pad|>"
END = "<|endoftext|>"
TAGS = ("<switch>", "</switch>", "<subgoal>", "</subgoal>", "<action>", "</action>", "KEEP", "SWITCH")
NUMBERS = tuple(f" {digit}" for digit in range(1, 10))
"""Like TAGS, tokens for all texts; not special ones: decoding with `skip_special_tokens` keeps them."""

CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""A chat is its messages' contents and nothing else: the model was never shown roles."""

MIN_COUNT = 20
"""How often a phrase must occur to become a token."""
_NAME = re.compile(r"( [A-Za-z]+) [1-9]\d?(?!\d)")
_WORD = re.compile(r" ?[A-Za-z]+| ?[^\sA-Za-z]")
_FIRST_WORD_MARK = 0xE000
"""Unicode's private use area: no text of the games holds its characters."""


def train_tokenizer(
    texts: Iterable[str],
    max_vocabulary: int,
    model_max_length: int,
    max_phrases: int,
    names: Sequence[str] = (),
    apart: str = "",
) -> Qwen2Tokenizer:
    """Learns merges, names and phrases from `texts`.

    Args:
        texts: prompts and replies.
        max_vocabulary: upper limit of the vocabulary before tags, numbers and phrases are added. Fewer entries come
            out when every word of the texts is one token already.
        model_max_length: written to the tokenizer's configuration.
        max_phrases: upper limit of the phrases.
        names: words that become a token each, where they are separate words.
        apart: characters that no phrase holds.

    Returns:
        A tokenizer for which `decode(encode(x)) == x` for every text in Unicode's composed form (NFC, in which
        Qwen2 reads all text). Use `len()` for the vocabulary of the model.
    """
    texts = list(texts)
    added = [*TAGS, *NUMBERS, *find_phrases(texts, max_phrases, names, apart)]
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
    fixed = re.compile(rf"{_any_of([*TAGS, *NUMBERS])}|\b(?:{_any_of(names)})\b")
    learner.train_from_iterator((fixed.sub("\n", text) for text in texts), trainer)
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
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in added])
    tokenizer.add_tokens([AddedToken(n, normalized=False, special=False, single_word=True) for n in names])
    return tokenizer


def find_phrases(texts: Sequence[str], limit: int, names: Sequence[str] = (), apart: str = "") -> list[str]:
    """The phrases of at least two words that byte-pair encoding over whole words merges first, sorted.

    Texts are cut at tags, line breaks, numbers, kinds of things (the words before numbers), and before each
    ` |` of a list; no phrase reaches over a cut. Each word is one character of the alphabet that the merges are
    learned over.

    Args:
        texts: prompts and replies.
        names, apart: words and characters that no phrase reaches over either.
        limit: upper limit of the phrases. A phrase that occurs fewer than `MIN_COUNT` times is none.
    """
    kinds = {kind for text in texts for kind in _NAME.findall(text)}
    whole = rf"(?:{_any_of(kinds)})(?![A-Za-z])|\b(?:{_any_of(names)})\b"
    cut = re.compile(rf"{_any_of(TAGS)}|{whole}| ?\d+|\n|{_any_of(apart)}|(?= \|)")
    marks: dict[str, str] = {}
    pieces: Counter[str] = Counter()
    for text in texts:
        for piece in cut.split(text):
            words = _WORD.findall(piece)
            pieces["".join(marks.setdefault(word, chr(_FIRST_WORD_MARK + len(marks))) for word in words)] += 1
    learner = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=len(marks) + limit, min_frequency=MIN_COUNT, show_progress=False)
    learner.train_from_iterator((piece for piece, count in sorted(pieces.items()) for _ in range(count)), trainer)
    word_of = {mark: word for word, mark in marks.items()}
    merged = (token for token in learner.get_vocab() if len(token) > 1)
    return sorted("".join(word_of[mark] for mark in token) for token in merged)


def _any_of(texts: Iterable[str]) -> str:
    """A pattern for any of the texts, the longest first; it matches nothing where there are none."""
    return "|".join(re.escape(text) for text in sorted(texts, key=lambda text: (-len(text), text))) or "(?!)"
