# SPDX-License-Identifier: Apache-2.0
"""An alarm when vLLM's policy and the trainer's drift apart, from the metrics of the training steps. Pure functions.

vLLM samples, the trainer updates. In float32 their probabilities of a token differ by 1e-7 in the mean, in bf16 by
about 1e-3, because their kernels round differently (docs/metrics.md). More than that biases the policy gradient; a
difference that grows comes from weights that vLLM does not get, or from a policy that moves to where rounding matters
more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

PROBABILITY_DIFFERENCE = "training/rollout_probs_diff_mean"
"""Mean over the tokens of a step of the difference between the two probabilities of the sampled token."""

LARGEST_DIFFERENCE = 1e-2
"""Above it a step raises the alarm. SmolLM2 in bf16 on both sides: 8e-4."""

GROWTH = 3.0
"""So many times the median of the first `BASE_STEPS` steps, in `ALARM_STEPS` consecutive ones, raises it too."""

BASE_STEPS = 3
ALARM_STEPS = 3

SMALLEST_DIFFERENCE = 1e-5
"""Growth below it is that of float32's last bits."""

REMEDY = (
    "Try: algorithm.rollout_correction.rollout_is=token, actor_rollout_ref.rollout.dtype=float32 (slower); "
    "where both sides compute in float32 the weight sync has an error"
)


def policy_alarm(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """One line about the alarm that holds after the latest of `rows`, the same as long as it lasts; None without one.

    Args:
        rows: rows of metrics.jsonl, in the order of their steps; those without the difference are ignored.
    """
    steps = [row["step"] for row in rows if row.get(PROBABILITY_DIFFERENCE) is not None]
    differences = [row[PROBABILITY_DIFFERENCE] for row in rows if row.get(PROBABILITY_DIFFERENCE) is not None]
    if large := _at_the_end(differences, LARGEST_DIFFERENCE):
        return (
            f"Policy alarm: since step {steps[-large]}, vLLM's probabilities and the trainer's differ by more than "
            f"{LARGEST_DIFFERENCE:g} in the mean ({PROBABILITY_DIFFERENCE}). {REMEDY}"
        )
    if len(differences) < BASE_STEPS + ALARM_STEPS:
        return None
    base = median(differences[:BASE_STEPS])
    grown = _at_the_end(differences[BASE_STEPS:], max(GROWTH * base, SMALLEST_DIFFERENCE))
    if grown < ALARM_STEPS:
        return None
    return (
        f"Policy alarm: since step {steps[-grown]}, the mean difference between vLLM's probabilities and the trainer's "
        f"is more than {GROWTH:g} times that of the first steps, {base:.1e} ({PROBABILITY_DIFFERENCE}). {REMEDY}"
    )


def _at_the_end(values: Sequence[float], limit: float) -> int:
    """How many of the last values are above the limit, without a gap."""
    count = 0
    while count < len(values) and values[-1 - count] > limit:
        count += 1
    return count
