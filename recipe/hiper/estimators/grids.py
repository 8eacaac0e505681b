# SPDX-License-Identifier: Apache-2.0
"""What an estimator takes and returns: the turns of a batch, and the advantages of their three decisions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recipe.hiper.estimators.shaping import ShapedRewards
from recipe.hiper.estimators.values import ValueSlot


@dataclass(frozen=True)
class TurnGrids:
    """The turns of a batch of episodes, `[episodes, turns]`, right-padded, unless another shape is named.

    Attributes:
        rewards: the environment's.
        valid: marks real turns.
        boundary, copied_exactly, comparable: `protocol.Decision`.
        well_formed, admissible: whether the reply keeps to the format, and whether the action was offered.
        terminated: whether the environment terminated on that turn.
        anchor: equal integers for equal observations.
        group: task and seed of an episode, any integers, `[episodes]`.
        switch_probability: P(SWITCH | s_t, o_{t-1}) under the policy that sampled.
        values: `[episodes, turns, 3]` by `ValueSlot`; None without a critic.
        bootstrap: the same for the state after the last turn, `[episodes, 3]`; None where it counts as 0.
    """

    rewards: Tensor
    valid: Tensor
    boundary: Tensor
    copied_exactly: Tensor
    comparable: Tensor
    well_formed: Tensor
    admissible: Tensor
    terminated: Tensor
    anchor: Tensor
    group: Tensor
    switch_probability: Tensor
    values: Tensor | None = None
    bootstrap: Tensor | None = None

    @property
    def opens(self) -> Tensor:
        """Turns that open a segment."""
        return self.boundary.bool() & self.valid.bool()

    @property
    def required_values(self) -> Tensor:
        """`values`, for an estimator that reads them.

        Raises:
            ValueError: there are none.
        """
        if self.values is None:
            raise ValueError("the estimator reads values, and this batch has none")
        return self.values


@dataclass(frozen=True)
class TurnAdvantages:
    """Advantages before whitening, `[episodes, turns]`, and the targets of the critic.

    Attributes:
        shaped: shaped rewards and their parts.
        switch, subgoal, action: advantage of each decision; `subgoal` is zero off the turns that open a segment. An
            estimator without hierarchy gives all three the same.
        targets: value targets `[episodes, turns, 3]` by `ValueSlot`, zero where there is none.
        has_target: where there is one, bool, same shape.
    """

    shaped: ShapedRewards
    switch: Tensor
    subgoal: Tensor
    action: Tensor
    targets: Tensor
    has_target: Tensor

    @classmethod
    def of_turns(
        cls, turns: TurnGrids, shaped: ShapedRewards, advantage: Tensor, targets: Tensor | None = None
    ) -> TurnAdvantages:
        """One advantage for everything a turn writes, and one value (`ValueSlot.HIGH`).

        Args:
            advantage: `[episodes, turns]`, zero outside valid turns.
            targets: of the value, `[episodes, turns]`, read at valid turns; None without a critic.
        """
        value_targets = torch.zeros(*advantage.shape, len(ValueSlot), dtype=advantage.dtype, device=advantage.device)
        has_target = torch.zeros_like(value_targets, dtype=torch.bool)
        if targets is not None:
            value_targets[..., ValueSlot.HIGH] = targets
            has_target[..., ValueSlot.HIGH] = turns.valid.bool()
        return cls(shaped, advantage, advantage * turns.opens, advantage, value_targets, has_target)
