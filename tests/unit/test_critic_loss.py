# SPDX-License-Identifier: Apache-2.0
"""The value loss of the multi-head critic, and heads that stay in float32."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensordict import TensorDict
from torch import Tensor
from verl.utils import tensordict_utils as tu

from recipe.hiper.estimators.values import HEAD_OF_SLOT, ValueSlot
from recipe.hiper.trainer.critic import Float32Heads, head_fields, hierarchical_value_loss

COEFFICIENTS = (0.5, 1.0, 2.0)
CLIP = 0.5


@dataclass
class Batch:
    """A mini-batch as the critic's engine holds it: rows of different lengths, packed without padding."""

    prompts: list[Tensor]
    responses: list[Tensor]
    values: list[list[Tensor]]  # [head][row], one value per token of prompt and response
    value_low: Tensor
    old: Tensor
    target: Tensor
    mask: Tensor

    def rows(self, chosen: list[int]) -> Batch:
        return Batch(
            [self.prompts[row] for row in chosen],
            [self.responses[row] for row in chosen],
            [[head[row] for row in chosen] for head in self.values],
            self.value_low[chosen],
            self.old[chosen],
            self.target[chosen],
            self.mask[chosen],
        )


def make_batch(rows: int, heads: int, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def lengths(most: int) -> list[int]:
        return torch.randint(1, most, (rows,), generator=generator).tolist()

    prompts, responses = lengths(5), lengths(6)
    values = [
        [torch.randn(p + r, generator=generator) for p, r in zip(prompts, responses, strict=True)] for _ in range(heads)
    ]
    return Batch(
        prompts=[torch.zeros(length, dtype=torch.long) for length in prompts],
        responses=[torch.zeros(length, dtype=torch.long) for length in responses],
        values=values,
        value_low=torch.tensor([int(torch.randint(length, (1,), generator=generator)) for length in responses]),
        old=torch.randn(rows, 3, generator=generator),
        target=torch.randn(rows, 3, generator=generator),
        mask=(torch.rand(rows, 3, generator=generator) < 0.6).float(),
    )


def loss_of(batch: Batch, counts: Tensor, dp_size: int = 1) -> tuple[Tensor, dict]:
    def nested(rows: list[Tensor]) -> Tensor:
        return torch.nested.as_nested_tensor(rows, layout=torch.jagged)

    data = TensorDict(
        {
            "prompts": nested(batch.prompts),
            "responses": nested(batch.responses),
            "value_low": batch.value_low,
            "old_values": batch.old,
            "value_targets": nested(list(batch.target)),  # the type that TransferQueue returns
            "value_mask": batch.mask,
        },
        batch_size=len(batch.prompts),
    )
    tu.assign_non_tensor_data(data, "value_counts", counts.tolist())
    tu.assign_non_tensor_data(data, "dp_size", dp_size)
    names = head_fields(len(batch.values))
    output = {name: nested(rows) for name, rows in zip(names, batch.values, strict=True)}
    config = SimpleNamespace(cliprange_value=CLIP)
    return hierarchical_value_loss(config, output, data, num_heads=len(batch.values), coefficients=COEFFICIENTS)


def looped_loss(batch: Batch) -> tuple[list[float], list[float]]:
    """Loss and clipped share of each slot, one row at a time, in float64."""
    losses, clipped_shares = [], []
    for slot in ValueSlot:
        total, clipped_rows, count = 0.0, 0, 0
        for row in range(len(batch.prompts)):
            if not batch.mask[row, slot]:
                continue
            position = int(batch.value_low[row]) if slot == ValueSlot.LOW else 0
            # The value before a response token is written is the critic's output at the token before it.
            head = HEAD_OF_SLOT[len(batch.values)][slot]
            value = float(batch.values[head][row][len(batch.prompts[row]) + position - 1])
            old, target = float(batch.old[row, slot]), float(batch.target[row, slot])
            clipped = min(max(value, old - CLIP), old + CLIP)
            total += 0.5 * max((value - target) ** 2, (clipped - target) ** 2)
            clipped_rows += (clipped - target) ** 2 > (value - target) ** 2
            count += 1
        losses.append(total / max(count, 1))
        clipped_shares.append(clipped_rows / max(count, 1))
    return losses, clipped_shares


BATCHES = (st.integers(1, 7), st.sampled_from([2, 3]), st.integers(0, 2**31))


@given(*BATCHES)
def test_equals_a_loop_over_rows(rows, heads, seed):
    batch = make_batch(rows, heads, seed)
    loss, metrics = loss_of(batch, batch.mask.sum(0))
    losses, clipped = looped_loss(batch)
    expected = sum(weight * part for weight, part in zip(COEFFICIENTS, losses, strict=True))
    assert float(loss) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    for slot, name in enumerate(("high", "low", "term")):
        assert metrics[f"critic/vf_loss_{name}"].aggregate() == pytest.approx(losses[slot], rel=1e-4, abs=1e-6)
        assert metrics[f"critic/vf_clipfrac_{name}"].aggregate() == pytest.approx(clipped[slot], abs=1e-6)


@given(*BATCHES, st.lists(st.integers(0, 2), min_size=7, max_size=7), st.integers(1, 2))
def test_does_not_depend_on_how_the_mini_batch_is_cut(rows, heads, seed, part_of, ranks):
    """Micro-batches add up, ranks are averaged. Positions are counted over the mini-batch of all ranks."""
    batch = make_batch(rows, heads, seed)
    counts = batch.mask.sum(0)
    leaves = [value.requires_grad_() for head in batch.values for value in head]
    whole = torch.autograd.grad(loss_of(batch, counts)[0], leaves)
    parts = [[row for row in range(rows) if part_of[row] == part] for part in range(3)]
    losses = [loss_of(batch.rows(part), counts, dp_size=ranks)[0] for part in parts if part]
    cut = torch.autograd.grad(sum(losses) / ranks, leaves, allow_unused=True)
    for ours, theirs in zip(cut, whole, strict=True):
        torch.testing.assert_close(ours, theirs)


@given(*BATCHES)
def test_positions_without_a_target_contribute_nothing(rows, heads, seed):
    """Neither other tokens of a row, nor the content of the columns of a value that has no target there."""
    batch = make_batch(rows, heads, seed)
    counts = batch.mask.sum(0)
    leaves = [[value.requires_grad_() for value in head] for head in batch.values]
    loss = loss_of(batch, counts)[0]
    loss.backward()
    for row in range(rows):
        start = len(batch.prompts[row]) - 1
        for head in range(heads):
            slots = [slot for slot in ValueSlot if HEAD_OF_SLOT[heads][slot] == head and batch.mask[row, slot]]
            read = {start + (int(batch.value_low[row]) if slot == ValueSlot.LOW else 0) for slot in slots}
            others = [index for index in range(len(leaves[head][row])) if index not in read]
            assert not leaves[head][row].grad[others].any()
    without = ~batch.mask.bool()
    batch.old[without], batch.target[without] = 1e6, -1e6
    assert torch.equal(loss_of(batch, counts)[0], loss)


def test_by_hand():
    """One row: the high value moved from 0 to 2, further than the clip of 0.5 allows, towards its target 3.

    1/2 max((2-3)^2, (0.5-3)^2) = 3.125. The low value 1 has the target 1 and the old value 1: no loss. No term target.
    """
    batch = Batch(
        prompts=[torch.zeros(1, dtype=torch.long)],
        responses=[torch.zeros(2, dtype=torch.long)],
        values=[[torch.tensor([2.0, 7.0, 7.0])], [torch.tensor([7.0, 1.0, 7.0])], [torch.tensor([7.0, 7.0, 7.0])]],
        value_low=torch.tensor([1]),
        old=torch.tensor([[0.0, 1.0, 0.0]]),
        target=torch.tensor([[3.0, 1.0, 0.0]]),
        mask=torch.tensor([[1.0, 1.0, 0.0]]),
    )
    loss, metrics = loss_of(batch, batch.mask.sum(0))
    assert float(loss) == COEFFICIENTS[0] * 3.125
    assert metrics["critic/vf_clipfrac_high"].aggregate() == 1.0
    assert metrics["critic/vf_loss_term"].aggregate() == 0.0


def test_two_heads_read_the_low_head_before_the_switch_decision():
    """The prompt shows the sub-goal that would be kept, so V_lo(s_t, o_{t-1}) is the low head at the first token."""
    batch = make_batch(3, 2, 0)
    batch.mask = torch.tensor([[0.0, 0.0, 1.0]] * 3)
    first = [float(value[len(prompt) - 1]) for value, prompt in zip(batch.values[1], batch.prompts, strict=True)]
    batch.old[:, ValueSlot.TERM] = torch.tensor(first)  # a value that moved too far has no gradient
    for head in batch.values:
        for value in head:
            value.requires_grad_()
    loss_of(batch, batch.mask.sum(0))[0].backward()
    assert not any(value.grad.any() for value in batch.values[0])
    for row, value in enumerate(batch.values[1]):
        assert value.grad.nonzero().flatten().tolist() == [len(batch.prompts[row]) - 1]


def test_heads_compute_in_float32_whatever_surrounds_them():
    """10.01 is 10.0 in bfloat16, a rounding error as large as a TD error."""
    heads = Float32Heads(4, 3)
    with torch.no_grad():
        heads.bias.fill_(10.01)
    hidden = torch.randn(2, 5, 4, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = heads(hidden)
    assert values.dtype == torch.float32
    assert torch.equal(values, torch.full((2, 5, 3), 10.01))
    assert {parameter.dtype for parameter in heads.parameters()} == {torch.float32}
    values.sum().backward()
    assert heads.weight.grad.dtype == torch.float32 and heads.weight.grad.any()


def test_before_anything_is_learned_every_value_is_zero():
    assert not Float32Heads(8, 2)(torch.randn(3, 8)).any()
