# SPDX-License-Identifier: Apache-2.0
"""How estimates of the same turns differ, by type of decision. For the credit lab.

Notation: G(t) = sum_k gamma^k r(t+k) over the rest of the episode (nothing after its end, cut or not), b(t) a baseline
that was settled before the decision. G(t) - b(t) is the Monte-Carlo advantage: free of bias and as noisy as the
episodes are, so it is what the others are compared with. The mean return that an estimator expects is A(t) + b(t).

Whose baseline? One value too high or too low for all turns alike moves no policy gradient (its expectation times
grad log pi is 0) and goes in whitening. Bias is therefore taken against the Monte-Carlo advantage with the estimator's
*own* baseline: the rest is the error of the return that it estimates. All else is taken against *one* reference
for all rows, with the value recorded before the decision: V_term of a switch, V_hi of a sub-goal, V_lo of an action.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.stats
import torch
from torch import Tensor

from recipe.hiper.credit_lab.episodes import ADVANTAGES, Episodes
from recipe.hiper.credit_lab.estimators import Decision, VariantAdvantages, decision_masks, mean_of_others
from recipe.hiper.estimators.values import ValueSlot

REFERENCE = "Monte Carlo"
RESAMPLES = 1000
AT_ONCE = 50
"""Resamples drawn together: all at once would need gigabytes for the files of a long run."""
FEWEST_TURNS = 5
"""Means over fewer turns than this are not drawn."""
NAN = float("nan")


class Interval(NamedTuple):
    """An estimate with its 95% interval; not a number where there is none."""

    value: float
    low: float = NAN
    high: float = NAN


@dataclass(frozen=True)
class Row:
    """One estimator on the turns that carry one type of decision.

    Attributes:
        turns: how many.
        mean, sd: of the advantages before whitening.
        bias: mean of A - (G - own baseline).
        variance_ratio: variance over that of the Monte-Carlo advantage.
        sign_agreement: fraction of turns with the Monte-Carlo advantage's sign, of those on which neither is 0.
        correlation: Pearson's, with the Monte-Carlo advantage.
        zero_fraction: fraction of turns on which the advantage is exactly 0.
        pull: mean of (q - beta) A in units of `sd`, switch only: the slope of the objective, as the estimator sees it,
            along a common logit of SWITCH. Above 0 the update makes SWITCH likelier. A baseline adds nothing to its
            expectation, so it is the one column that shows the bias of the gradient itself.

    What is in units of the reward is not a number for advantages in standard deviations.
    """

    decision: Decision
    label: str
    estimator: str
    turns: int
    mean: float
    sd: float
    bias: Interval
    variance_ratio: float
    sign_agreement: float
    correlation: float
    zero_fraction: float
    pull: Interval


@dataclass(frozen=True)
class OutcomeCurve:
    """Mean action advantage of an estimator by turns to the end, in units of its standard deviation.

    Attributes:
        won, lost: (turns to the end, mean) of episodes that ended so.
    """

    label: str
    estimator: str
    won: list[tuple[int, float]]
    lost: list[tuple[int, float]]


@dataclass(frozen=True)
class Comparison:
    """Everything the lab reports.

    Attributes:
        rows: the table, the reference first for each type of decision.
        correlations: of all rows with each other, `[rows, rows]`, for each type that occurs.
        curves: by outcome.
        explained: fraction of the variance of the return-to-go that the reference's baseline explains.
        recorded: how the advantages of the run compare with these.
    """

    rows: list[Row]
    correlations: dict[Decision, np.ndarray]
    curves: list[OutcomeCurve]
    explained: dict[Decision, float]
    recorded: str


def return_to_go(rewards: Tensor, gamma: float) -> Tensor:
    """G(t) of padded grids `[episodes, turns]` whose padding is 0."""
    carry, columns = torch.zeros_like(rewards[:, 0]), []
    for reward in reversed(rewards.unbind(dim=1)):
        carry = reward + gamma * carry
        columns.append(carry)
    return torch.stack(columns[::-1], dim=1)


def monte_carlo(episodes: Episodes, gamma: float) -> tuple[Tensor, VariantAdvantages]:
    """G(t) `[episodes, turns]` and the reference. Without values its baseline is the mean return of other episodes."""
    returns = return_to_go(episodes.turns.rewards, gamma)
    values, shape = episodes.turns.values, (*returns.shape, len(Decision))
    if values is None:
        baseline = mean_of_others(episodes, returns[:, 0])[:, None, None].expand(shape)
    elif episodes.has_one_head or not episodes.is_hierarchical:
        baseline = values[..., ValueSlot.HIGH, None].expand(shape)
    else:
        baseline = torch.stack([values[..., head] for head in (ValueSlot.TERM, ValueSlot.HIGH, ValueSlot.LOW)], dim=-1)
    return returns, VariantAdvantages(REFERENCE, "reference", returns[..., None] - baseline, baseline)


def compare_variants(episodes: Episodes, variants: list[VariantAdvantages], gamma: float) -> Comparison:
    """Compare. Deterministic: the bootstrap has a fixed seed."""
    returns, reference = monte_carlo(episodes, gamma)
    compared = [reference, *variants]
    masks = decision_masks(episodes)
    decisions = [decision for decision in Decision if masks[..., decision].any()]
    rows, correlations, explained = [], {}, {}
    for decision in decisions:
        mask = masks[..., decision]
        at = _Turns(episodes, mask, returns[mask].numpy())
        advantages = [variant.advantages[..., decision][mask].numpy() for variant in compared]
        for variant, advantage in zip(compared, advantages, strict=True):
            own = variant.baseline[..., decision][mask].numpy()
            rows.append(_row(decision, variant, advantage, own, advantages[0], at))
        matrix = [[_correlation(a, b) for b in advantages] for a in advantages]
        correlations[decision] = np.array(matrix)
        explained[decision] = 1.0 - _ratio(advantages[0].var(), at.returns.var())
    curves = [_curve(variant, episodes) for variant in compared]
    return Comparison(rows, correlations, curves, explained, recorded_note(episodes, variants))


def recorded_note(episodes: Episodes, variants: list[VariantAdvantages]) -> str:
    """Which of the estimators recomputes what the run recorded, in a sentence; "" if it recorded nothing."""
    if episodes.recorded is None:
        return ""
    # Training gives the switch block of turn 0 an advantage too, so nothing is left out here.
    valid, opens = episodes.turns.valid, episodes.turns.opens
    mask = torch.stack([valid, opens, valid], dim=-1)[..., : len(ADVANTAGES)]
    recorded = episodes.recorded[mask]
    worst = {variant.label: float((variant.advantages[mask] - recorded).abs().max()) for variant in variants}
    nearest = min(worst, key=lambda label: worst[label])
    gap = worst[nearest]
    if gap <= 1e-4 * max(1.0, float(recorded.abs().max())):
        return f"The run recorded the advantages of {nearest}: recomputed here, they differ by {gap:.1e} at most."
    return (
        "The advantages that the run recorded are none of these. It had another gamma or lambda, charged something to "
        "the switch decision alone, valued states after the step limit, or used an estimator that is not in the table."
    )


@dataclass(frozen=True)
class _Turns:
    """The turns that carry a decision, flattened."""

    episodes: Episodes
    mask: Tensor
    returns: np.ndarray

    @property
    def cluster(self) -> np.ndarray:
        """Group of each turn. Episodes of a group share their task and baseline, so groups are what is independent."""
        return self.episodes.turns.group[:, None].expand(self.mask.shape)[self.mask].numpy()

    @property
    def surprise(self) -> np.ndarray:
        """q - beta."""
        turns = self.episodes.turns
        return (turns.boundary.double() - turns.switch_probability)[self.mask].numpy()


def _row(
    decision: Decision,
    variant: VariantAdvantages,
    advantage: np.ndarray,
    own: np.ndarray,
    reference: np.ndarray,
    at: _Turns,
) -> Row:
    sd = float(advantage.std())
    is_zero = np.abs(advantage) <= 1e-9 * max(1.0, float(np.abs(advantage).max()))
    both_nonzero = ~is_zero & (np.abs(reference) > 1e-9)
    agreement = np.sign(advantage[both_nonzero]) == np.sign(reference[both_nonzero])
    bias = pull = Interval(NAN)
    if variant.in_reward_units:
        bias = bootstrap_mean(advantage - (at.returns - own), at.cluster)
    if decision is Decision.SWITCH and not at.episodes.without_probability:
        slope = bootstrap_mean(at.surprise * advantage, at.cluster)
        pull = Interval(*(_ratio(value, sd) for value in slope))
    return Row(
        decision=decision,
        label=variant.label,
        estimator=variant.estimator,
        turns=len(advantage),
        mean=float(advantage.mean()) if variant.in_reward_units else NAN,
        sd=sd if variant.in_reward_units else NAN,
        bias=bias,
        variance_ratio=_ratio(sd**2, float(reference.var())) if variant.in_reward_units else NAN,
        sign_agreement=float(agreement.mean()) if len(agreement) else NAN,
        correlation=_correlation(advantage, reference),
        zero_fraction=float(is_zero.mean()),
        pull=pull,
    )


def bootstrap_mean(values: np.ndarray, cluster: np.ndarray) -> Interval:
    """Mean over turns, and its 95% percentile interval when whole groups are drawn with replacement.

    Args:
        values: `[turns]`.
        cluster: group of each turn, integers, `[turns]`. One group gives no interval.
    """
    _, index = np.unique(cluster, return_inverse=True)
    sums, counts = np.bincount(index, weights=values), np.bincount(index).astype(float)
    if len(sums) < 2:
        return Interval(float(values.mean()))
    low, high = scipy.stats.bootstrap(
        (sums, counts),
        lambda sums, counts, axis: sums.sum(axis=axis) / counts.sum(axis=axis),
        paired=True,
        n_resamples=RESAMPLES,
        batch=AT_ONCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(float(values.mean()), float(low), float(high))


def _ratio(above: float, below: float) -> float:
    return float(above / below) if below > 1e-12 else NAN


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    # What does not vary but by rounding has no correlation.
    floor = 1e-9 * len(a)
    return float(a @ b) / scale if a @ a > floor**2 and b @ b > floor**2 else NAN


def _curve(variant: VariantAdvantages, episodes: Episodes) -> OutcomeCurve:
    valid = episodes.turns.valid
    left = valid.sum(dim=1, keepdim=True) - 1 - torch.arange(valid.shape[1])
    advantage = variant.advantages[..., Decision.ACTION]
    sd = float(advantage[valid].numpy().std())

    def means(of_episodes: Tensor) -> list[tuple[int, float]]:
        points = []
        for turns in range(valid.shape[1]):
            selected = advantage[valid & of_episodes[:, None] & (left == turns)]
            if len(selected) >= FEWEST_TURNS and sd > 1e-12:
                points.append((turns, float(selected.mean()) / sd))
        return points

    return OutcomeCurve(variant.label, variant.estimator, means(episodes.won), means(~episodes.won))
