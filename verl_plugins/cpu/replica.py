# SPDX-License-Identifier: Apache-2.0
"""verl's vLLM server and replica, with the worker extension that can reload weights on CPU."""

from __future__ import annotations

import os

import ray
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica

from verl_plugins.weight_sync import OwnSocketMixin

ROLLOUT_THREADS = "VERL_CPU_ROLLOUT_THREADS"
"""Environment variable: OpenMP threads of each vLLM engine (default: one fewer than there are cores for a small model,
as many as there are cores for others)."""

SMALL = 512
"""A hidden size below which a model's operations are shorter than the turns of the agent loop between them."""


def rollout_threads(hidden_size: int) -> int:
    """OpenMP threads of a vLLM engine, by the model's hidden size.

    During a rollout the agent loop and the environments want a core too. A team of threads as large as the machine then
    waits at the end of every operation for the member that was sent off its core: on two cores, with two threads and a
    model of a million parameters, 70% of the engine's time went there. With SmolLM2 (135 million) the agent loop takes
    3% of a core, and two threads are faster: 112 s for a rollout instead of 130.

    Raises:
        ValueError: the environment variable is no number of threads.
    """
    threads = os.environ.get(ROLLOUT_THREADS)
    if threads is None:
        cores = len(os.sched_getaffinity(0))
        return max(1, cores - 1) if hidden_size < SMALL else cores
    if not threads.isdecimal() or int(threads) < 1:
        raise ValueError(f"{ROLLOUT_THREADS}={threads} is not a number of threads. Try: {ROLLOUT_THREADS}=1")
    return int(threads)


class CPUvLLMHttpServer(OwnSocketMixin, vLLMHttpServer):
    """verl's vLLM server; the class mixed into vLLM's workers, its sockets and the engine's threads differ."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        hidden_size = self.model_config.hf_config.get_text_config().hidden_size
        # Read by the OpenMP library of the engine's process, which this one starts later.
        os.environ["OMP_NUM_THREADS"] = str(rollout_threads(hidden_size))

    def _get_worker_extension_cls(self) -> str:
        return "verl_plugins.cpu.vllm_worker.CPUWeightSyncExtension"


class CPUvLLMReplica(vLLMReplica):
    """One vLLM engine that serves one data-parallel rank of the trainer."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.server_class = ray.remote(CPUvLLMHttpServer)
