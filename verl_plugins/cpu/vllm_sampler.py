# SPDX-License-Identifier: Apache-2.0
"""vLLM's sampler on CPU, without random numbers that nobody reads.

vLLM 0.28's sampler for CPUs draws one random number for every token of the vocabulary and every request, and draws
them again for the requests that have a seed of their own. With `env.seeded_sampling` these are all requests: with
49,152 tokens the first draw took a tenth of the engine's time. The sampler for other devices leaves it out.
"""

from __future__ import annotations

from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler

vllms_forward_cpu = TopKTopPSampler.forward_cpu


def forward_cpu(self: TopKTopPSampler, logits, generators, k, p):
    """`TopKTopPSampler.forward_cpu`, with the same tokens."""
    if len(generators) == len(logits):
        return self.forward_native(logits, generators, k, p)
    return vllms_forward_cpu(self, logits, generators, k, p)


def skip_unused_noise() -> None:
    """Have batches of seeded requests sampled by vLLM's own code for other devices."""
    TopKTopPSampler.forward_cpu = forward_cpu
