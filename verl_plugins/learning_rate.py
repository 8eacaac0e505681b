# SPDX-License-Identifier: Apache-2.0
"""Warm-up of the learning rate from 1/N, and the rate of the update just made in the log. Registers nothing.

verl's schedules start at 0: of N warm-up steps the first changes no weight and costs as much as any other. Its metric
`lr` is read after the schedule has moved on, so it shows the rate of the next step.
"""

from __future__ import annotations

from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def from_first_step(factor: Callable[[int], float], warm_up: int) -> Callable[[int], float]:
    """The schedule `factor` with (step + 1) / warm_up during the first `warm_up` steps, which ends at 1.

    Args:
        factor: learning rate of a step, counted from 0, divided by the peak.
        warm_up: steps of linear warm-up; 0 or 1 changes nothing.
    """
    return lambda step: (step + 1) / warm_up if step < warm_up else factor(step)


def warm_up_steps(config) -> int:
    """Steps of linear warm-up in verl's configuration of an optimizer: a number, or else a share of all steps."""
    if config.lr_warmup_steps > 0:
        return int(config.lr_warmup_steps)
    return int(config.lr_warmup_steps_ratio * config.total_training_steps)


class WarmUpMixin:
    """Put before a verl FSDP engine class."""

    def _build_lr_scheduler(self, optimizer: Optimizer) -> LambdaLR:
        scheduler: LambdaLR = super()._build_lr_scheduler(optimizer)  # type: ignore[misc]
        warm_up = warm_up_steps(self.optimizer_config)  # type: ignore[attr-defined]
        # A second schedule on the same optimizer starts from the same peak, which the first left in "initial_lr".
        return LambdaLR(optimizer, [from_first_step(factor, warm_up) for factor in scheduler.lr_lambdas])

    def lr_scheduler_step(self) -> float:
        """Advance the schedule, and return the learning rate of the update before (verl returns the next one)."""
        used = self.lr_scheduler.get_last_lr()[0]  # type: ignore[attr-defined]
        super().lr_scheduler_step()  # type: ignore[misc]
        return used
