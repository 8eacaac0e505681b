# SPDX-License-Identifier: Apache-2.0
"""Hierarchical Advantage Estimation (HAE): three advantages per turn in three reverse scans.

Source: Peng et al., "HiPER", arXiv 2602.16165 (ICML 2026). Pure tensor functions on padded [episodes, turns] grids.

Notation, shapes in names:
    _E          episodes                    _ET         [episodes, turns], right-padded
    r_t         shaped reward of turn t     d_t         1 iff the environment terminated on turn t
    q_t         1 iff turn t opens a segment (a boundary); q_0 = 1
    b_k, n_k    first turn and length of segment k
    V_hi(t)     planner's value of s_t, read before anything is written
    V_lo(t)     executor's value of (s_t, o_t), read after the sub-goal is written
    V_term(t)   value of (s_t, o_{t-1}), read before anything is written
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recipe.hiper.estimators.config import EstimatorConfig, HAEConfig, SwitchAdvantage
from recipe.hiper.estimators.entry import SHARED_KEYS, Estimator
from recipe.hiper.estimators.grids import TurnAdvantages, TurnGrids
from recipe.hiper.estimators.shaping import ShapedRewards, ShapingConfig
from recipe.hiper.estimators.values import ValueSlot

__all__ = [
    "ESTIMATOR",
    "HAEConfig",
    "HierarchicalAdvantages",
    "SwitchAdvantage",
    "hierarchical_advantages",
    "switch_charge",
]


@dataclass(frozen=True)
class HierarchicalAdvantages:
    """Advantages and value targets, each `[episodes, turns]` and zero outside the positions named here.

    Attributes:
        adv_low, target_low: executor; every valid turn.
        adv_high, target_high: planner; boundary turns.
        adv_switch: every valid turn.
        target_term: every valid turn with "segment_return"; zero everywhere with "termination", which has no target.
    """

    adv_low: Tensor
    adv_high: Tensor
    adv_switch: Tensor
    target_low: Tensor
    target_high: Tensor
    target_term: Tensor


@torch.no_grad()
def hierarchical_advantages(
    rewards: Tensor,
    values_low: Tensor,
    values_high: Tensor,
    values_term: Tensor,
    boundary: Tensor,
    valid: Tensor,
    terminated: Tensor,
    config: HAEConfig,
    *,
    bootstrap_low: Tensor | None = None,
    bootstrap_high: Tensor | None = None,
    switch_prob: Tensor | None = None,
    values_low_prev: Tensor | None = None,
) -> HierarchicalAdvantages:
    """Estimate the advantages of the three kinds of decision. No shaping and no whitening inside.

    Executor, GAE restarted at every segment end (`inside`: turn t+1 exists and is no boundary):

        A_lo(t) = r_t + gamma v_next(t) - V_lo(t) + gamma lam_turn inside(t) A_lo(t+1)
        v_next  = V_lo(t+1) inside; U(t+1) where turn t+1 is a boundary; 0 if d_t;
                  the bootstrap or 0 where the step limit cut the episode
        U       = V_hi + lam_boundary A_hi, which is V_hi in the paper

    Planner, semi-MDP GAE over segments. gamma^n is multiplied up turn by turn, so the sum is one scan H over turns:

        A_hi(k) = R_k + gamma^n_k (V_hi(b_k+1) + lam_seg A_hi(k+1)) - V_hi(b_k) = H(b_k) - V_hi(b_k)
        H(t)    = r_t + gamma (H(t+1) inside, V_hi(t+1) + lam_seg A_hi(t+1) where turn t+1 is a boundary, ...)

    Switch, "segment_return": A_sw(t) = G(t) - V_term(t),
        G(t) = r_t + gamma (G(t+1) inside, U(t+1) where turn t+1 is a boundary, ...)
    Switch, "termination":    A_sw(t) = (q_t - beta_t) (V_hi(s_t) - V_lo(s_t, o_{t-1})).

    Args:
        rewards: shaped rewards, `[episodes, turns]`.
        values_low, values_high, values_term: the three values, `[episodes, turns]`. High values are read at boundaries
            (and everywhere with "termination"); term values only with "segment_return".
        boundary: whether a turn opens a segment, `[episodes, turns]`, bool or 0/1. Turn 0 always does.
        valid: marks real turns, `[episodes, turns]`, bool or 0/1, right-padded. A row without any is padding.
        terminated: whether the environment terminated on that turn, `[episodes, turns]`, bool or 0/1. A row whose last
            valid turn is not terminated was cut by the step limit.
        config: see `HAEConfig`.
        bootstrap_low, bootstrap_high: executor's and planner's value of the state after the last turn, `[episodes]`;
            read where the step limit cut an episode and only with `config.bootstrap_truncated`.
        switch_prob: beta_t = P(SWITCH | s_t, o_{t-1}), `[episodes, turns]`; needed by "termination".
        values_low_prev: V_lo(s_t, o_{t-1}), `[episodes, turns]`; needed by "termination".

    Returns:
        Tensors in at least float32 (float64 stays float64), without gradient. Invalid positions of the inputs have
        no influence, NaN included.

    Raises:
        ValueError: shapes differ, `valid` is not right-padded, or an argument that the configuration needs is missing.
    """
    grids = {
        "rewards": rewards,
        "values_low": values_low,
        "values_high": values_high,
        "values_term": values_term,
        "boundary": boundary,
        "valid": valid,
        "terminated": terminated,
        "switch_prob": switch_prob,
        "values_low_prev": values_low_prev,
    }
    if rewards.dim() != 2:
        raise ValueError(f"rewards must be [episodes, turns], got shape {tuple(rewards.shape)}")
    for name, grid in grids.items():
        if grid is not None and grid.shape != rewards.shape:
            raise ValueError(f"{name} has shape {tuple(grid.shape)} but rewards has {tuple(rewards.shape)}")
    for name, boot in (("bootstrap_low", bootstrap_low), ("bootstrap_high", bootstrap_high)):
        if boot is not None and boot.shape != rewards.shape[:1]:
            raise ValueError(f"{name} must be [episodes] = {tuple(rewards.shape[:1])}, got {tuple(boot.shape)}")

    valid = valid.bool()
    if (valid[:, 1:] & ~valid[:, :-1]).any():
        raise ValueError("valid must be right-padded: the real turns of a row come first, without gaps")
    dtype = torch.float32
    for values in (rewards, values_low, values_high, values_term, bootstrap_low, bootstrap_high, values_low_prev):
        if values is not None:
            dtype = torch.promote_types(dtype, values.dtype)

    def real(grid: Tensor) -> Tensor:
        # Selecting instead of multiplying keeps a NaN of the padding out.
        return torch.where(valid, grid.to(dtype), torch.zeros((), dtype=dtype, device=grid.device))

    terminated = terminated.bool() & valid
    boundary = boundary.bool() & valid
    boundary[:, :1] = valid[:, :1]
    followed = torch.zeros_like(valid)
    followed[:, :-1] = valid[:, 1:]
    enters_segment = torch.zeros_like(valid)
    enters_segment[:, :-1] = boundary[:, 1:]
    inside = followed & ~enters_segment & ~terminated
    closes = enters_segment & ~terminated
    cut = valid & ~followed & ~terminated

    r_ET, v_lo_ET, v_hi_ET = real(rewards), real(values_low), real(values_high)
    boot_lo_ET = _bootstrap(cut, bootstrap_low, "bootstrap_low", config, dtype)
    boot_hi_ET = _bootstrap(cut, bootstrap_high, "bootstrap_high", config, dtype)
    scan = _Scan(inside=inside, closes=closes, gamma=config.gamma)

    (high_ET,) = _reverse_scan(scan.high(r_ET, v_hi_ET, boot_hi_ET, config.lam_seg))
    adv_high = torch.where(boundary, high_ET - v_hi_ET, 0.0)
    later_ET = v_hi_ET + config.lam_boundary * adv_high  # U, at boundaries
    next_v_lo_ET = torch.where(inside, _shift_left(v_lo_ET), torch.where(closes, _shift_left(later_ET), boot_lo_ET))
    delta_ET = r_ET + config.gamma * next_v_lo_ET - v_lo_ET
    low = scan.low(torch.where(valid, delta_ET, 0.0), config.lam_turn)

    if config.switch_advantage == "segment_return":
        adv_low, segment_return_ET = _reverse_scan(low, scan.high(r_ET, later_ET, boot_hi_ET, 0.0))
        segment_return_ET = torch.where(valid, segment_return_ET, 0.0)
        adv_switch = segment_return_ET - real(values_term)
        target_term = segment_return_ET
    else:
        if switch_prob is None or values_low_prev is None:
            name = "switch_prob" if switch_prob is None else "values_low_prev"
            raise ValueError(
                f"algorithm.hae.switch_advantage=termination needs the argument {name}. Try: "
                "algorithm.hae.switch_advantage=segment_return"
            )
        (adv_low,) = _reverse_scan(low)
        adv_switch = (boundary.to(dtype) - real(switch_prob)) * (v_hi_ET - real(values_low_prev))
        target_term = torch.zeros_like(r_ET)

    return HierarchicalAdvantages(
        adv_low=adv_low,
        adv_high=adv_high,
        adv_switch=adv_switch,
        target_low=adv_low + v_lo_ET,
        target_high=torch.where(boundary, adv_high + v_hi_ET, 0.0),
        target_term=target_term,
    )


@dataclass(frozen=True)
class _Recurrence:
    """x(t) = fixed(t) + slope(t) x(t+1), both `[episodes, turns]`; x is 0 after the last column."""

    fixed_ET: Tensor
    slope_ET: Tensor


@dataclass(frozen=True)
class _Scan:
    """The recurrences of HAE. They are affine, so `_reverse_scan` solves all of them."""

    inside: Tensor
    """Turn t+1 exists, continues the segment of turn t, and turn t did not terminate the episode."""
    closes: Tensor
    """Turn t+1 exists, opens another segment, and turn t did not terminate the episode."""
    gamma: float

    def low(self, delta_ET: Tensor, lam_turn: float) -> _Recurrence:
        """A(t) = delta(t) + gamma lam_turn inside(t) A(t+1)."""
        return _Recurrence(delta_ET, self.inside.to(delta_ET.dtype) * (self.gamma * lam_turn))

    def high(self, r_ET: Tensor, v_hi_ET: Tensor, boot_ET: Tensor, lam_seg: float) -> _Recurrence:
        """H(t) = r(t) + gamma (H(t+1) inside; V_hi + lam_seg (H - V_hi) of t+1 where t closes; boot(t) else)."""
        next_v_ET = _shift_left(v_hi_ET)
        # Both cases are affine in H(t+1).
        fixed_ET = r_ET + self.gamma * torch.where(self.closes, (1.0 - lam_seg) * next_v_ET, boot_ET)
        slope_ET = self.gamma * (self.inside.to(r_ET.dtype) + lam_seg * self.closes.to(r_ET.dtype))
        return _Recurrence(fixed_ET, slope_ET)


def _reverse_scan(*recurrences: _Recurrence) -> tuple[Tensor, ...]:
    """Solve recurrences side by side: each of the T steps is two operations on one vector of all their episodes."""
    episodes = len(recurrences[0].fixed_ET)
    # Turns first, so that a step reads and writes neighbouring numbers.
    fixed_TE = torch.cat([recurrence.fixed_ET.t() for recurrence in recurrences], dim=1)
    slope_TE = torch.cat([recurrence.slope_ET.t() for recurrence in recurrences], dim=1)
    x_TE = torch.zeros_like(fixed_TE)
    carry_E = fixed_TE.new_zeros(fixed_TE.shape[1])
    for fixed_E, slope_E, x_E in zip(*(reversed(grid.unbind()) for grid in (fixed_TE, slope_TE, x_TE)), strict=True):
        torch.mul(slope_E, carry_E, out=x_E)
        carry_E = x_E.add_(fixed_E)
    return tuple(x_TE[:, at * episodes : (at + 1) * episodes].t().contiguous() for at in range(len(recurrences)))


def _shift_left(grid_ET: Tensor) -> Tensor:
    """Value of turn t+1 at turn t; 0 on the last column."""
    return torch.cat([grid_ET[:, 1:], torch.zeros_like(grid_ET[:, :1])], dim=1)


def _bootstrap(cut: Tensor, boot_E: Tensor | None, name: str, config: HAEConfig, dtype: torch.dtype) -> Tensor:
    """The value after the last turn on the turns where the step limit cut an episode, 0 elsewhere."""
    zeros_ET = torch.zeros(cut.shape, dtype=dtype, device=cut.device)
    if not config.bootstrap_truncated:
        return zeros_ET
    if boot_E is None:
        if cut.any():
            raise ValueError(
                f"{int(cut.sum())} episodes were cut by the step limit and algorithm.hae.bootstrap_truncated=True "
                f"needs the argument {name}. Try: algorithm.hae.bootstrap_truncated=False"
            )
        return zeros_ET
    return torch.where(cut, boot_E.to(dtype)[:, None], zeros_ET)


# ----------------------------------------------------------------------------------------------------------------------
# The estimator's entry in the table.


def _estimate(turns: TurnGrids, shaped: ShapedRewards, config: EstimatorConfig) -> TurnAdvantages:
    high, low, before_switch = turns.required_values.unbind(dim=-1)
    # On turn 0 there is no sub-goal to keep: with the planner's own value in its place the advantage is zero.
    low_before = torch.cat([high[:, :1], before_switch[:, 1:]], dim=1)
    bootstrap = turns.bootstrap if config.hae.bootstrap_truncated else None
    result = hierarchical_advantages(
        shaped.rewards,
        low,
        high,
        before_switch,
        turns.boundary,
        turns.valid,
        turns.terminated,
        config.hae,
        # The prompt after the last turn shows the sub-goal in force, and nothing is written yet: the value before the
        # switch decision is the executor's there.
        bootstrap_low=None if bootstrap is None else bootstrap[:, ValueSlot.TERM],
        bootstrap_high=None if bootstrap is None else bootstrap[:, ValueSlot.HIGH],
        switch_prob=turns.switch_probability,
        values_low_prev=low_before,
    )
    valid, opens = turns.valid.bool(), turns.opens
    # The value before the switch decision learns the return within the segment. For "termination" it stands for
    # V_lo(s_t, o_{t-1}), and turns on which o_{t-1} was kept show what that is worth.
    if config.hae.switch_advantage == "segment_return":
        term_target, term_mask = result.target_term, valid
    else:
        term_target, term_mask = result.target_low, valid & ~opens
    pairs = {
        ValueSlot.HIGH: (result.target_high, opens),
        ValueSlot.LOW: (result.target_low, valid),
        ValueSlot.TERM: (term_target, term_mask),
    }
    return TurnAdvantages(
        shaped=shaped,
        switch=result.adv_switch + switch_charge(turns, shaped, config.shaping),
        subgoal=result.adv_high,
        action=result.adv_low,
        targets=torch.stack([pairs[slot][0].masked_fill(~pairs[slot][1], 0.0) for slot in ValueSlot], dim=-1),
        has_target=torch.stack([pairs[slot][1] for slot in ValueSlot], dim=-1),
    )


def switch_charge(turns: TurnGrids, shaped: ShapedRewards, config: ShapingConfig) -> Tensor:
    """What is charged to the switch decision alone, `[episodes, turns]`; zero on turn 0, where there is no decision.

    `switch_cost` is a deliberation cost (Harb et al., "When Waiting Is Not an Option", arXiv 1709.04571): a price of
    SWITCH, taken off less its expectation, so that KEEP gains what SWITCH is likely to cost: -(q - beta) cost. With
    `penalty_credit` "switch" the price of KEEP and of a wrong copy is charged here instead of in the rewards.
    """
    later = turns.valid.bool().clone()
    later[:, :1] = False
    surprise = turns.boundary.to(shaped.rewards.dtype) - turns.switch_probability.to(shaped.rewards.dtype)
    charge = -config.switch_cost * surprise
    if config.penalty_credit == "switch":
        charge = charge + shaped.keep_penalty + shaped.consistency_penalty
    return torch.where(later, charge, torch.zeros((), dtype=charge.dtype))


ESTIMATOR = Estimator(
    name="hae",
    function=_estimate,
    critic_heads=(3, 2),
    uses_bootstrap=True,
    is_hierarchical=True,
    keys=SHARED_KEYS
    | {
        "algorithm.gamma",
        "algorithm.lam",
        "algorithm.hae.lam_seg",
        "algorithm.hae.lam_boundary",
        "algorithm.hae.switch_advantage",
        "algorithm.hae.norm_adv",
        "critic.targets",
        "algorithm.hae.regularize_copies",
        "algorithm.hae.keep_penalty",
        "algorithm.hae.keep_penalty_mode",
        "algorithm.hae.keep_consistency_penalty",
        "algorithm.hae.keep_consistency_requires_both",
        "algorithm.hae.penalty_credit",
        "algorithm.hae.switch_cost",
        "algorithm.hae.bootstrap_truncated",
        "critic.use_three_heads_critic",
        "critic.use_two_heads_critic",
        "critic.high_value_coef",
        "critic.term_value_coef",
    },
)
"""The paper's estimator: three advantages per turn, each against the values before and after its decision."""
