# SPDX-License-Identifier: Apache-2.0
"""The sampler of vLLM's CPU worker, as it is and without the random numbers that nobody reads."""

import pytest
import torch
from vllm.v1.sample.ops import topk_topp_sampler
from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler

from verl_plugins.cpu import vllm_sampler

ROWS, VOCABULARY = 4, 300


SAMPLERS = (vllm_sampler.vllms_forward_cpu, vllm_sampler.forward_cpu)


def draw(forward, seeded: int, k, p) -> torch.Tensor:
    """Tokens of 20 batches in which the first `seeded` requests have a generator."""
    torch.manual_seed(0)
    sampler = TopKTopPSampler()
    generators = {row: torch.Generator().manual_seed(row) for row in range(seeded)}
    logits = torch.randn(ROWS, VOCABULARY) * 3
    return torch.stack([forward(sampler, logits.clone(), generators, k, p)[0] for _ in range(20)])


@pytest.mark.parametrize("limits", ["none", "top-k and top-p"])
def test_the_tokens_of_seeded_requests_are_the_same(limits):
    k, p = (None, None) if limits == "none" else (torch.full((ROWS,), 20), torch.full((ROWS,), 0.9))
    theirs, ours = (draw(forward, ROWS, k, p) for forward in SAMPLERS)
    assert torch.equal(theirs, ours)
    assert len(theirs.unique()) > ROWS  # they are sampled, not the largest logits


def test_no_number_is_drawn_for_nobody():
    states = []
    for forward in SAMPLERS:
        draw(forward, ROWS, None, None)
        states.append(torch.rand(1))
    assert states[0] != states[1]
    torch.manual_seed(0)
    torch.randn(ROWS, VOCABULARY)
    assert torch.rand(1) == states[1]


def test_with_requests_without_a_seed_it_is_vllms_own(monkeypatch):
    ours, native = vllm_sampler.forward_cpu, []
    monkeypatch.setattr(topk_topp_sampler, "compiled_random_sample", lambda logits: logits.argmax(dim=-1))
    monkeypatch.setattr(TopKTopPSampler, "forward_native", lambda *arguments: native.append(arguments))
    assert draw(ours, ROWS - 1, None, None).shape == (20, ROWS)
    assert not native


def test_importing_the_worker_replaces_the_sampler():
    import verl_plugins.cpu.vllm_worker  # noqa: F401

    assert TopKTopPSampler.forward_cpu is vllm_sampler.forward_cpu
