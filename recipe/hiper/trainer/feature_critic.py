# SPDX-License-Identifier: Apache-2.0
"""A critic on the policy's own backbone (`critic.backbone=policy`): value heads on its hidden states.

The heads are a small network in the trainer's process. No gradient reaches the policy, so its update is what it would
be with any other critic, and there is no second model to hold, to run or to update. The hidden states of a turn are a
column of the forward pass that computes the log-probabilities (`verl_plugins.value_features`).

The heads also see how much of the step limit is used up. Prompts do not say it, and returns depend on it.

Notation, shapes in names: _R rows (one turn each), 2 places of a turn, _F features, 3 values of a turn by `ValueSlot`.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor, nn

from recipe.hiper.configuration.settings import FeatureCriticConfig
from recipe.hiper.estimators.values import HEAD_OF_SLOT, ValueSlot
from verl_plugins.value_features import DEPTHS

HIDDEN = 256
"""Width of the network between features and heads."""

ELAPSED_SCALE = 10.0
"""Factor of the used share of the step limit. It is one input beside hundreds of unit variance."""

FIRST, LOW = 0, 1
PLACE_OF_SLOT = {ValueSlot.HIGH: FIRST, ValueSlot.LOW: LOW, ValueSlot.TERM: FIRST}
"""Which of the two places of a turn each value is read at, as in `estimators.values.read_slots`."""


class FeatureCritic:
    """Value heads on hidden states of the policy.

    The network is made at the first batch, which tells its size. Its output starts at 0: before anything is learned
    every value is 0, not a random number.
    """

    def __init__(self, config: FeatureCriticConfig):
        self.config = config
        self._random = torch.Generator().manual_seed(config.seed)
        self._network: nn.Sequential | None = None
        self._optimizer: torch.optim.AdamW | None = None
        self._earlier: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=config.replay_steps - 1)

    def values(self, features: Tensor, elapsed: Tensor) -> Tensor:
        """The three values of each turn.

        Args:
            features: `[R, 2, F]`.
            elapsed: share of the step limit that was used up before the turn, `[R]`.

        Returns:
            Float32 `[R, 3]` by `ValueSlot`.
        """
        with torch.no_grad():
            return self._read(_inputs(features, elapsed))

    def fit(self, features: Tensor, elapsed: Tensor, targets: Tensor, mask: Tensor) -> dict[str, float]:
        """Update the heads on the turns of a step and of the `replay_steps - 1` steps before it.

        The loss of a mini-batch is `sum_h c_h mean 1/2 (v - G)^2`, each mean over the rows that have that target.
        Earlier turns keep the targets and hidden states that they had.

        Args:
            features: `[R, 2, F]`.
            elapsed: as in `values`.
            targets: `[R, 3]` by `ValueSlot`.
            mask: which of the targets exist, `[R, 3]`.

        Returns:
            The losses of the step's turns before the first update, and the norm of the last gradient.
        """
        useful = mask.bool().any(dim=1)  # padding rows carry no target
        step = _inputs(features, elapsed)[useful], targets[useful].float(), mask[useful].float()
        names = [slot for slot in ValueSlot if self.config.num_heads > 1 or slot is ValueSlot.HIGH]
        with torch.no_grad():
            before = self._losses(*step)
        metrics = {f"critic/vf_loss_{slot.name.lower()}": float(before[slot]) for slot in names}
        norm = torch.zeros(())
        inputs, targets, mask = (torch.cat(columns) for columns in zip(*self._earlier, step, strict=True))
        self._earlier.append(step)
        for _ in range(self.config.epochs):
            order = torch.randperm(len(inputs), generator=self._random)
            for rows in order.split(self.config.mini_batch):
                losses = self._losses(inputs[rows], targets[rows], mask[rows])
                loss = (losses * torch.tensor(self.config.coefficients)).sum()
                self.optimizer.zero_grad()
                loss.backward()
                norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_grad)
                self.optimizer.step()
        return metrics | {"critic/grad_norm": float(norm), "critic/lr": self.config.lr}

    @property
    def network(self) -> nn.Sequential:
        """The network.

        Raises:
            RuntimeError: there was no batch yet.
        """
        if self._network is None:
            raise RuntimeError("the critic has no network before its first batch")
        return self._network

    @property
    def optimizer(self) -> torch.optim.AdamW:
        """Its optimizer; see `network`."""
        assert self.network is not None and self._optimizer is not None
        return self._optimizer

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs; without a network before the first batch."""
        state: dict[str, Any] = {"random": self._random.get_state(), "earlier": list(self._earlier)}
        if self._network is not None:
            state |= {"network": self._network.state_dict(), "optimizer": self.optimizer.state_dict()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was called."""
        if "network" in state:
            self._build(state["network"]["0.weight"].shape[1])
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
        self._random.set_state(state["random"])
        self._earlier.extend(state["earlier"])

    def _build(self, inputs: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            hidden, heads = nn.Linear(inputs, HIDDEN), nn.Linear(HIDDEN, self.config.num_heads)
        nn.init.zeros_(heads.weight)
        nn.init.zeros_(heads.bias)
        self._network = nn.Sequential(hidden, nn.GELU(), heads)
        self._optimizer = torch.optim.AdamW(
            self._network.parameters(), lr=self.config.lr, weight_decay=self.config.weight_decay
        )

    def _read(self, inputs: Tensor) -> Tensor:
        if self._network is None:
            self._build(inputs.shape[-1])
        heads = self.network(inputs)  # [R, 2, heads]
        head_of_slot = HEAD_OF_SLOT[self.config.num_heads]
        return torch.stack([heads[:, PLACE_OF_SLOT[slot], head_of_slot[slot]] for slot in ValueSlot], dim=1)

    def _losses(self, inputs: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
        error = 0.5 * (self._read(inputs) - targets) ** 2 * mask
        return error.sum(dim=0) / mask.sum(dim=0).clamp(min=1.0)


def _inputs(features: Tensor, elapsed: Tensor) -> Tensor:
    """What the network reads, `[R, 2, F + 1]`. Each layer is normalised by itself: later layers have larger numbers."""
    layers = features.float().unflatten(-1, (len(DEPTHS), -1))
    normal = nn.functional.layer_norm(layers, layers.shape[-1:]).flatten(-2)
    used = ELAPSED_SCALE * (elapsed.float() - 0.5)
    return torch.cat([normal, used[:, None, None].expand(-1, normal.shape[1], 1)], dim=-1)
