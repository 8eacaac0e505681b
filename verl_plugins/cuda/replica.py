# SPDX-License-Identifier: Apache-2.0
"""verl's vLLM server and replica, with sockets of their own for each run."""

from __future__ import annotations

import ray
from verl.workers.rollout.replica import RolloutReplicaRegistry
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica

from verl_plugins.weight_sync import OwnSocketMixin


class CUDAvLLMHttpServer(OwnSocketMixin, vLLMHttpServer):
    """verl's vLLM server on GPUs."""


class CUDAvLLMReplica(vLLMReplica):
    """One vLLM engine that serves one data-parallel rank of the trainer."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.server_class = ray.remote(CUDAvLLMHttpServer)


def register_replica() -> None:
    """Have verl start `CUDAvLLMReplica` for `rollout.name=vllm`. To be called in the process of the trainer."""
    RolloutReplicaRegistry.register("vllm", lambda: CUDAvLLMReplica)
