# SPDX-License-Identifier: Apache-2.0
"""verl's vLLM server and replica, with the worker extension that can reload weights on CPU."""

from __future__ import annotations

import ray
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica


class CPUvLLMHttpServer(vLLMHttpServer):
    """verl's vLLM server; only the class mixed into vLLM's workers differs."""

    def _get_worker_extension_cls(self) -> str:
        return "verl_plugins.cpu.vllm_worker.CPUWeightSyncExtension"


class CPUvLLMReplica(vLLMReplica):
    """One vLLM engine that serves one data-parallel rank of the trainer."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.server_class = ray.remote(CPUvLLMHttpServer)
