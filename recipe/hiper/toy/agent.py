# SPDX-License-Identifier: Apache-2.0
"""Policy and critic: a hidden layer over the words of the prompt, and a head for each decision or value.

One network decides everything, as one language model does: switch, then sub-goal, then action, each from the prompt as
it is by then. Prompts are few, so a network is evaluated once on all of them and looked up.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recipe.hiper.estimators.values import HEAD_OF_SLOT, ValueSlot
from recipe.hiper.toy.game import House

HIDDEN = 64


@dataclass(frozen=True)
class Logits:
    """For every prompt: `switch` `[prompts, 2]` (KEEP, SWITCH), `subgoal` `[prompts, subgoals]` (from number 1 on) and
    `action` `[prompts, actions]`, log-probabilities."""

    switch: Tensor
    subgoal: Tensor
    action: Tensor


class Policy(nn.Module):
    """Three categorical heads on `words` inputs."""

    def __init__(self, words: int, house: House) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(words, HIDDEN), nn.Tanh())
        self.sizes = (2, len(house.subgoals), len(house.actions))
        self.heads = nn.Linear(HIDDEN, sum(self.sizes))

    def forward(self, features: Tensor) -> Logits:
        """Log-probabilities of all decisions, for prompts `[prompts, words]`."""
        split = self.heads(self.trunk(features)).split(self.sizes, dim=-1)
        return Logits(*(part.log_softmax(dim=-1) for part in split))


class Critic(nn.Module):
    """One, two or three value heads, read as `values.HEAD_OF_SLOT` defines. They start at zero, as the recipe's do."""

    def __init__(self, words: int, heads: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(words, HIDDEN), nn.Tanh())
        self.heads = nn.Linear(HIDDEN, heads)
        nn.init.zeros_(self.heads.weight)
        nn.init.zeros_(self.heads.bias)
        self.slots = HEAD_OF_SLOT[heads]

    def forward(self, features: Tensor, prompts: Tensor) -> Tensor:
        """Values `[..., 3]` by `ValueSlot`.

        Args:
            features: of all prompts, `[prompts, words]`.
            prompts: the prompt at which each of the three is read, `[..., 3]`.
        """
        values = self.heads(self.trunk(features))
        return torch.stack([values[prompts[..., slot], self.slots[slot]] for slot in ValueSlot], dim=-1)
