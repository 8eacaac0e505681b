# SPDX-License-Identifier: Apache-2.0
"""verl's vLLM server and replica, with the worker extension that can reload weights on CPU."""

from __future__ import annotations

import os

import ray
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica

from verl_plugins.weight_sync import OwnSocketMixin

ROLLOUT_THREADS = "VERL_CPU_ROLLOUT_THREADS"
"""Environment variable: OpenMP threads of each vLLM engine (default: one fewer than there are cores)."""


def rollout_threads() -> int:
    """OpenMP threads of a vLLM engine.

    During a rollout the agent loop and the environments want a core too. A team of threads as large as the machine then
    waits at the end of every operation for the member that was sent off its core: on two cores, with two threads, 70%
    of the engine's time went there.

    Raises:
        ValueError: the environment variable is no number of threads.
    """
    threads = os.environ.get(ROLLOUT_THREADS)
    if threads is None:
        return max(1, len(os.sched_getaffinity(0)) - 1)
    if not threads.isdecimal() or int(threads) < 1:
        raise ValueError(f"{ROLLOUT_THREADS}={threads} is not a number of threads. Try: {ROLLOUT_THREADS}=1")
    return int(threads)


class CPUvLLMHttpServer(OwnSocketMixin, vLLMHttpServer):
    """verl's vLLM server; the class mixed into vLLM's workers, its sockets and the engine's threads differ."""

    def __init__(self, *args, **kwargs):
        # Read by the OpenMP library of the engine's process, which is started from this one.
        os.environ["OMP_NUM_THREADS"] = str(rollout_threads())
        super().__init__(*args, **kwargs)

    def _get_worker_extension_cls(self) -> str:
        return "verl_plugins.cpu.vllm_worker.CPUWeightSyncExtension"


class CPUvLLMReplica(vLLMReplica):
    """One vLLM engine that serves one data-parallel rank of the trainer."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.server_class = ray.remote(CPUvLLMHttpServer)
