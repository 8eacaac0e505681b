# SPDX-License-Identifier: Apache-2.0
"""Behaviour cloning: teaches a model to reply as the expert does, with a fixed number of steps.

The loss is the mean cross-entropy of the reply's tokens plus, weighted, that of the prompt's. The prompt is nearly all
names that occurred before in it, so predicting it is an exercise in copying, and copying names from the list of
admissible actions is what a small model finds hardest. It costs little: the prompt is read anyway.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from agent_system.errors import ConfigError
from agent_system.rollout.tokens import PromptEncoder, encode_reply
from recipe.hiper.cold_start.demonstrations import Example

_IGNORED = -100
_BUCKET = 32
"""Batches whose examples are sorted by length together: less padding, and still a random order of batches."""


@dataclass(frozen=True)
class TrainSpec:
    """How the model is trained.

    Args:
        steps: optimizer steps. A number, not a time, so that the result does not depend on the machine's speed.
        batch: examples (turns) in a step.
        lr: peak learning rate of AdamW; linear warm-up, then a cosine down to a tenth.
        warmup: steps of warm-up.
        prompt_weight: weight of the prompt's cross-entropy beside the reply's.
        seed: of the initial weights and of the order of examples.
    """

    steps: int = 1500
    batch: int = 32
    lr: float = 2e-3
    warmup: int = 100
    prompt_weight: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(
                f"warm_start.steps={self.steps}: at least 1 is needed. Try: warm_start.steps=null "
                "(or leave out --steps) for the default"
            )


@dataclass(frozen=True)
class TrainReport:
    """What training came to: mean reply loss of the first and last tenth of steps, and the held-out measures."""

    first_loss: float
    last_loss: float
    held_out_loss: float
    held_out_exact: float


@dataclass(frozen=True)
class EncodedExample:
    """Token ids of a prompt, and of its reply with the end-of-sequence token."""

    prompt: tuple[int, ...]
    reply: tuple[int, ...]

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.reply)


def encode(examples: Sequence[Example], tokenizer: PreTrainedTokenizerFast) -> list[EncodedExample]:
    """Prompts go through the chat template, as they do when the model is used."""
    encoder = PromptEncoder(tokenizer)
    return [EncodedExample(tuple(encoder.encode(e.prompt)), tuple(encode_reply(tokenizer, e.reply))) for e in examples]


def train(
    model: Qwen2ForCausalLM,
    examples: Sequence[EncodedExample],
    held_out: Sequence[EncodedExample],
    spec: TrainSpec,
    *,
    progress: bool,
) -> TrainReport:
    """Trains `model` in place."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=spec.lr, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _lr_factor(step, spec))
    model.train()
    losses: list[float] = []
    exact = 0.0
    with tqdm(total=spec.steps, desc="behaviour cloning", unit="step", disable=not progress) as bar:
        for step, batch in enumerate(_batches(examples, spec)):
            reply_loss, prompt_loss = _losses(model, batch)
            optimizer.zero_grad()
            (reply_loss + spec.prompt_weight * prompt_loss).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(reply_loss.item())
            if progress and step % 250 == 249:
                exact = held_out_measures(model, held_out[:256])[1]
            bar.set_postfix_str(f"loss {sum(losses[-50:]) / len(losses[-50:]):.3f}, held-out exact {exact:.0%}")
            bar.update()
    model.eval()
    tenth = max(1, spec.steps // 10)
    return TrainReport(sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth, *held_out_measures(model, held_out))


@torch.no_grad()
def held_out_measures(model: Qwen2ForCausalLM, examples: Sequence[EncodedExample]) -> tuple[float, float]:
    """Mean cross-entropy of the reply tokens in nats, and the share of replies whose tokens are all the most likely."""
    was_training = model.training
    model.eval()
    total, tokens, exact = 0.0, 0, 0
    ordered = sorted(examples, key=lambda e: e.length)
    for start in range(0, len(ordered), 64):
        ids_BL, targets_BL, in_reply_BL = _collate(ordered[start : start + 64])
        logits_BLV = model(input_ids=ids_BL, use_cache=False).logits
        log_probs_BL = -F.cross_entropy(logits_BLV.transpose(1, 2), targets_BL, reduction="none", ignore_index=_IGNORED)
        total -= log_probs_BL[in_reply_BL].sum().item()
        tokens += int(in_reply_BL.sum())
        exact += int(((logits_BLV.argmax(-1) == targets_BL) | ~in_reply_BL).all(dim=1).sum())
    model.train(was_training)
    return total / max(1, tokens), exact / max(1, len(ordered))


def _losses(model: Qwen2ForCausalLM, batch: Sequence[EncodedExample]) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of the reply tokens and of the prompt tokens: two scalars."""
    ids_BL, targets_BL, in_reply_BL = _collate(batch)
    logits_BLV = model(input_ids=ids_BL, use_cache=False).logits
    in_prompt_BL = ~in_reply_BL & (targets_BL != _IGNORED)
    reply = F.cross_entropy(logits_BLV[in_reply_BL], targets_BL[in_reply_BL])
    return reply, F.cross_entropy(logits_BLV[in_prompt_BL], targets_BL[in_prompt_BL])


def _collate(batch: Sequence[EncodedExample]) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, next tokens and whether those belong to the reply, all `[B, L]`.

    Padding is on the right, where a causal model cannot see it from the real tokens: no attention mask is needed.
    """
    length = max(e.length for e in batch) - 1
    ids_BL = torch.zeros(len(batch), length, dtype=torch.long)
    targets_BL = torch.full((len(batch), length), _IGNORED, dtype=torch.long)
    in_reply_BL = torch.zeros(len(batch), length, dtype=torch.bool)
    for row, example in enumerate(batch):
        tokens = torch.tensor(example.prompt + example.reply)
        ids_BL[row, : example.length - 1] = tokens[:-1]
        targets_BL[row, : example.length - 1] = tokens[1:]
        in_reply_BL[row, len(example.prompt) - 1 : example.length - 1] = True
    return ids_BL, targets_BL, in_reply_BL


def _batches(examples: Sequence[EncodedExample], spec: TrainSpec) -> Iterator[list[EncodedExample]]:
    """`spec.steps` batches of examples of similar length, epoch after epoch, in an order drawn from the seed."""
    rng = random.Random(spec.seed)
    made = 0
    while True:
        order = list(range(len(examples)))
        rng.shuffle(order)
        for start in range(0, len(order), spec.batch * _BUCKET):
            bucket = sorted(order[start : start + spec.batch * _BUCKET], key=lambda i: examples[i].length)
            batches = [bucket[i : i + spec.batch] for i in range(0, len(bucket), spec.batch)]
            rng.shuffle(batches)
            for batch in batches:
                yield [examples[i] for i in batch]
                made += 1
                if made == spec.steps:
                    return


def _lr_factor(step: int, spec: TrainSpec) -> float:
    if step < spec.warmup:
        return (step + 1) / spec.warmup
    done = (step - spec.warmup) / max(1, spec.steps - spec.warmup)
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done))
