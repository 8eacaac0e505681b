# SPDX-License-Identifier: Apache-2.0
"""Reward shaping against sums written out by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recipe.hiper.estimators.shaping import ShapingConfig, shaped_rewards

# An episode of four turns and a column of padding: SWITCH, KEEP copied, KEEP drifted, KEEP without a sub-goal text.
REWARDS = torch.tensor([[0.0, 0.0, 0.0, 10.0, 7.0]])
BOUNDARY = torch.tensor([[1, 0, 0, 0, 0]]).bool()
VALID = torch.tensor([[1, 1, 1, 1, 0]]).bool()
WELL_FORMED = torch.tensor([[0, 1, 1, 0, 0]]).bool()
ADMISSIBLE = torch.tensor([[1, 0, 1, 0, 0]]).bool()
COPIED = torch.tensor([[0, 1, 0, 0, 0]]).bool()
COMPARABLE = torch.tensor([[0, 1, 1, 0, 1]]).bool()


def shape(config: ShapingConfig, boundary=BOUNDARY):
    return shaped_rewards(REWARDS, boundary, VALID, WELL_FORMED, ADMISSIBLE, COPIED, COMPARABLE, config)


def test_without_penalties_only_padding_is_cleared():
    result = shape(ShapingConfig())
    assert torch.equal(result.rewards, torch.tensor([[0.0, 0.0, 0.0, 10.0, 0.0]]))


def test_malformed_replies():
    result = shape(ShapingConfig(invalid_action_penalty_coef=0.1))
    torch.testing.assert_close(result.format_penalty, torch.tensor([[-0.1, 0.0, 0.0, -0.1, 0.0]]))
    torch.testing.assert_close(result.rewards, torch.tensor([[-0.1, 0.0, 0.0, 10 - 0.1, 0.0]]))


def test_actions_that_are_not_admissible():
    result = shape(ShapingConfig(inadmissible_penalty=-0.25))
    torch.testing.assert_close(result.inadmissible_penalty, torch.tensor([[0.0, -0.25, 0.0, -0.25, 0.0]]))
    torch.testing.assert_close(result.rewards, torch.tensor([[0.0, -0.25, 0.0, 10 - 0.25, 0.0]]))


def test_keep_penalty_fixed():
    result = shape(ShapingConfig(keep_penalty=-0.3))
    torch.testing.assert_close(result.keep_penalty, torch.tensor([[0.0, -0.3, -0.3, -0.3, 0.0]]))
    torch.testing.assert_close(result.rewards, torch.tensor([[0.0, -0.3, -0.3, 10 - 0.3, 0.0]]))


def test_keep_penalty_normalized():
    """c (n_keep / T) / n_keep per KEEP turn: with c = -3.5, three KEEPs of four turns, -3.5 * (3 / 4) / 3 each."""
    result = shape(ShapingConfig(keep_penalty=-3.5, keep_penalty_mode="normalized"))
    each = -3.5 * (3 / 4) / 3
    torch.testing.assert_close(result.keep_penalty, torch.tensor([[0.0, each, each, each, 0.0]]))


def test_consistency_penalty():
    both = shape(ShapingConfig(keep_consistency_penalty=-0.3))
    torch.testing.assert_close(both.consistency_penalty, torch.tensor([[0.0, 0.0, -0.3, 0.0, 0.0]]))
    either = shape(ShapingConfig(keep_consistency_penalty=-0.3, keep_consistency_requires_both=False))
    torch.testing.assert_close(either.consistency_penalty, torch.tensor([[0.0, 0.0, -0.3, -0.3, 0.0]]))


@pytest.mark.parametrize("mode", ["fixed", "normalized"])
def test_turn_0_is_never_charged_as_a_keep(mode):
    config = ShapingConfig(
        keep_penalty=-1.0,
        keep_penalty_mode=mode,
        keep_consistency_penalty=-1.0,
        keep_consistency_requires_both=False,
    )
    result = shape(config, boundary=torch.zeros_like(BOUNDARY))
    assert result.rewards[0, 0] == 0.0


GRIDS = st.integers(1, 4).flatmap(
    lambda rows: st.integers(1, 8).flatmap(
        lambda width: st.tuples(
            st.lists(st.integers(0, width), min_size=rows, max_size=rows), st.just(width), st.integers(0, 2**31)
        )
    )
)


@given(
    GRIDS,
    st.builds(
        ShapingConfig,
        invalid_action_penalty_coef=st.floats(0, 1),
        inadmissible_penalty=st.floats(-5, 0),
        keep_penalty=st.floats(-5, 0),
        keep_penalty_mode=st.sampled_from(["fixed", "normalized"]),
        keep_consistency_penalty=st.floats(-5, 0),
        keep_consistency_requires_both=st.booleans(),
    ),
)
def test_equals_a_loop_over_turns(grid, config):
    lengths, width, seed = grid
    generator = torch.Generator().manual_seed(seed)
    shape_ET = (len(lengths), width)
    rewards = torch.randn(shape_ET, generator=generator, dtype=torch.float64)
    marks = torch.rand(5, *shape_ET, generator=generator) < 0.5
    boundary, well_formed, admissible, copied, comparable = marks.unbind(0)
    valid = torch.arange(width)[None, :] < torch.tensor(lengths)[:, None]
    result = shaped_rewards(
        rewards.masked_fill(~valid, torch.nan), boundary, valid, well_formed, admissible, copied, comparable, config
    )
    parts = (result.format_penalty, result.inadmissible_penalty, result.keep_penalty, result.consistency_penalty)
    assert all((part <= 0).all() for part in parts)
    for row, length in enumerate(lengths):
        keeps = [t for t in range(1, length) if not boundary[row, t]]
        for t in range(width):
            expected = 0.0
            if t < length:
                expected = float(rewards[row, t])
                if not well_formed[row, t]:
                    expected -= config.invalid_action_penalty_coef
                if not admissible[row, t]:
                    expected += config.inadmissible_penalty
                if t in keeps:
                    share = len(keeps) / length / len(keeps) if config.keep_penalty_mode == "normalized" else 1.0
                    expected += config.keep_penalty * share
                    skipped = config.keep_consistency_requires_both and not comparable[row, t]
                    if not copied[row, t] and not skipped:
                        expected += config.keep_consistency_penalty
            assert float(result.rewards[row, t]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"invalid_action_penalty_coef": -0.1}, "invalid_action_penalty_coef=0.1"),
        ({"invalid_action_penalty_coef": float("nan")}, "invalid_action_penalty_coef=0.1"),
        ({"inadmissible_penalty": 0.3}, "algorithm.inadmissible_penalty=-0.3"),
        ({"keep_penalty": 0.3}, "algorithm.hae.keep_penalty=-0.3"),
        ({"keep_consistency_penalty": 0.3}, "algorithm.hae.keep_consistency_penalty=-0.3"),
        ({"keep_penalty_mode": "other"}, "algorithm.hae.keep_penalty_mode=fixed"),
    ],
)
def test_settings_outside_their_range(change, key):
    with pytest.raises(ValueError, match=f"{key}$"):
        ShapingConfig(**change)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="copied_exactly has shape"):
        shaped_rewards(REWARDS, BOUNDARY, VALID, WELL_FORMED, ADMISSIBLE, COPIED[:, :2], COMPARABLE, ShapingConfig())
    with pytest.raises(ValueError, match=r"\[episodes, turns\]"):
        shaped_rewards(REWARDS[0], BOUNDARY, VALID, WELL_FORMED, ADMISSIBLE, COPIED, COMPARABLE, ShapingConfig())


def test_half_precision_rewards_are_shaped_in_float32():
    args = (BOUNDARY, VALID, WELL_FORMED, ADMISSIBLE, COPIED, COMPARABLE, ShapingConfig())
    assert shaped_rewards(REWARDS.bfloat16(), *args).rewards.dtype == torch.float32
