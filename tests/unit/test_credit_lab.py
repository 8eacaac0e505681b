# SPDX-License-Identifier: Apache-2.0
"""The credit lab on episodes whose numbers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_episodes import line, write

from agent_system.errors import ConfigError
from recipe.hiper.credit_lab.episodes import Episodes, read_episodes
from recipe.hiper.credit_lab.estimators import Decision, LabConfig, SkippedEstimator, mean_of_others, run_estimators
from recipe.hiper.credit_lab.statistics import (
    REFERENCE,
    Comparison,
    Row,
    bootstrap_mean,
    compare_variants,
    return_to_go,
)
from recipe.hiper.estimators.registry import OF_GROUPS, WITH_CRITIC

KEEPING = [True, False, False]


def read(tmp_path, *lines) -> Episodes:
    return read_episodes([write(tmp_path / "episodes.jsonl", list(lines))])


def compared(episodes: Episodes, config: LabConfig | None = None) -> tuple[Comparison, list[SkippedEstimator]]:
    config = config or LabConfig()
    variants, skipped = run_estimators(episodes, config)
    return compare_variants(episodes, variants, config.gamma), skipped


def rows_of(comparison: Comparison, decision: Decision) -> dict[str, Row]:
    return {row.label: row for row in comparison.rows if row.decision is decision}


def four_episodes() -> list[dict]:
    """Two groups of a won and a lost episode of two turns, every value 5: the returns are 10 or 0."""
    return [line(name, [0.0, last], values=(5.0, 5.0, 5.0)) for name, last in
            (("g_0", 10.0), ("g_1", 0.0), ("h_0", 10.0), ("h_1", 0.0))]  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# Known numbers


def test_return_to_go_by_hand():
    rewards = torch.tensor([[1.0, 2.0, 4.0], [8.0, 0.0, 0.0]])
    assert return_to_go(rewards, 0.5).tolist() == [[1 + 1 + 1, 2 + 2, 4], [8, 0, 0]]


def test_four_episodes_by_hand(tmp_path):
    """The Monte-Carlo advantage is 5 or -5 on every turn, variance 25.

    lambda 0: 0 on the first turn, 10 - 5 or 0 - 5 on the last, so variance 12.5 and correlation 12.5 / (12.5**.5 * 5).
    rloo: 10 - 0 or 0 - 10. gigpo: 5 for the episode and 5 for the state, which all turns of a group share.
    """
    comparison, skipped = compared(read(tmp_path, *four_episodes()))
    assert skipped == []
    rows = rows_of(comparison, Decision.ACTION)
    half, one = math.sqrt(0.5), 1.0
    expected = {
        REFERENCE: (5.0, 1.0, one, 0.0),
        "hae (segment return)": (math.sqrt(12.5), 0.5, half, 0.5),
        "hae (termination)": (math.sqrt(12.5), 0.5, half, 0.5),
        "turn_gae, lambda 0": (math.sqrt(12.5), 0.5, half, 0.5),
        "turn_gae, lambda 1": (5.0, 1.0, one, 0.0),
        "gae (verl), lambda 1": (5.0, 1.0, one, 0.0),
        "grpo, no std": (5.0, 1.0, one, 0.0),
        "rloo": (10.0, 4.0, one, 0.0),
        "gigpo, no std": (10.0, 4.0, one, 0.0),
    }
    for label, (sd, ratio, correlation, zero_fraction) in expected.items():
        row = rows[label]
        assert row.turns == 8 and row.mean == pytest.approx(0.0) and row.sign_agreement == 1.0, label
        assert (row.sd, row.variance_ratio) == pytest.approx((sd, ratio)), label
        assert (row.correlation, row.zero_fraction) == pytest.approx((correlation, zero_fraction)), label
        assert row.bias == pytest.approx((0.0, 0.0, 0.0)), label
    for label in ("grpo", "gigpo"):
        row = rows[label]
        assert math.isnan(row.sd) and math.isnan(row.variance_ratio) and math.isnan(row.bias.value)
        assert row.correlation == pytest.approx(1.0)
    assert comparison.explained == pytest.approx(dict.fromkeys(Decision, 0.0))


def test_the_planner_by_hand(tmp_path):
    """With lambda_seg 0.9 the first sub-goal of a won episode gets 0.9 of the 5 that the second one gets."""
    comparison, _ = compared(read(tmp_path, *four_episodes()), LabConfig(lam_seg=0.9))
    row = rows_of(comparison, Decision.SUBGOAL)["hae (segment return)"]
    assert row.sd**2 == pytest.approx((4.5**2 + 5.0**2) / 2)


@settings(max_examples=25)
@given(
    lams=st.tuples(*[st.floats(0, 1)] * 4),
    rewards=st.lists(st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_perfect_values_have_no_bias_and_leave_nothing_to_learn(tmp_path_factory, lams, rewards):
    gamma, lam, lam_seg, turn_lam = lams
    lines = []
    for number, of_episode in enumerate(rewards):
        returns = return_to_go(torch.tensor([of_episode], dtype=torch.float64), gamma)[0].tolist()
        lines.append(line(f"g{number}_0", of_episode, values=[(g, g, g) for g in returns]))
    episodes = read(tmp_path_factory.mktemp("perfect"), *lines)
    config = LabConfig(("hae", "turn_gae"), gamma, lam, lam_seg, (turn_lam,))
    comparison, _ = compared(episodes, config)
    for row in comparison.rows:
        assert abs(row.bias.value) < 1e-9 and row.sd < 1e-9 and row.zero_fraction == 1.0
        assert math.isnan(row.correlation) and math.isnan(row.variance_ratio) and math.isnan(row.sign_agreement)


def test_wrong_values_show_as_bias_where_they_are_bootstrapped_from(tmp_path):
    """The second turn's value is 2 too high. On the first lambda 0 believes it, 2 / 2 a turn; lambda 1 does not."""
    wrong = [(10.0, 10.0, 10.0), (12.0, 12.0, 12.0)]
    episodes = read(tmp_path, line("g_0", [0.0, 10.0], values=wrong), line("h_0", [0.0, 10.0], values=wrong))
    rows = rows_of(compared(episodes, LabConfig(turn_lams=(0.0, 0.5, 1.0)))[0], Decision.ACTION)
    assert rows["turn_gae, lambda 0"].bias == pytest.approx((1.0, 1.0, 1.0))
    assert rows["turn_gae, lambda 0.5"].bias.value == pytest.approx(0.5)
    assert rows["turn_gae, lambda 1"].bias.value == pytest.approx(0.0)
    assert rows["hae (segment return)"].bias.value == pytest.approx(1.0)


def test_verls_gae_leaves_out_the_penalties_of_later_turns(tmp_path):
    """A penalty of 1 on every turn of three: turn t should expect 3 - t of them, verl has one. What was earned before a
    turn is no bias: it was settled."""
    episodes = read(tmp_path, line("g_0", [0.0, 6.0, 4.0], shaped=[-1.0, 5.0, 3.0]), line("h_0", [1.0]))
    rows = rows_of(compared(episodes, LabConfig(("gae",)))[0], Decision.ACTION)
    assert rows["gae (verl), lambda 1"].bias.value == pytest.approx((2 + 1 + 0 + 0) / 4)


def test_what_was_earned_before_a_turn_is_no_bias_of_groups(tmp_path):
    episodes = read(tmp_path, line("g_0", [3.0, -1.0, 4.0]), line("g_1", [2.0, 2.0]))
    rows = rows_of(compared(episodes)[0], Decision.ACTION)
    assert rows["rloo"].bias.value == pytest.approx(0.0)


@pytest.mark.parametrize("values", [(1.0, 1.0, 1.0), None])
def test_equal_returns_give_groups_nothing(tmp_path, values):
    episodes = read(tmp_path, *(line(f"g_{n}", [1.0, 2.0], values=values) for n in range(3)))
    comparison, _ = compared(episodes, LabConfig(OF_GROUPS))
    for label in ("grpo", "grpo, no std", "rloo"):
        row = rows_of(comparison, Decision.ACTION)[label]
        assert row.zero_fraction == 1.0 and math.isnan(row.correlation) and math.isnan(row.sign_agreement)


def test_each_decision_is_measured_on_the_turns_that_carry_it(tmp_path):
    lines = [line(f"g{n}_0", [0.0, 0.0, 1.0], switches=KEEPING) for n in range(2)]
    comparison, _ = compared(read(tmp_path, *lines))
    turns = {decision: rows_of(comparison, decision)[REFERENCE].turns for decision in Decision}
    assert turns == {Decision.SWITCH: 4, Decision.SUBGOAL: 2, Decision.ACTION: 6}


def test_the_reference_takes_off_the_value_before_the_decision(tmp_path):
    episodes = read(tmp_path, *(line(f"g_{n}", [0.0, 10.0], values=(1.0, 2.0, 3.0)) for n in range(2)))
    comparison, _ = compared(episodes)
    means = {decision: rows_of(comparison, decision)[REFERENCE].mean for decision in Decision}
    assert means == {Decision.SWITCH: 10 - 3, Decision.SUBGOAL: 10 - 1, Decision.ACTION: 10 - 2}


def test_pull_by_hand(tmp_path):
    """On turn 1 the won episode switches (q - beta = 0.75), the lost one keeps (-0.25); advantages are 6 and -4."""
    won = line("g_0", [0.0, 10.0], values=(4.0, 4.0, 4.0), probability=0.25)
    lost = line("h_0", [0.0, 0.0], values=(4.0, 4.0, 4.0), probability=0.25, switches=[True, False])
    comparison, _ = compared(read(tmp_path, won, lost))
    row = rows_of(comparison, Decision.SWITCH)[REFERENCE]
    assert row.pull.value == pytest.approx((0.75 * 6 + 0.25 * 4) / 2 / 5)
    assert rows_of(comparison, Decision.SWITCH)["hae (termination)"].zero_fraction == 1.0
    assert math.isnan(rows_of(comparison, Decision.ACTION)[REFERENCE].pull.value)


def test_termination_stands_for_the_value_of_what_was_chosen(tmp_path):
    """Perfect values of both choices, SWITCH worth 8 and KEEP worth 4: no bias, and (q - beta) (8 - 4)."""
    values = [(8.0, 8.0, 8.0), (8.0, 4.0, 4.0)]
    switched = line("g_0", [0.0, 8.0], values=values, probability=0.25)
    kept = line("h_0", [0.0, 4.0], values=values, probability=0.25, switches=[True, False])
    row = rows_of(compared(read(tmp_path, switched, kept))[0], Decision.SWITCH)["hae (termination)"]
    assert row.bias == pytest.approx((0.0, 0.0, 0.0))
    assert row.mean == pytest.approx((0.75 * 4 - 0.25 * 4) / 2)


def test_mean_of_others_by_hand(tmp_path):
    """In a group the others of it; alone, all others. It never includes the episode's own return."""
    rewards = {"g_0": 1.0, "g_1": 3.0, "g_2": 8.0, "h_0": 6.0}
    episodes = read(tmp_path, *(line(name, [reward]) for name, reward in rewards.items()))
    returns = episodes.turns.rewards.sum(dim=1)
    assert mean_of_others(episodes, returns).tolist() == pytest.approx([11 / 2, 9 / 2, 4 / 2, 12 / 3])
    alone = read(tmp_path, line("g_0", [1.0]))
    assert mean_of_others(alone, torch.ones(1).double()).tolist() == [0.0]


def test_without_critic_the_reference_is_rloo(tmp_path):
    episodes = read(tmp_path, *(line(f"g_{n}", [0.0, r], values=None) for n, r in enumerate((1.0, 5.0, 3.0))))
    comparison, skipped = compared(episodes)
    assert {estimator.name for estimator in skipped} == set(WITH_CRITIC)
    row = rows_of(comparison, Decision.ACTION)["rloo"]
    assert (row.correlation, row.variance_ratio, row.sign_agreement) == pytest.approx((1.0, 1.0, 1.0))


def test_mean_advantages_by_turns_to_the_end(tmp_path):
    """Five won and five lost episodes, values in the middle: one standard deviation up or down. Four are too few."""
    lines = [line(f"g{n}_0", [0.0, 10.0 * (n % 2)], values=(5.0, 5.0, 5.0)) for n in range(10)]
    comparison, _ = compared(read(tmp_path, *lines))
    curve = next(curve for curve in comparison.curves if curve.label == "turn_gae, lambda 1")
    assert dict(curve.won) == pytest.approx({0: 1.0, 1: 1.0})
    assert dict(curve.lost) == pytest.approx({0: -1.0, 1: -1.0})
    few, _ = compared(read(tmp_path, *lines[:8]))
    assert all(curve.won == curve.lost == [] for curve in few.curves)


# ---------------------------------------------------------------------------------------------------------------------
# What cannot be run is left out, with the reason


def reasons(episodes: Episodes, config: LabConfig | None = None) -> dict[str, str]:
    return {estimator.name: estimator.reason for estimator in compared(episodes, config)[1]}


def test_groups_of_one_are_nothing_to_compare(tmp_path):
    comparison = reasons(read(tmp_path, line("g_0", [1.0]), line("h_0", [2.0])))
    assert set(comparison) == set(OF_GROUPS) and all("env.rollout.n=8" in reason for reason in comparison.values())


def test_a_flat_agent_has_actions_only(tmp_path):
    lines = [line(f"g_{n}", [0.0, float(n)], switch="", subgoal="", values=(1.0, 2.0, 1.0)) for n in range(2)]
    comparison, skipped = compared(read(tmp_path, *lines))
    assert [(estimator.name, "flat" in estimator.reason) for estimator in skipped] == [("hae", True)]
    assert {row.decision for row in comparison.rows} == {Decision.ACTION}
    assert rows_of(comparison, Decision.ACTION)["turn_gae, lambda 1"].correlation == pytest.approx(1.0)


def test_one_head_is_no_hierarchy(tmp_path):
    lines = [line(f"g_{n}", [0.0, float(n)], values=(1.0, 2.0, 1.0)) for n in range(2)]
    comparison, skipped = compared(read(tmp_path, *lines))
    assert [estimator.name for estimator in skipped] == ["hae"] and "one head" in skipped[0].reason
    # and the low value, which nothing taught, is no baseline either
    assert rows_of(comparison, Decision.ACTION)["turn_gae, lambda 1"].variance_ratio == pytest.approx(1.0)


def test_without_probabilities_there_is_no_termination(tmp_path):
    lines = [line(f"g_{n}", [0.0, float(n)], probability=None) for n in range(2)]
    comparison, skipped = compared(read(tmp_path, *lines))
    assert [estimator.name for estimator in skipped] == ["hae (termination)"] and "switch_probability" in skipped[
        0
    ].reason
    assert "hae (segment return)" in rows_of(comparison, Decision.SWITCH)
    assert all(math.isnan(row.pull.value) for row in comparison.rows)


def test_verls_gae_cannot_be_computed_with_a_discount(tmp_path):
    assert "--gamma 1" in reasons(read(tmp_path, line("g_0", [1.0]), line("g_1", [2.0])), LabConfig(gamma=0.9))["gae"]


def test_nothing_to_run_is_an_error_with_all_reasons(tmp_path):
    episodes = read(tmp_path, line("g_0", [1.0], values=None), line("h_0", [2.0], values=None))
    with pytest.raises(ConfigError) as error:
        run_estimators(episodes, LabConfig())
    assert "\n  hae, turn_gae, gae: " in str(error.value) and "\n  grpo, rloo, gigpo: " in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gamma": 1.5}, "--gamma 1.5 is not in"),
        ({"lam": -0.1}, "--lam -0.1 is not in"),
        ({"lam_seg": math.nan}, "--lam-seg nan is not in"),
        ({"turn_lams": (0.0, 2.0)}, "--turn-lam 2 is not in"),
        ({"estimators": ("ppo",)}, "--estimators ppo is not one of hae, turn_gae"),
    ],
)
def test_options_out_of_range(changes, message):
    with pytest.raises(ConfigError, match=message):
        LabConfig(**changes)


# ---------------------------------------------------------------------------------------------------------------------
# Bootstrap


def test_the_interval_is_that_of_whole_groups():
    """Two turns of one group carry no more information than one: doubling every turn changes nothing."""
    values, cluster = np.random.default_rng(1).normal(size=50), np.arange(50)
    once = bootstrap_mean(values, cluster)
    twice = bootstrap_mean(np.tile(values, 2), np.tile(cluster, 2))
    assert once == pytest.approx(twice) and once == bootstrap_mean(values, cluster)
    assert once.low < once.value < once.high
    assert once.high - once.low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(50), rel=0.15)


def test_one_group_has_no_interval():
    assert math.isnan(bootstrap_mean(np.array([1.0, 2.0]), np.zeros(2)).low)
