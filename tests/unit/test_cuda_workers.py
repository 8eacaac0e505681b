# SPDX-License-Identifier: Apache-2.0
"""The workers of a run on GPUs, as far as they can be examined without one: classes, sockets and time limits."""

from __future__ import annotations

import asyncio
import os
import types

import pytest
import ray
import zmq
from made_config import composed
from verl.trainer.ppo.utils import Role
from verl.utils.device import get_device_name
from verl.workers.engine_workers import ActorRolloutRefWorker
from verl.workers.rollout.replica import RolloutReplicaRegistry
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer

from recipe.hiper.configuration.settings import verl_config
from recipe.hiper.trainer.cpu_workers import CPUMultiHeadCriticWorker
from recipe.hiper.trainer.critic import MultiHeadCriticWorker
from recipe.hiper.trainer.ppo_trainer import HiPERTrainer
from verl_plugins.cpu.workers import CPUActorRolloutRefWorker
from verl_plugins.cuda.replica import CUDAvLLMHttpServer, CUDAvLLMReplica
from verl_plugins.cuda.workers import CUDAActorRolloutRefWorker
from verl_plugins.weight_sync import WeightSyncMixin

CLUSTERS = ("10.0.0.1:6379", "10.0.0.1:51234")
"""Addresses of the Ray clusters of two runs on a machine. Both runs are job 01000000 of their cluster."""


@pytest.fixture
def cluster(monkeypatch):
    """Returns a function that makes this process a part of a cluster with this address."""

    def join(address: str) -> None:
        context = types.SimpleNamespace(get_job_id=lambda: "01000000", gcs_address=address)
        monkeypatch.setattr(ray, "get_runtime_context", lambda: context)

    return join


def workers_of(profile: str, monkeypatch) -> dict[Role, type]:
    """The worker classes that the trainer gives verl."""
    monkeypatch.setattr(RolloutReplicaRegistry, "_registry", dict(RolloutReplicaRegistry._registry))
    trainer = HiPERTrainer.__new__(HiPERTrainer)
    trainer.config = verl_config(composed(profile=profile))
    trainer._init_resource_pool_mgr()
    return {
        role: worker.__ray_metadata__.modified_class.__mro__[1] for role, worker in trainer.role_worker_mapping.items()
    }


def test_the_configuration_chooses_the_workers_and_not_the_process_of_the_trainer(monkeypatch):
    """The head of a Ray cluster may have no GPU; verl's platform of its processes is then "cpu"."""
    assert get_device_name() == "cpu"
    workers = workers_of("gpu", monkeypatch)
    assert workers == {Role.ActorRolloutRef: CUDAActorRolloutRefWorker, Role.Critic: MultiHeadCriticWorker}
    assert RolloutReplicaRegistry.get("vllm") is CUDAvLLMReplica
    on_cpu = workers_of("cpu", monkeypatch)
    assert on_cpu == {Role.ActorRolloutRef: CPUActorRolloutRefWorker, Role.Critic: CPUMultiHeadCriticWorker}


@pytest.mark.parametrize("worker_class", [CUDAActorRolloutRefWorker, CPUActorRolloutRefWorker])
def test_the_weight_sync_has_a_time_limit_and_a_socket_of_the_run(monkeypatch, cluster, worker_class):
    monkeypatch.setenv("VERL_WEIGHT_SYNC_TIMEOUT_S", "7")

    async def verls(self, global_steps=None, mode="auto"):
        with zmq.Context.instance().socket(zmq.REQ) as socket:
            return self.rollout.zmq_handle, socket.getsockopt(zmq.RCVTIMEO)

    monkeypatch.setattr(ActorRolloutRefWorker, "update_weights", verls)
    assert worker_class.update_weights is WeightSyncMixin.update_weights
    handles = []
    for address in CLUSTERS:
        cluster(address)
        worker = worker_class.__new__(worker_class)
        worker.rollout = types.SimpleNamespace(zmq_handle="ipc:///tmp/rl-colocate-zmq-01000000-replica-0-rank-0.sock")
        handle, limit = asyncio.run(worker.update_weights(global_steps=1))
        assert limit == 7000
        handles.append(handle)
    assert handles[0] != handles[1]


def test_the_server_names_the_same_socket(monkeypatch, cluster):
    """The engine's process reads the name from the environment of the server."""
    monkeypatch.setattr(vLLMHttpServer, "__init__", lambda self: os.environ.update(VERL_RAY_JOB_ID="01000000"))
    monkeypatch.setenv("VERL_RAY_JOB_ID", "")
    names = []
    for address in CLUSTERS:
        cluster(address)
        CUDAvLLMHttpServer()
        names.append(os.environ["VERL_RAY_JOB_ID"])
    assert names == ["01000000-6379", "01000000-51234"]
