# SPDX-License-Identifier: Apache-2.0
"""Grids, whitening, and which token gets what."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from agent_system.plan_execute.protocol import decide, parse_reply, token_spans
from recipe.hiper.estimators.values import HEAD_OF_SLOT, ValueSlot, explained_variance, read_slots
from recipe.hiper.estimators.whitening import whiten
from recipe.hiper.trainer.token_credit import token_credit
from recipe.hiper.trainer.transfer import stacked
from recipe.hiper.trainer.turn_batch import episode_grid

# ---------------------------------------------------------------------------------------------------------------------
# Episodes.


def test_rows_in_any_order_become_episodes():
    episode = torch.tensor([7, 3, 7, 3, 7, 3])
    turn = torch.tensor([1, 0, 0, 1, 2, 0])
    is_padding = torch.tensor([0, 0, 0, 0, 0, 1]).bool()
    grid = episode_grid(episode, turn, is_padding)
    assert grid.valid.tolist() == [[True, True, False], [True, True, True]]
    x = torch.tensor([71.0, 30.0, 70.0, 31.0, 72.0, 999.0])
    assert grid.to_grid(x).tolist() == [[30.0, 31.0, 0.0], [70.0, 71.0, 72.0]]
    assert grid.to_rows(grid.to_grid(x)).tolist() == [71.0, 30.0, 70.0, 31.0, 72.0, 0.0]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(0, 4), st.randoms(use_true_random=False))
def test_grids_and_rows_are_inverse(lengths, padding, random):
    real = [(100 - e, t, False) for e, length in enumerate(lengths) for t in range(length)]
    rows = real + [(*random.choice(real)[:2], True) for _ in range(padding)]
    random.shuffle(rows)
    episode, turn, is_padding = (torch.tensor(column) for column in zip(*rows, strict=True))
    grid = episode_grid(episode, turn, is_padding)
    assert grid.valid.sum(1).tolist() == lengths[::-1]
    assert torch.equal(grid.to_grid(turn)[grid.valid], torch.cat([torch.arange(n) for n in lengths[::-1]]))
    x = torch.arange(1.0, len(rows) + 1)
    assert torch.equal(grid.to_rows(grid.to_grid(x)), x.masked_fill(is_padding, 0.0))


def test_only_padding_is_an_empty_grid():
    grid = episode_grid(torch.tensor([1]), torch.tensor([0]), torch.tensor([True]))
    assert grid.valid.shape == (0, 0)
    assert grid.to_rows(grid.to_grid(torch.tensor([5.0]))).tolist() == [0.0]


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([0, 2], "episode 4 has 2 rows but holds turn 2: a turn is missing or repeated"),
        ([1, 2], "episode 4 has 2 rows but holds turn 2"),
        ([0, -1], "episode 4 has 2 rows but holds turn -1"),
        ([0, 0], "episode 4 holds turn 0 twice.*is_padding"),
    ],
)
def test_missing_and_repeated_turns_are_refused(turns, message):
    episode = torch.tensor([9, 4, 4])
    with pytest.raises(ValueError, match=message):
        episode_grid(episode, torch.tensor([0, *turns]), torch.zeros(3, dtype=torch.bool))


def test_grid_shapes_must_agree():
    with pytest.raises(ValueError, match="alike"):
        episode_grid(torch.zeros(2), torch.zeros(3), torch.zeros(2))
    grid = episode_grid(torch.tensor([0, 0]), torch.tensor([0, 1]), torch.zeros(2, dtype=torch.bool))
    with pytest.raises(ValueError, match="each of 2 rows"):
        grid.to_grid(torch.zeros(3))
    with pytest.raises(ValueError, match="grid of shape"):
        grid.to_rows(torch.zeros(2, 1))


# ---------------------------------------------------------------------------------------------------------------------
# Whitening.


def test_whitening_by_hand():
    """Of 1, 2, 6 the mean is 3 and the unbiased variance ((-2)^2 + (-1)^2 + 3^2) / 2 = 7."""
    x = torch.tensor([1.0, 100.0, 2.0, 6.0])
    expected = torch.tensor([-2.0, 0.0, -1.0, 3.0]) / math.sqrt(7)
    torch.testing.assert_close(whiten(x, torch.tensor([1, 0, 1, 1])), expected)


@given(st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=40), st.integers(0, 5))
def test_whitened_entries_have_mean_0_and_variance_1_and_padding_does_not_matter(values, padding):
    x = torch.tensor([*values, *[math.nan] * padding])
    mask = torch.tensor([True] * len(values) + [False] * padding)
    result = whiten(x, mask)
    assert result.dtype == x.dtype and (result[len(values) :] == 0).all()
    assert torch.equal(result[: len(values)], whiten(x[: len(values)], mask[: len(values)]))
    entries = result[: len(values)].double()
    if x[: len(values)].double().std() > 1e-2:
        assert abs(float(entries.mean())) < 1e-5
        assert float(entries.var()) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("entries", [[], [3.7], [0.1] * 7])
def test_nothing_to_compare_is_zero(entries):
    x = torch.tensor([*entries, 5.0])
    mask = torch.tensor([True] * len(entries) + [False])
    assert (whiten(x, mask) == 0).all()


def test_whitening_accumulates_in_float64():
    """These are neighbours in float32, which has no number for the mean between them."""
    x = torch.tensor([2.0**20, 2.0**20 + 0.125])
    half = math.sqrt(0.5)
    torch.testing.assert_close(whiten(x, torch.ones_like(x)), torch.tensor([-half, half]))


def test_whitening_shapes_must_agree():
    with pytest.raises(ValueError, match="mask has"):
        whiten(torch.zeros(2), torch.zeros(3))


# ---------------------------------------------------------------------------------------------------------------------
# Tokens.

SPANS = torch.tensor([[[0, 2], [2, 4], [4, 6]], [[0, 1], [1, 3], [4, 5]], [[0, 2], [2, 4], [4, 6]]])
BOUNDARY = torch.tensor([True, False, True])
PADDING = torch.tensor([False, False, True])


def test_which_token_gets_what():
    credit = token_credit(
        torch.tensor([1.0, 2.0, math.nan]),
        torch.tensor([10.0, math.nan, math.nan]),
        torch.tensor([100.0, 200.0, math.nan]),
        BOUNDARY,
        SPANS,
        7,
        PADDING,
    )
    assert credit.advantages.tolist() == [
        [1.0, 1.0, 10.0, 10.0, 100.0, 100.0, 0.0],
        [2.0, 0.0, 0.0, 0.0, 200.0, 0.0, 0.0],
        [0.0] * 7,
    ]
    assert credit.credit_mask.int().tolist() == [[1, 1, 1, 1, 1, 1, 0], [1, 0, 0, 0, 1, 0, 0], [0] * 7]


def test_regularized_copies_are_in_the_loss_with_no_advantage():
    advantages = torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0], [100.0, 200.0, 300.0]])
    plain = token_credit(*advantages, BOUNDARY, SPANS, 7, PADDING)
    credit = token_credit(*advantages, BOUNDARY, SPANS, 7, PADDING, regularize_copies=True)
    assert torch.equal(credit.advantages, plain.advantages)
    assert credit.credit_mask.int().tolist() == [[1, 1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 1, 0, 0], [0] * 7]


def test_where_the_values_are_read():
    """High and term at the first token, low at its own position; with two heads the term value is the low head's."""
    heads = [torch.tensor([[10.0, 11.0, 12.0], [20.0, 21.0, 22.0]]) + 100 * head for head in range(3)]
    value_low = torch.tensor([2, 1])
    assert read_slots(heads, value_low).tolist() == [[10.0, 112.0, 210.0], [20.0, 121.0, 220.0]]
    assert read_slots(heads[:2], value_low).tolist() == [[10.0, 112.0, 110.0], [20.0, 121.0, 120.0]]
    assert ValueSlot.HIGH == 0 and ValueSlot.LOW == 1 and ValueSlot.TERM == 2


ROWS = st.integers(1, 6)


@given(ROWS, st.integers(1, 9), st.sampled_from(sorted(HEAD_OF_SLOT)), st.integers(0, 2**31))
def test_reading_values_equals_a_loop_over_rows(rows, length, heads, seed):
    generator = torch.Generator().manual_seed(seed)
    values = list(torch.randn(heads, rows, length, generator=generator))
    value_low = torch.randint(length, (rows,), generator=generator)
    read = read_slots(values, value_low)
    for row in range(rows):
        at = {ValueSlot.HIGH: 0, ValueSlot.LOW: int(value_low[row]), ValueSlot.TERM: 0}
        for slot in ValueSlot:
            assert read[row, slot] == values[HEAD_OF_SLOT[heads][slot]][row, at[slot]]


def test_stacked_undoes_what_the_queue_does_to_equally_long_rows():
    column = torch.arange(6.0).view(3, 2)
    assert torch.equal(stacked(column), column)
    assert torch.equal(stacked(torch.nested.as_nested_tensor(list(column), layout=torch.jagged)), column)


@given(ROWS, st.integers(4, 12), st.integers(0, 2**31))
def test_token_credit_equals_a_loop_over_tokens(rows, length, seed):
    generator = torch.Generator().manual_seed(seed)
    spans = torch.randint(length + 1, (rows, 6), generator=generator).sort(1).values.view(rows, 3, 2)
    spans = spans[:, torch.randperm(3, generator=generator)]  # a malformed reply has its blocks in any order
    spans[torch.rand(rows, 3, generator=generator) < 0.2] = 0
    advantages = torch.randn(3, rows, generator=generator)
    boundary, padding = torch.rand(2, rows, generator=generator) < torch.tensor([[0.5], [0.2]])
    credit = token_credit(*advantages, boundary, spans, length, padding)
    for row in range(rows):
        for token in range(length):
            expected, in_loss = 0.0, False
            for block in range(3):
                start, end = spans[row, block].tolist()
                if start <= token < end and not padding[row] and (block != 1 or boundary[row]):
                    expected, in_loss = float(advantages[block, row]), True
            assert float(credit.advantages[row, token]) == expected
            assert bool(credit.credit_mask[row, token]) == in_loss


def test_blocks_that_overlap_are_refused():
    spans = torch.tensor([[[0, 2], [2, 4], [4, 6]], [[0, 3], [2, 4], [4, 6]]])
    with pytest.raises(ValueError, match=r"blocks of row 1 overlap: its spans are \[\[0, 3\], \[2, 4\], \[4, 6\]\]"):
        token_credit(*torch.zeros(3, 2), torch.tensor([True, True]), spans, 6)


def test_from_a_reply_to_its_credit():
    """The parser's spans are what the masks and the value positions are made of."""
    pieces = ["<switch>", "KEEP", "</switch>", "\n", "<subgoal>x</subgoal>", "\n", "<action>", "look", "</action>", ""]
    reply = parse_reply("".join(pieces))
    spans = token_spans(reply, pieces)
    span_tensor = torch.tensor([[spans.switch, spans.subgoal, spans.action]])
    for turn, subgoal_in_loss in ((0, True), (1, False)):
        boundary = torch.tensor([decide(reply, turn, "x").boundary])
        credit = token_credit(*torch.tensor([[1.0], [2.0], [3.0]]), boundary, span_tensor, len(pieces))
        subgoal = 2.0 if subgoal_in_loss else 0.0
        assert credit.advantages.tolist() == [[1.0, 1.0, 1.0, 0.0, subgoal, 0.0, 3.0, 3.0, 3.0, 3.0]]
    values = torch.arange(float(len(pieces)))[None]
    assert read_slots([values] * 3, torch.tensor([spans.value_low])).tolist() == [[0.0, 5.0, 0.0]]


def test_what_does_not_fit_is_refused():
    ones = torch.ones(3)
    low = torch.tensor([0, 1, 2])
    with pytest.raises(ValueError, match=r"outside 0\.\.5"):
        token_credit(ones, ones, ones, BOUNDARY, SPANS, 5)
    with pytest.raises(ValueError, match=r"\[rows, 3, 2\]"):
        token_credit(ones, ones, ones, BOUNDARY, SPANS[:, :2], 7)
    with pytest.raises(ValueError, match="adv_subgoal must hold one entry"):
        token_credit(ones, ones[:2], ones, BOUNDARY, SPANS, 7)
    for value_low in (low, -low):
        with pytest.raises(ValueError, match="outside a response of 2 tokens"):
            read_slots([torch.zeros(3, 2)] * 3, value_low)
    with pytest.raises(ValueError, match="value_low must hold one entry for each of 4 rows"):
        read_slots([torch.zeros(4, 9)] * 3, low)


def no_rows(*shape: int) -> Tensor:
    return torch.zeros(0, *shape)


def test_no_rows():
    credit = token_credit(no_rows(), no_rows(), no_rows(), no_rows().bool(), no_rows(3, 2).long(), 4)
    assert credit.credit_mask.shape == (0, 4)
    assert read_slots([no_rows(4)] * 3, no_rows().long()).shape == (0, 3)


# ---------------------------------------------------------------------------------------------------------------------
# Explained variance.


def test_explained_variance_by_hand():
    """Targets 0, 2, 4 have variance 4; the errors -1, 0, 1 have variance 1."""
    target = torch.tensor([0.0, 2.0, 4.0, 50.0])
    prediction = torch.tensor([1.0, 2.0, 3.0, -50.0])
    mask = torch.tensor([1, 1, 1, 0])
    assert explained_variance(prediction, target, mask) == pytest.approx(1 - 1 / 4)
    assert explained_variance(target, target, mask) == 1.0
    assert explained_variance(torch.full_like(target, 9.0), target, mask) == pytest.approx(0.0)


@pytest.mark.parametrize("target", [[], [1.0], [2.0, 2.0]])
def test_explained_variance_of_nothing_is_not_a_number(target):
    target = torch.tensor(target)
    assert math.isnan(explained_variance(torch.zeros_like(target), target, torch.ones_like(target)))


def test_explained_variance_shapes_must_agree():
    with pytest.raises(ValueError, match="one shape"):
        explained_variance(torch.zeros(2), torch.zeros(2), torch.zeros(3))
