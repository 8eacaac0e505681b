# SPDX-License-Identifier: Apache-2.0
"""`profile=gpu` on a machine without a GPU: what has to differ, and nothing else.

    python benchmarks/gpu/on_cpu.py                 # the overrides, one a line
    python benchmarks/gpu/on_cpu.py variables       # the environment variables, one a line

Used by the benchmarks with --rehearse and by tests/integration/test_gpu_profile.py. Every line is either the device
itself or something that exists with CUDA only; docs/gpu.md says so line by line.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agent_system.processes import usable_cpus
from recipe.hiper.configuration.hardware import PROFILE_ENVIRONMENT

ON_CPU = {
    "trainer.device": "cpu",
    "trainer.n_gpus_per_node": 1,  # training processes
    # Ray counts GPUs and CPUs that are not there.
    "+ray_kwargs.ray_init.num_gpus": "${trainer.n_gpus_per_node}",
    "ray_kwargs.ray_init.num_cpus": 16,
    # torch.compile and CUDA graphs
    "actor_rollout_ref.actor.use_torch_compile": False,
    "actor_rollout_ref.actor.fsdp_config.use_torch_compile": False,
    "actor_rollout_ref.ref.fsdp_config.use_torch_compile": False,
    "critic.fsdp.use_torch_compile": False,
    "actor_rollout_ref.rollout.enforce_eager": True,
    # vLLM's memory: the allocator that gives it back is CUDA's. Its engine is still told to sleep and to wake up.
    "+actor_rollout_ref.rollout.enable_sleep_mode": False,
    "+actor_rollout_ref.rollout.engine_kwargs.vllm.kv_cache_memory_bytes": 2**28,
    "+actor_rollout_ref.rollout.engine_kwargs.vllm.distributed_executor_backend": "uni",
    # Decided from the memory of the GPUs; this is what a full one gets
    "actor_rollout_ref.ref.fsdp_config.param_offload": True,
    # vLLM's CPU worker cannot take a random number back, as it does after a part of a prompt
    "actor_rollout_ref.rollout.enable_chunked_prefill": False,
}
"""Overrides of `profile=gpu`."""


def environment() -> dict[str, str]:
    """The variables that `profile=cpu` sets in its processes; those that are set already win."""
    # bf16 whatever is fastest here: rounding is what is rehearsed
    ours = PROFILE_ENVIRONMENT | {"OMP_NUM_THREADS": str(usable_cpus()), "VERL_CPU_DTYPE": "bf16"}
    return {name: os.environ.get(name, value) for name, value in ours.items()}


if __name__ == "__main__":
    lines = environment() if sys.argv[1:] == ["variables"] else ON_CPU
    print("\n".join(f"{name}={value}" for name, value in lines.items()))
