# SPDX-License-Identifier: Apache-2.0
"""From the rows of a batch to token advantages and value targets."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_turns import after_cut, batch_turns, keep, made_settings, turn

from agent_system.plan_execute.protocol import Problem
from recipe.hiper.estimators.hae import HAEConfig
from recipe.hiper.estimators.shaping import ShapingConfig
from recipe.hiper.estimators.values import ValueSlot
from recipe.hiper.estimators.whitening import whiten
from recipe.hiper.trainer.token_credit import BatchCredit, batch_credit
from recipe.hiper.trainer.turn_batch import BatchTurns, switch_probability

HALVES = HAEConfig(gamma=0.5, lam_turn=1.0, lam_seg=0.5)

# Two episodes. "won": two segments, turns 0-1 and turn 2, ends with reward 8. "cut": one segment of two turns that the
# step limit cut; its last row holds the state after it.
ROWS = [
    ("won_0", turn(0)),
    ("won_0", keep(1)),
    ("won_0", turn(2, reward=8.0, terminated=True, stop="won", won=True, score=1.0)),
    ("cut_0", turn(0)),
    ("cut_0", keep(1, truncated=True, stop="step_limit")),
    ("cut_0", after_cut(2)),
]
#                       high   low  term
VALUES = torch.tensor(
    [
        [4.0, 2.0, 1.0],
        [7.0, 4.0, 3.0],
        [2.0, 6.0, 5.0],
        [2.0, 1.0, 3.0],
        [9.0, 2.0, 4.0],
        [16.0, 99.0, 8.0],
    ]
)
# The switch block is tokens 0 and 1. Turn 1 of "won" wrote KEEP with probability 3/4, turn 2 SWITCH with 1/2.
LOG_PROBS = torch.zeros(6, 7)
LOG_PROBS[1, 0] = math.log(0.75)
LOG_PROBS[2, :2] = math.log(0.5) / 2
LOG_PROBS[:, 2:] = -5.0


def credit_of(config: HAEConfig, rows=ROWS, values=VALUES, log_probs=LOG_PROBS, padding=(), **options) -> BatchCredit:
    return batch_credit(batch_turns(rows, padding), values, log_probs, made_settings(config, **options))


def test_rows_become_episodes():
    """In any order; padding rows and the state after a cut episode are no turns."""
    rows = [ROWS[index] for index in (2, 5, 0, 4, 3, 1)] + [("fill_0", ROWS[2][1]), ("fill_1", ROWS[5][1])]
    turns = batch_turns(rows, padding=(6, 7), after_end={"won_0": 3, "fill_0": 7})
    assert turns.grid.valid.tolist() == [[True, True, True], [True, True, False]]
    assert turns.episodes() == [[2, 5, 0], [4, 3]]
    assert turns.is_turn.tolist() == [True, False, True, True, True, True, False, False]
    assert turns.is_bootstrap.tolist() == [False, True] + [False] * 6
    assert turns.on_grid("reward", torch.float32).tolist() == [[0.0, 0.0, 8.0], [0.0, 0.0, 0.0]]
    assert turns.on_grid("boundary").tolist() == [[True, False, True], [True, False, False]]
    assert turns.generations_after_end == [3, 0]
    # A padding row has one response token: positions copied from a real row would be outside it.
    assert turns.spans[6:].abs().sum() == turns.value_low[6:].sum() == 0
    assert turns.spans[0].tolist() == [[0, 2], [2, 4], [4, 6]] and turns.value_low[0] == 4


def test_the_same_task_played_twice_makes_two_episodes():
    turns = batch_turns([("task_0", turn(0)), ("task_1", turn(0)), ("task_1", keep(1))])
    assert turns.episodes() == [[0], [1, 2]]


@pytest.mark.parametrize("missing", [0, 1])
def test_a_missing_turn_is_refused(missing):
    rows = ROWS[:missing] + ROWS[missing + 1 : 3]
    with pytest.raises(ValueError, match="a turn is missing or repeated"):
        batch_turns(rows)


def test_malformed_counts_turns_only():
    wrong = (Problem.MISSING_ACTION.value,)
    rows = [("a_0", turn(0, problems=wrong)), ("a_0", keep(1)), ("a_0", replace(after_cut(2), problems=wrong))]
    turns = batch_turns([*rows, ("fill_0", turn(0, problems=wrong))], padding=(3,))
    assert turns.malformed.tolist() == [True, False, False, False]


# ---------------------------------------------------------------------------------------------------------------------
# batch_credit by hand. gamma = lam_seg = 1/2, lam_turn = 1.


def test_won_episode_by_hand():
    """
    low     turn 2: 8 - 6 = 2;  turn 1: V_hi(2)/2 - 4 = -3;  turn 0: 4/2 - 2 + (-3)/2 = -1.5
    high    turn 2: 8 - 2 = 6;  turn 0: (1/2)^2 (2 + 6/2) - 4 = -2.75
    switch  returns within the segment 8; 2/2 = 1; 1/2, minus V_term 5; 3; 1
    """
    credit = credit_of(HALVES)
    assert credit.turn_advantages.action[0].tolist() == [-1.5, -3.0, 2.0]
    assert credit.turn_advantages.subgoal[0].tolist() == [-2.75, 0.0, 6.0]
    assert credit.turn_advantages.switch[0].tolist() == [-0.5, -2.0, 3.0]
    assert credit.value_targets[:3].tolist() == [[1.25, 0.5, 0.5], [0.0, 1.0, 1.0], [8.0, 8.0, 8.0]]
    assert credit.value_mask[:3].tolist() == [[1.0, 1.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    assert credit.token_advantages[:3].tolist() == [
        [-0.5, -0.5, -2.75, -2.75, -1.5, -1.5, 0.0],
        [-2.0, -2.0, 0.0, 0.0, -3.0, -3.0, 0.0],
        [3.0, 3.0, 6.0, 6.0, 2.0, 2.0, 0.0],
    ]
    assert credit.credit_mask[:3].int().tolist() == [
        [1, 1, 1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1, 1, 0],
        [1, 1, 1, 1, 1, 1, 0],
    ]


def test_regularized_copies_reach_the_credit_mask():
    settings = replace(made_settings(HALVES), regularize_copies=True)
    credit = batch_credit(batch_turns(ROWS), VALUES, LOG_PROBS, settings)
    assert credit.credit_mask[1].int().tolist() == [1, 1, 1, 1, 1, 1, 0]
    assert torch.equal(credit.token_advantages, credit_of(HALVES).token_advantages)


def test_random_signs_change_signs_of_whole_decisions_and_nothing_else():
    settings = replace(made_settings(HALVES), random_signs=True)
    plain = credit_of(HALVES).token_advantages
    signs = set()
    for seed in range(20):
        generators = [torch.Generator().manual_seed(seed) for _ in range(2)]
        credit, again = (batch_credit(batch_turns(ROWS), VALUES, LOG_PROBS, settings, signs=g) for g in generators)
        assert torch.equal(credit.token_advantages, again.token_advantages), "the seed decides"
        assert torch.equal(credit.token_advantages.abs(), plain.abs())
        assert torch.equal(credit.turn_advantages.action, credit_of(HALVES).turn_advantages.action)
        signs |= {tuple(row.tolist()) for row in torch.sign(credit.token_advantages / plain)[:, [0, 2, 4]]}
    assert len(signs) > 4  # the three decisions of a turn are drawn apart


def test_cut_episode_counts_as_zero_without_bootstrap():
    """low: -2; 2/2 - 1 - 2/2 = -1. high: -2. switch: -4, -3."""
    credit = credit_of(HALVES)
    assert credit.turn_advantages.action[1].tolist() == [-1.0, -2.0, 0.0]
    assert credit.turn_advantages.subgoal[1].tolist() == [-2.0, 0.0, 0.0]
    assert credit.turn_advantages.switch[1].tolist() == [-3.0, -4.0, 0.0]


def test_cut_episode_is_bootstrapped_from_the_state_after_it():
    """The executor from the value before the switch decision there (8), the planner from its own (16).

    low     turn 1: 8/2 - 2 = 2;  turn 0: 2/2 - 1 + 2/2 = 1
    high    turn 0: (1/2)^2 16 - 2 = 2
    switch  16/2 - 4 = 4;  16/4 - 3 = 1
    """
    credit = credit_of(replace(HALVES, bootstrap_truncated=True))
    assert credit.turn_advantages.action[1].tolist() == [1.0, 2.0, 0.0]
    assert credit.turn_advantages.subgoal[1].tolist() == [2.0, 0.0, 0.0]
    assert credit.turn_advantages.switch[1].tolist() == [1.0, 4.0, 0.0]
    # The row of that state trains nothing, and the other episode does not change.
    assert not credit.credit_mask[5].any() and not credit.value_mask[5].any()
    assert torch.equal(credit.token_advantages[:3], credit_of(HALVES).token_advantages[:3])


def test_a_cut_episode_without_the_state_after_it_is_refused():
    with pytest.raises(ValueError, match="episode cut_0 was cut by the step limit but has no row to bootstrap from"):
        credit_of(replace(HALVES, bootstrap_truncated=True), ROWS[:5], VALUES[:5], LOG_PROBS[:5])


def test_switch_advantage_of_the_paper_by_hand():
    """(q - beta) (V_hi - V_term): turn 0 has nothing to keep; turn 1: (0 - 1/4) (7 - 3); turn 2: (1 - 1/2) (2 - 5).

    The value before the switch decision learns what keeping is worth, so only KEEP turns are its targets.
    """
    credit = credit_of(replace(HALVES, switch_advantage="termination"))
    torch.testing.assert_close(credit.turn_advantages.switch[0], torch.tensor([0.0, -1.0, -1.5]))
    assert credit.value_mask[:3, ValueSlot.TERM].tolist() == [0.0, 1.0, 0.0]
    assert credit.value_targets[:3, ValueSlot.TERM].tolist() == [0.0, 1.0, 0.0]
    released = credit_of(HALVES)
    assert torch.equal(credit.turn_advantages.action, released.turn_advantages.action)
    assert torch.equal(credit.turn_advantages.subgoal, released.turn_advantages.subgoal)


def test_shaping_comes_before_the_estimate():
    """keep -1, inconsistent copy -2, format -4, no such action -8 on turn 1: -15, which reaches turn 0 halved."""
    drifted = keep(1, copied_exactly=False, problems=(Problem.TEXT_OUTSIDE.value,), admissible=False)
    rows = [ROWS[0], ("won_0", drifted), *ROWS[2:]]
    shaping = ShapingConfig(
        invalid_action_penalty_coef=4.0, inadmissible_penalty=-8.0, keep_penalty=-1.0, keep_consistency_penalty=-2.0
    )
    credit = credit_of(HALVES, rows, shaping=shaping)
    assert credit.turn_advantages.shaped.rewards.tolist() == [[0.0, -15.0, 8.0], [0.0, -1.0, 0.0]]
    assert credit.turn_advantages.action[0].tolist() == [-1.5 - 7.5, -3.0 - 15.0, 2.0]
    assert credit.turn_advantages.subgoal[0].tolist() == [-2.75 - 7.5, 0.0, 6.0]


@pytest.mark.parametrize("switch_advantage", ["segment_return", "termination"])
def test_whitening_is_per_kind_of_decision_and_over_the_turns_that_carry_it(switch_advantage):
    config = replace(HALVES, switch_advantage=switch_advantage)
    plain, white = credit_of(config), credit_of(config, whiten=True)
    rows = torch.arange(5)
    opens = torch.tensor([True, False, True, True, False])
    for token, carries in ((0, torch.ones(5, dtype=torch.bool)), (2, opens), (4, torch.ones(5, dtype=torch.bool))):
        expected = whiten(plain.token_advantages[rows, token], carries)
        torch.testing.assert_close(white.token_advantages[rows, token], expected)
    assert torch.equal(white.credit_mask, plain.credit_mask)
    assert torch.equal(white.value_targets, plain.value_targets)  # values are never whitened


@given(
    st.permutations(range(len(ROWS))),
    st.lists(st.sampled_from(range(len(ROWS))), max_size=4),
    st.sampled_from(["segment_return", "termination"]),
    st.booleans(),
    st.booleans(),
)
def test_order_and_padding_of_the_rows_change_nothing(order, copies, switch_advantage, bootstrap, whitened):
    """Rows that only fill up the batch hold arbitrary values of the queue, NaN included."""
    config = replace(HALVES, switch_advantage=switch_advantage, bootstrap_truncated=bootstrap)
    shaping = ShapingConfig(keep_penalty=-0.5, keep_penalty_mode="normalized")
    expected = credit_of(config, shaping=shaping, whiten=whitened)
    rows = [ROWS[index] for index in order] + [(f"pad_{n}", ROWS[index][1]) for n, index in enumerate(copies)]
    filled = len(order) + torch.arange(len(copies))
    values = torch.cat([VALUES[list(order)], torch.full((len(copies), 3), math.nan)])
    log_probs = torch.cat([LOG_PROBS[list(order)], torch.zeros(len(copies), 7)])
    actual = credit_of(config, rows, values, log_probs, tuple(filled.tolist()), shaping=shaping, whiten=whitened)
    for name in ("token_advantages", "credit_mask", "value_targets", "value_mask", "switch_probability"):
        ours, theirs = getattr(actual, name), getattr(expected, name)
        torch.testing.assert_close(ours[: len(order)], theirs[list(order)])
        if name != "switch_probability":
            assert not ours[filled].any()


# ---------------------------------------------------------------------------------------------------------------------
# P(SWITCH).


def turns_with(**changes) -> BatchTurns:
    return batch_turns([("a_0", turn(0, **changes))])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"switch": "SWITCH"}, 0.125, id="wrote SWITCH"),
        pytest.param({"switch": "KEEP"}, 0.875, id="wrote KEEP"),
        pytest.param({"switch": "KEEP", "problems": ("missing_switch",)}, 0.0, id="missing"),
        pytest.param({"switch": "KEEP", "problems": ("unknown_switch", "text_outside")}, 0.0, id="unknown word"),
        pytest.param({"switch": "KEEP", "problems": ("text_outside",)}, 0.875, id="other problem"),
        pytest.param({"switch": "KEEP", "spans": ((0, 0), (0, 2), (2, 4))}, 0.0, id="no token"),
        pytest.param({"boundary": False, "problems": ("missing_subgoal",)}, 0.0, id="SWITCH without a sub-goal"),
    ],
)
def test_the_probability_of_switch_is_read_off_the_switch_block(changes, expected):
    """Tokens 0 and 1 write the block with 1/4 * 1/2; what comes after has no part in it."""
    log_probs = torch.tensor([[0.25, 0.5, 0.1, 0.1, 0.1, 0.1]]).log()
    assert switch_probability(log_probs, turns_with(**changes)).tolist() == pytest.approx([expected])


def test_a_turn_without_a_readable_switch_has_no_switch_advantage():
    """It is carried out as KEEP, q = 0, and with beta = 0 nothing is left of (q - beta)."""
    lost = keep(1, problems=("missing_switch",), spans=((0, 0), (0, 2), (2, 4)))
    credit = credit_of(replace(HALVES, switch_advantage="termination"), [ROWS[0], ("won_0", lost), *ROWS[2:]])
    assert credit.turn_advantages.switch[0, 1] == 0.0


@pytest.mark.parametrize("variant", ["termination", "segment_return"])
def test_a_switch_without_a_sub_goal_is_not_paid_for_what_it_was_not(variant):
    """It wrote SWITCH and was carried out as KEEP: with q = 0, beta > 0 would credit it with the opposite."""
    empty = keep(1, switch="SWITCH", problems=("missing_subgoal",), comparable=False)
    rows = [ROWS[0], ("won_0", empty), *ROWS[2:]]
    charged = credit_of(replace(HALVES, switch_advantage=variant), rows, shaping=ShapingConfig(switch_cost=0.5))
    free = credit_of(replace(HALVES, switch_advantage=variant), rows)
    assert charged.switch_probability[1] == 0.0
    assert charged.turn_advantages.switch[0, 1] == free.turn_advantages.switch[0, 1]
    assert (
        charged.turn_advantages.switch[0, 2] == free.turn_advantages.switch[0, 2] - 0.25
    )  # a SWITCH of probability 1/2
