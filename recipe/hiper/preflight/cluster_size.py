# SPDX-License-Identifier: Apache-2.0
"""Whether a running Ray cluster has what a run requests of it. A run waits without end for what it does not have.

The numbers are Ray's: a CPU or GPU is what `ray start` was told. On a CPU machine a "GPU" is one training process.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from omegaconf import DictConfig

from recipe.hiper.configuration.hardware import CPUS_PER_GPU

QUERY_TIMEOUT_S = 2.0

RUNNER_AND_QUEUE = 2
"""CPUs of the process that holds the trainer and of the controller of TransferQueue, whose storage units take one
each."""

FOR_PLACING = 1
"""Ray starts an actor without a reservation, such as an agent loop, on a CPU that is free at that moment."""

ROUNDING = 1e-4
"""Ray counts in steps of a ten-thousandth."""


class NoRayThere(Exception):
    """Something else than the head of a Ray cluster answers at an address."""


@dataclass(frozen=True)
class ClusterNode:
    """A machine of a Ray cluster: its identifier (hexadecimal), and the CPUs and GPUs that Ray counts there."""

    identifier: str
    cpus: float
    gpus: float


def import_ray() -> None:
    """Import Ray as `import verl` does.

    Ray reads this variable when it is imported. With another value its hook for `uv run` ends `ray.init` with a
    TypeError, because verl sets `working_dir` to None.
    """
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    import ray  # noqa: F401


def read_nodes(address: str, timeout_s: float = QUERY_TIMEOUT_S) -> list[ClusterNode] | None:
    """Ask the head of a cluster for its machines, without joining it.

    The request goes through gRPC's own client: Ray's `GcsClient` waits 40 seconds for a head that does not answer.

    Returns:
        None where the head refuses to tell, for example without a token: `ray.init` may have one.

    Raises:
        NoRayThere: no head of a Ray cluster answers in time.
    """
    import_ray()
    import grpc
    from ray._private.gcs_utils import create_gcs_channel
    from ray.core.generated.gcs_pb2 import GcsNodeInfo
    from ray.core.generated.gcs_service_pb2 import GetAllNodeInfoRequest
    from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

    foreign = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNIMPLEMENTED)
    request = GetAllNodeInfoRequest(state_filter=GcsNodeInfo.ALIVE)
    with create_gcs_channel(address) as channel:
        try:
            reply = NodeInfoGcsServiceStub(channel).GetAllNodeInfo(request, timeout=timeout_s)
        except grpc.RpcError as error:
            if error.code() in foreign:
                raise NoRayThere(f"something listens there, but not Ray: {error.code().name}") from None
            return None
    return [
        ClusterNode(node.node_id.hex(), node.resources_total.get("CPU", 0.0), node.resources_total.get("GPU", 0.0))
        for node in reply.node_info_list
        if node.state == GcsNodeInfo.ALIVE
    ]


def raylets_here() -> frozenset[str]:
    """Identifiers of the nodes that this machine is in some cluster. `ray.init` connects through one of them."""
    import_ray()
    from ray._private.services import find_node_ids

    return frozenset(find_node_ids())


def requested_gpus(config: DictConfig) -> int:
    """GPUs (training processes) that a run requests of Ray."""
    processes: int = config.trainer.n_gpus_per_node * config.trainer.nnodes
    return processes


def requested_cpus(config: DictConfig) -> float:
    """CPUs that a run requests of Ray at the least, with one environment worker where the number is computed."""
    workers = (config.env.pool.num_workers or 1) * config.env.resources_per_worker.num_cpus
    storage = config.transfer_queue.backend.SimpleStorage.num_data_storage_units
    others: float = RUNNER_AND_QUEUE + storage + FOR_PLACING
    return CPUS_PER_GPU * requested_gpus(config) + float(workers) + others


def start_command(config: DictConfig) -> str:
    """The command that starts a cluster which is large enough, for messages."""
    command = f"ray start --head --num-cpus={max(16, math.ceil(requested_cpus(config)))}"
    # Where there are GPUs, Ray counts them itself
    return f"{command} --num-gpus={requested_gpus(config)}" if config.trainer.device == "cpu" else command


def size_problems(
    config: DictConfig, address: str, nodes: Sequence[ClusterNode], here: frozenset[str], remedy: str
) -> Iterator[str]:
    """A message for each reason why a running cluster cannot carry the run.

    Args:
        here: see `raylets_here`.
        remedy: what to type so that the run starts its own Ray.
    """
    if here.isdisjoint(node.identifier for node in nodes):
        yield (
            f"the Ray cluster at {address} has {len(nodes)} machines, and this one is none of them, so ray.init cannot "
            f"connect. Try: {remedy}, so that the run starts its own Ray, or ray start --address={address}"
        )
    per_node, machines = config.trainer.n_gpus_per_node, config.trainer.nnodes
    has = {"CPUs": sum(node.cpus for node in nodes), "GPUs": sum(node.gpus for node in nodes)}
    needs = {"CPUs": requested_cpus(config), "GPUs": requested_gpus(config)}
    # verl places the training processes of one machine on one node
    suitable = sum(node.gpus >= per_node and node.cpus >= CPUS_PER_GPU * per_node for node in nodes)
    if any(has[name] + ROUNDING < needs[name] for name in needs):
        yield (
            f"the Ray cluster at {address} has {has['CPUs']:g} CPUs and {has['GPUs']:g} GPUs, but the run requests "
            f"{needs['CPUs']:g} CPUs and {needs['GPUs']:g} GPUs (Ray's numbers, which may exceed those of the machine) "
            f"and would wait for them without end. Try: {remedy}, so that the run starts its own Ray, or restart the "
            f"cluster: ray stop; {start_command(config)}"
        )
    elif suitable < machines:
        yield (
            f"trainer.nnodes={machines} trainer.n_gpus_per_node={per_node}: the Ray cluster at {address} has "
            f"{suitable} machines with {per_node} GPUs and {CPUS_PER_GPU * per_node} CPUs or more, and the run would "
            "wait for the others without end. Try: trainer.nnodes and trainer.n_gpus_per_node as `ray status` shows "
            "them"
        )
