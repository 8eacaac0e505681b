# SPDX-License-Identifier: Apache-2.0
"""Whether the reference policy fits on the GPUs beside everything else."""

from __future__ import annotations

ADAM_BYTES = 12
"""Per trained weight between two updates: float32 and Adam's two moments. Gradients live while vLLM sleeps."""

RESERVE_BYTES = 4 * 2**30
"""For CUDA contexts, graphs and fragmentation."""


def reference_fits(
    parameters: int, *, bytes_per_weight: int, processes: int, gpu_bytes: int, rollout_share: float
) -> bool:
    """Whether the reference may stay on the GPUs when vLLM wakes, which is when the most memory is in use.

    A policy and a critic of this size are counted, both trained in full: whatever else a run offloads only leaves more.

    Args:
        parameters: of the policy.
        bytes_per_weight: of the reference: 4 in float32.
        processes: GPUs over which weights and moments are sharded.
        gpu_bytes: memory of one GPU.
        rollout_share: `rollout.gpu_memory_utilization`.
    """
    weights = parameters * (2 * ADAM_BYTES + bytes_per_weight) / processes
    return weights + rollout_share * gpu_bytes + RESERVE_BYTES <= gpu_bytes
