# SPDX-License-Identifier: Apache-2.0
"""What a batch shows, on episodes worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from made_turns import after_cut, batch_turns, keep, made_settings, turn

from agent_system.environments.base import StopReason
from recipe.hiper.estimators.hae import HAEConfig
from recipe.hiper.estimators.shaping import ShapingConfig
from recipe.hiper.trainer.metrics import (
    batch_metrics,
    credit_metrics,
    entropy_metrics,
    episode_metrics,
    hierarchy_metrics,
    validation_metrics,
)
from recipe.hiper.trainer.token_credit import batch_credit

HEAT, LOOK = "pick_heat_then_place_in_recep", "look_at_obj_in_light"
WON = {"reward": 10.0, "terminated": True, "stop": "won", "won": True, "score": 1.0}
CUT = {"truncated": True, "stop": "step_limit"}

# "a" wins after 3 turns, SWITCH on turn 2. "b" is cut after 4 turns, never switches, one copy is not exact. "c" is cut
# after 1 turn. Turn 0 always opens a segment.
EPISODES = {
    "a_0": [
        turn(0, kind=HEAT, subgoal_in_force="find mug"),
        keep(1, kind=HEAT, admissible=False),
        turn(2, kind=HEAT, subgoal_in_force="heat mug", **WON),
    ],
    "b_0": [
        turn(0, kind=HEAT, subgoal_in_force="find mug"),
        keep(1, kind=HEAT),
        keep(2, kind=HEAT, copied_exactly=False, problems=("text_outside",)),
        keep(3, kind=HEAT, comparable=False, problems=("missing_subgoal", "text_outside"), **CUT),
    ],
    "c_0": [turn(0, kind=LOOK, observation_cut=True, cut=True, **CUT)],
}
ROWS = [(name, record) for name, records in EPISODES.items() for record in records]


@pytest.fixture
def turns():
    filled = [*ROWS, ("b_0", after_cut(4)), ("pad_0", ROWS[2][1]), ("pad_1", ROWS[2][1])]
    return batch_turns(filled, padding=(9, 10), after_end={"a_0": 2, "b_0": 0, "pad_0": 50})


def test_episodes_by_hand(turns):
    metrics = episode_metrics(turns)
    assert metrics["episodes"] == 3 and metrics["turns"] == 8
    assert metrics["success_rate"] == pytest.approx(1 / 3)
    assert metrics["score"] == pytest.approx(1 / 3)
    assert metrics["return"] == pytest.approx(10 / 3)
    assert metrics["episode_length"] == pytest.approx(8 / 3)
    assert metrics["admissible_fraction"] == pytest.approx(7 / 8)
    assert metrics["well_formed_fraction"] == pytest.approx(6 / 8)
    assert metrics["observation_cut_fraction"] == pytest.approx(1 / 8)
    assert metrics["cut_fraction"] == pytest.approx(1 / 8)
    assert {name: value for name, value in metrics.items() if name.startswith("problem/")} == {
        "problem/missing_subgoal": 1 / 8,
        "problem/text_outside": 2 / 8,
    }


@pytest.mark.parametrize(
    ("actions", "admissible", "repeated"),
    [
        (("look", "look", "look"), (False, False, False), 2),
        (("look", "look", "look"), (True, True, True), 0),
        (("take mug", "take mug", "look"), (False, False, True), 1),
        (("take mug", "look", "take mug"), (False, True, False), 0),
        (("take mug", "take cup", "take cup"), (False, False, True), 1),
    ],
)
def test_a_miss_is_repeated_where_the_same_words_follow_at_once(actions, admissible, repeated):
    rows = [("a_0", keep(n, action=actions[n], admissible=admissible[n])) for n in range(3)]
    # The same action in another episode repeats nothing.
    rows.append(("b_0", turn(0, action=actions[-1], admissible=False)))
    assert episode_metrics(batch_turns(rows))["repeated_miss_fraction"] == pytest.approx(repeated / 4)


def test_the_switch_rate_leaves_out_turn_0(turns):
    """Turn 0 opens a segment for any reply. Of the five later turns one switched."""
    assert episode_metrics(turns)["switch_rate"] == pytest.approx(1 / 5)


def test_copies_are_counted_among_comparable_keeps(turns):
    """Four KEEP turns; on one of them there is no written sub-goal to compare."""
    assert episode_metrics(turns)["keep_copied_fraction"] == pytest.approx(2 / 3)


def test_success_by_kind(turns):
    metrics = episode_metrics(turns)
    assert metrics[f"success_rate/{HEAT}"] == 0.5 and metrics[f"success_rate/{LOOK}"] == 0.0


def test_stop_reasons_add_up(turns):
    metrics = episode_metrics(turns)
    assert {reason: metrics[f"stop/{reason.value}"] for reason in StopReason} == {
        StopReason.WON: pytest.approx(1 / 3),
        StopReason.FAILED: 0.0,
        StopReason.STEP_LIMIT: pytest.approx(2 / 3),
    }


def test_retries_are_counted_once_for_each_episode():
    """By the source of the fault, whatever the number of turns; padding rows do not count."""
    names = list(dict.fromkeys(name for name, _ in ROWS))
    retries = {names[0]: {"environment": 2, "engine": 1}, names[1]: {"environment": 0, "engine": 3}}
    metrics = episode_metrics(batch_turns(ROWS, retries=retries))
    assert (metrics["retries/environment"], metrics["retries/engine"]) == (2.0, 4.0)
    assert episode_metrics(batch_turns(ROWS))["retries/engine"] == 0.0


def test_generations_after_the_end_are_a_share_of_all(turns):
    """Two on episode "a" beside the eight turns; padding rows do not count."""
    assert episode_metrics(turns)["generations_after_end_fraction"] == pytest.approx(2 / 10)
    assert episode_metrics(batch_turns(ROWS))["generations_after_end_fraction"] == 0.0


def test_segments_by_hand(turns):
    """Segments of 2 and 1 turns, of 4, and of 1; each of the four sub-goals is new to its episode."""
    metrics = hierarchy_metrics(turns)
    assert metrics["segment_length"] == 2.0
    assert metrics["novel_subgoal_fraction"] == 1.0
    histogram = {name.split("/")[1]: value for name, value in metrics.items() if "/" in name}
    assert histogram == {"1": 0.5, "2": 0.25, "3-4": 0.25, "5-8": 0.0, "9+": 0.0}


@pytest.mark.parametrize(
    ("length", "bin_name"), [(1, "1"), (2, "2"), (3, "3-4"), (4, "3-4"), (5, "5-8"), (8, "5-8"), (9, "9+"), (40, "9+")]
)
def test_segment_length_bins(length, bin_name):
    metrics = hierarchy_metrics(batch_turns([("a_0", (keep if t else turn)(t)) for t in range(length)]))
    assert metrics[f"segment_length_fraction/{bin_name}"] == 1.0


def test_a_sub_goal_that_comes_back_is_not_new():
    subgoals = ["find mug", "heat mug", "find mug"]
    rows = [("a_0", turn(t, subgoal_in_force=subgoal)) for t, subgoal in enumerate(subgoals)]
    rows.append(("b_0", turn(0, subgoal_in_force="find mug")))  # another episode knows nothing of it
    assert hierarchy_metrics(batch_turns(rows))["novel_subgoal_fraction"] == 0.75


def opened(*subgoals: str, task: str) -> list:
    """The turns of an episode that SWITCHes on every turn."""
    return [turn(t, subgoal_in_force=subgoal, task_id=task) for t, subgoal in enumerate(subgoals)]


@pytest.mark.parametrize(
    ("episodes", "reused"),
    [
        # "find mug" in both tasks, "heat mug" in one: 3 segments of 4
        ([opened("find mug", "heat mug", "find mug", task="1"), opened("find mug", task="2")], 3 / 4),
        ([opened("find mug", task="1"), opened("find cup", task="2")], 0.0),
        # another episode of the same task, or another turn of the episode, is no other task
        ([opened("find mug", "find mug", task="1"), opened("find mug", task="1"), opened("look", task="2")], 0.0),
        ([opened("find mug", task="1"), opened("find mug", task="2"), opened("find mug", task="3")], 1.0),
        # words are compared as written, and an empty sub-goal is none
        ([opened("find mug", task="1"), opened("Find mug", task="2")], 0.0),
        ([opened("", "find mug", task="1"), opened("", "find mug", task="2")], 2 / 4),
    ],
)
def test_sub_goals_reused_across_tasks(episodes, reused):
    rows = [(f"{name}_0", record) for name, records in zip("abc", episodes, strict=False) for record in records]
    assert hierarchy_metrics(batch_turns(rows))["reused_subgoal_fraction"] == pytest.approx(reused)


def test_a_kept_sub_goal_is_one_segment_whatever_was_typed():
    """Only what is opened counts: not what a KEEP turn types, nor how long it lasts, nor what fills up the batch."""
    rows = [
        ("a_0", turn(0, subgoal_in_force="find mug", task_id="1")),
        ("a_0", keep(1, subgoal="heat mug", subgoal_in_force="find mug", task_id="1")),
        ("b_0", turn(0, subgoal_in_force="heat mug", task_id="2")),
        ("pad_0", turn(0, subgoal_in_force="heat mug", task_id="1")),
    ]
    assert hierarchy_metrics(batch_turns(rows, padding=(3,)))["reused_subgoal_fraction"] == 0.0


def test_tokens_spent_on_copies():
    """Six tokens of the first turn; a KEEP turn copies with three of seven; another leaves the block out."""
    rows = [
        ("a_0", turn(0)),
        ("a_0", keep(1, spans=((0, 2), (2, 5), (5, 7)))),
        ("a_0", keep(2, spans=((0, 2), (0, 0), (2, 5)))),
        ("a_0", after_cut(3)),
        ("pad_0", keep(1)),
    ]
    assert hierarchy_metrics(batch_turns(rows, padding=(4,)))["copy_token_fraction"] == pytest.approx(3 / 18)


def test_what_there_is_nothing_of_is_not_a_number():
    metrics = batch_metrics(batch_turns([("a_0", turn(0))]))
    for name in ("rollout/switch_rate", "rollout/keep_copied_fraction", "hierarchy/reused_subgoal_fraction"):
        assert math.isnan(metrics[name])


def test_a_flat_agent_has_no_decisions_to_count():
    flat = {"switch": "", "subgoal": "", "subgoal_in_force": ""}
    metrics = batch_metrics(batch_turns([("a_0", turn(0, **flat)), ("a_0", turn(1, **flat))]))
    assert metrics["rollout/episode_length"] == 2.0
    assert not {"rollout/switch_rate", "rollout/keep_copied_fraction"} & set(metrics)
    rows = batch_turns([("a_0", turn(0, **flat)), ("a_0", turn(1, **flat))])
    credit = batch_credit(
        rows, torch.zeros(2, 3), torch.zeros(2, 6), made_settings(HAEConfig(1.0, 1.0, 1.0), estimator="turn_gae")
    )
    assert "hierarchy/switch_probability" not in credit_metrics(rows, credit)


def test_names(turns):
    batch, held_out = batch_metrics(turns), validation_metrics(turns)
    assert batch["rollout/success_rate"] == held_out["val/success_rate"] == pytest.approx(1 / 3)
    assert batch["hierarchy/segment_length"] == held_out["val/segment_length"] == 2.0
    assert {"hierarchy/reused_subgoal_fraction", "hierarchy/novel_subgoal_fraction"} <= set(batch)
    assert {name.split("/")[0] for name in batch} == {"rollout", "hierarchy"}
    assert {name.split("/")[0] for name in held_out} == {"val"}


def test_credit_by_hand():
    """Episode "a" alone, gamma = lam = 1, values 0: every target is what is still to come, minus 0.5 for the KEEP turn.

    action: 10 on turn 2, -0.5 on turn 1, -0.5 on turn 0 (both end where V_hi = 0 takes over).
    """
    turns = batch_turns(ROWS[:3])
    settings = made_settings(HAEConfig(1.0, 1.0, 1.0), ShapingConfig(keep_penalty=-0.5), whiten=True)
    log_probs = torch.zeros(3, 6)
    log_probs[1:, 0] = math.log(0.75)  # KEEP with 3/4, SWITCH with 3/4
    credit = batch_credit(turns, torch.zeros(3, 3), log_probs, settings)
    metrics = credit_metrics(turns, credit)
    assert metrics["advantage/action/mean"] == pytest.approx(3.0)
    assert metrics["advantage/action/abs_mean"] == pytest.approx(11 / 3)
    assert metrics["advantage/action/max"] == 10.0 and metrics["advantage/action/min"] == -0.5
    assert metrics["advantage/subgoal/mean"] == pytest.approx((9.5 + 10) / 2)  # two boundaries, not three turns
    assert metrics["advantage/subgoal/std"] == pytest.approx(0.25)
    assert metrics["critic/target_high/mean"] == pytest.approx((9.5 + 10) / 2)
    assert metrics["critic/explained_variance_low"] == 0.0
    assert metrics["shaping/keep_penalty"] == -0.5 and metrics["shaping/format_penalty"] == 0.0
    assert metrics["hierarchy/switch_probability"] == pytest.approx((0.25 + 0.75) / 2)  # turn 0 left out
    assert metrics["actor/trained_tokens_per_turn"] == pytest.approx((6 + 4 + 6) / 3)  # a kept sub-goal is not trained


def test_entropy_by_type_of_decision():
    """Tokens 0-1, 2-3 and 4-5 are the blocks; a row of padding and a turn without a sub-goal block do not count."""
    blockless = keep(2, spans=((0, 2), (0, 0), (2, 6)))
    turns = batch_turns([("a_0", turn(0)), ("a_0", keep(1)), ("a_0", blockless), ("pad_0", turn(0))], padding=(3,))
    entropy = torch.tensor(
        [
            [0.1, 0.0, 0.5, 0.3, 1.0, 0.0],
            [0.3, 0.0, 0.0, 0.1, 2.0, 0.0],
            [0.2, 0.0, 1.0, 1.0, 1.0, 0.0],
            [9.0, 9.0, 9.0, 9.0, 9.0, 9.0],
        ]
    )
    assert entropy_metrics(turns, entropy) == pytest.approx(
        {"entropy/switch": 0.2, "entropy/subgoal": 0.8, "entropy/subgoal_copy": 0.1, "entropy/action": 2.0}
    )
    flat = batch_turns([("a_0", turn(0, spans=((0, 0), (0, 0), (0, 6))))])
    assert set(entropy_metrics(flat, entropy[:1])) == {"entropy/action"}
