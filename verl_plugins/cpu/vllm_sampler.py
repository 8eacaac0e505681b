# SPDX-License-Identifier: Apache-2.0
"""vLLM's sampler on CPU, without random numbers that nobody reads.

vLLM 0.28's sampler for CPUs draws one random number for every token of the vocabulary and every request, and draws
them again for the requests that have a seed of their own. With `env.seeded_sampling` these are all requests: with
49,152 tokens the first draw took a tenth of the engine's time. The sampler for other devices leaves it out.
"""

from __future__ import annotations

import functools

from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler


def skip_unused_noise() -> None:
    """Have batches of seeded requests sampled by vLLM's own code for other devices. The tokens are the same."""
    on_cpu = TopKTopPSampler.forward_cpu
    if getattr(on_cpu, "skips_unused_noise", False):
        return

    @functools.wraps(on_cpu)
    def forward_cpu(self, logits, generators, k, p):
        forward = self.forward_native if len(generators) == len(logits) else functools.partial(on_cpu, self)
        return forward(logits, generators, k, p)

    forward_cpu.skips_unused_noise = True
    TopKTopPSampler.forward_cpu = forward_cpu
