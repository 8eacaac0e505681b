# SPDX-License-Identifier: Apache-2.0
"""Which Ray a run would use, and whether a running cluster can carry it. No test starts Ray."""

from __future__ import annotations

import ast
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_config import composed
from ray._private.services import canonicalize_bootstrap_address
from ray.core.generated.gcs_pb2 import GcsNodeInfo
from ray.core.generated.gcs_service_pb2 import GetAllNodeInfoReply
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceServicer, add_NodeInfoGcsServiceServicer_to_server

from recipe.hiper.preflight import ray_cluster
from recipe.hiper.preflight.cluster_size import (
    ClusterNode,
    NoRayThere,
    read_nodes,
    requested_cpus,
    size_problems,
    start_command,
)
from recipe.hiper.preflight.ray_cluster import (
    FOR_A_NEW_CLUSTER,
    AddressSources,
    ExistingCluster,
    answers,
    cluster_problems,
    existing_cluster,
    fit_to_cluster,
    read_address_sources,
    split_address,
)

HOST = "127.0.0.2"
"""A loopback address that Ray does not replace by the address of this machine in its network, as it does 127.0.0.1."""

RECORD = Path("/tmp/ray/ray_current_cluster")


@contextmanager
def listener(host: str = HOST) -> Iterator[int]:
    """A port where connections are accepted and nothing is said."""
    with socket.socket() as server:
        server.bind((host, 0))
        server.listen()
        yield server.getsockname()[1]


def closed_port() -> int:
    with listener() as port:
        return port


class Head(NodeInfoGcsServiceServicer):
    """The one request of Ray's head that the check makes."""

    def __init__(self, nodes: list[GcsNodeInfo], refusal: grpc.StatusCode | None = None):
        self.nodes, self.refusal = nodes, refusal

    def GetAllNodeInfo(self, request, context):
        if self.refusal is not None:
            context.abort(self.refusal, "no token")
        return GetAllNodeInfoReply(node_info_list=self.nodes)


@contextmanager
def head(*nodes: GcsNodeInfo, refusal: grpc.StatusCode | None = None) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(1))
    add_NodeInfoGcsServiceServicer_to_server(Head(list(nodes), refusal), server)
    port = server.add_insecure_port(f"{HOST}:0")
    server.start()
    try:
        yield f"{HOST}:{port}"
    finally:
        server.stop(None).wait()


def node(identifier: bytes, cpus: float, gpus: float, state=GcsNodeInfo.ALIVE) -> GcsNodeInfo:
    return GcsNodeInfo(node_id=identifier, state=state, resources_total={"CPU": cpus, "GPU": gpus})


# Which address


@pytest.mark.parametrize(
    "sources, address",
    [
        (AddressSources(), None),
        (AddressSources(environment="10.0.0.1:6379"), "10.0.0.1:6379"),
        (AddressSources(configured="10.0.0.2:6379", environment="10.0.0.1:6379"), "10.0.0.2:6379"),
        (AddressSources(configured="auto", environment="10.0.0.1:6379"), "10.0.0.1:6379"),
        (AddressSources(recorded="10.0.0.3:6379"), "10.0.0.3:6379"),
        (AddressSources(environment="10.0.0.1:6379", recorded="10.0.0.3:6379"), "10.0.0.1:6379"),
        (AddressSources(environment="local", recorded="10.0.0.3:6379"), None),
        (AddressSources(configured="local", environment="10.0.0.1:6379"), None),
        (AddressSources(configured="auto"), None),
        (AddressSources(environment="auto", recorded="10.0.0.3:6379"), "10.0.0.3:6379"),
    ],
)
def test_the_address_is_the_one_that_ray_would_choose(sources, address, monkeypatch, tmp_path):
    cluster = existing_cluster(sources)
    assert (cluster.address if cluster else None) == address
    # Ray's own function, with the same environment and file
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", frozenset)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if sources.environment:
        monkeypatch.setenv("RAY_ADDRESS", sources.environment)
    if sources.recorded is not None:
        (tmp_path / "ray_current_cluster").write_text(sources.recorded)
    # What `ray.init` does before it calls the function
    given_to_ray = sources.configured
    if sources.environment and given_to_ray in (None, "auto"):
        given_to_ray = sources.environment
    if sources.wanted == "auto" and sources.recorded is None:
        with pytest.raises(ConnectionError):
            canonicalize_bootstrap_address(given_to_ray, str(tmp_path))
    else:
        assert canonicalize_bootstrap_address(given_to_ray, str(tmp_path)) == address


def test_auto_takes_the_ray_that_runs_here_and_of_several_the_recorded_one():
    one, two = frozenset({"10.0.0.1:1"}), frozenset({"10.0.0.1:1", "10.0.0.1:2"})
    auto = dict(configured="auto", recorded="10.0.0.1:2")
    assert existing_cluster(AddressSources(**auto, running=one)).address == "10.0.0.1:1"
    assert existing_cluster(AddressSources(**auto, running=two)).address == "10.0.0.1:2"
    assert existing_cluster(AddressSources(recorded=None, running=two)) is None


def test_sources_are_read_from_configuration_environment_and_file(tmp_path):
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("10.0.0.3:6379\n")
    environment = {"RAY_TMPDIR": str(tmp_path), "RAY_ADDRESS": ""}
    sources = read_address_sources(composed(), environment)
    assert sources == AddressSources(None, None, tmp_path / "ray" / "ray_current_cluster", "10.0.0.3:6379")
    configured = composed(f"+ray_kwargs.ray_init._temp_dir={tmp_path}", "+ray_kwargs.ray_init.address=10.0.0.2:1")
    sources = read_address_sources(configured, environment | {"RAY_ADDRESS": "10.0.0.1:1"})
    assert sources == AddressSources("10.0.0.2:1", "10.0.0.1:1", tmp_path / "ray_current_cluster", None)


@pytest.mark.parametrize(
    "address, target",
    [
        ("10.0.0.1:6379", ("10.0.0.1", 6379)),
        ("ray://head:10001", ("head", 10001)),
        ("[fe80::1]:6379", ("fe80::1", 6379)),
        ("head", None),
        ("head:", None),
        (":6379", None),
        ("head:port", None),
        ("head:0", None),
        ("head:65536", None),
        ("fe80::1:6379", None),
        ("", None),
    ],
)
def test_addresses_are_host_and_port(address, target):
    assert split_address(address) == target


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_none(text):
    target = split_address(text)
    assert target is None or (target[0] and 0 < target[1] < 65536)


# Whether it answers


def test_a_closed_port_is_reported_with_the_way_to_an_own_ray():
    port = closed_port()
    config = composed()
    (line,) = cluster_problems(config, AddressSources(environment=f"{HOST}:{port}"))
    assert line.startswith(f"RAY_ADDRESS={HOST}:{port} in the environment: no Ray cluster answers at {HOST}:{port}")
    assert "refused" in line and "Try: unset RAY_ADDRESS, " in line and f"--num-gpus=1 --port={port}" in line
    (line,) = cluster_problems(config, AddressSources(configured=f"ray://{HOST}:{port}"))
    assert "Try: ray_kwargs.ray_init.address=null, " in line and f"--ray-client-server-port={port}" in line


def test_a_left_over_file_of_ray_start_is_reported_with_its_path():
    (line,) = cluster_problems(composed(), AddressSources(recorded=f"{HOST}:{closed_port()}", record=RECORD))
    assert line.startswith(f"{RECORD}, which `ray start` has written: no Ray cluster answers")
    assert f"Try: rm {RECORD}, if it is left over, or export RAY_ADDRESS=local" in line


def test_an_address_that_is_none_is_reported():
    (line,) = cluster_problems(composed(), AddressSources(environment="head"))
    assert "RAY_ADDRESS=head in the environment: 'head' is not an address" in line and "Try: unset RAY_ADDRESS" in line


def test_auto_without_a_ray_is_reported_and_no_address_is_not():
    (line,) = cluster_problems(composed(), AddressSources(environment="auto"))
    assert line.startswith("RAY_ADDRESS=auto in the environment: no Ray runs on this machine")
    assert "Try: unset RAY_ADDRESS" in line and "ray start --head" in line
    assert not [*cluster_problems(composed(), AddressSources())]
    assert not [*cluster_problems(composed(), AddressSources(environment="local", recorded=f"{HOST}:1"))]


def test_connecting_ends_after_the_timeout():
    with socket.socket() as server:
        server.bind((HOST, 0))
        server.listen(0)
        port = server.getsockname()[1]
        waiting = [socket.socket() for _ in range(3)]
        try:
            for client in waiting:  # they fill the queue of the server, which then answers no more
                client.setblocking(False)
                client.connect_ex((HOST, port))
            started = time.monotonic()
            assert "timed out" in answers(HOST, port, timeout_s=0.2)
            assert 0.1 < time.monotonic() - started < 2
        finally:
            for client in waiting:
                client.close()


def test_another_program_at_the_address_is_reported(monkeypatch):
    with listener() as port:
        assert answers(HOST, port) is None
        with pytest.raises(NoRayThere, match="DEADLINE_EXCEEDED|UNAVAILABLE"):
            read_nodes(f"{HOST}:{port}", timeout_s=0.2)
        monkeypatch.setattr(ray_cluster, "read_nodes", lambda address: read_nodes(address, 0.2))
        (line,) = cluster_problems(composed(), AddressSources(environment=f"{HOST}:{port}"))
    assert "something listens there, but not Ray" in line


def test_a_head_that_refuses_to_tell_is_no_problem():
    with head(refusal=grpc.StatusCode.UNAUTHENTICATED) as address:
        assert read_nodes(address) is None
        assert not [*cluster_problems(composed(), AddressSources(environment=address))]


def test_a_cluster_that_is_large_enough_is_no_problem_and_a_small_one_is(monkeypatch):
    monkeypatch.setattr(ray_cluster, "raylets_here", lambda: frozenset({b"a".hex()}))
    dead = node(b"b", 64, 8, GcsNodeInfo.DEAD)
    with head(node(b"a", 16, 1), dead) as address:
        assert read_nodes(address) == [ClusterNode(b"a".hex(), 16, 1)]
        assert not [*cluster_problems(composed(), AddressSources(environment=address))]
    with head(node(b"a", 2, 0), dead) as address:
        (line,) = cluster_problems(composed(), AddressSources(environment=address))
    assert f"the Ray cluster at {address} has 2 CPUs and 0 GPUs, but the run requests" in line
    assert "Try: unset RAY_ADDRESS" in line and "ray stop; ray start --head --num-cpus=16 --num-gpus=1" in line


def test_a_proxy_of_the_environment_is_not_used(monkeypatch):
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://{HOST}:{closed_port()}")
    with head(node(b"a", 16, 1)) as address:
        assert read_nodes(address) == [ClusterNode(b"a".hex(), 16, 1)]


# Its size


def test_requested_cpus_by_hand():
    config = composed("env.pool.num_workers=4", "env.resources_per_worker.num_cpus=0.5")
    # verl 3, environments 4 x 0.5, trainer and queue 2, one storage unit, one CPU for placing
    assert requested_cpus(config) == 3 + 2 + 2 + 1 + 1
    config = composed("trainer.n_gpus_per_node=8", "trainer.nnodes=2", "env.pool.num_workers=4", profile="gpu")
    assert requested_cpus(config) == 48 + 0.4 + 4
    assert start_command(config) == "ray start --head --num-cpus=53"  # Ray counts the GPUs


@settings(max_examples=25)
@given(
    gpus=st.integers(1, 8), machines=st.integers(1, 4), spare_cpus=st.floats(0, 100), missing=st.sampled_from((0, 1))
)
def test_a_cluster_is_refused_exactly_where_a_gpu_is_missing(gpus, machines, spare_cpus, missing):
    config = composed(f"trainer.n_gpus_per_node={gpus}", f"trainer.nnodes={machines}", profile="gpu")
    cpus = requested_cpus(config) / machines + spare_cpus
    nodes = [ClusterNode(str(index), cpus, gpus - (missing if index == 0 else 0)) for index in range(machines)]
    lines = [*size_problems(config, "10.0.0.1:1", nodes, frozenset("0"), "unset RAY_ADDRESS")]
    assert len(lines) == missing


def test_training_processes_of_one_machine_must_fit_on_one_node():
    config = composed("trainer.n_gpus_per_node=8", "trainer.nnodes=1", profile="gpu")
    nodes = [ClusterNode("a", 64, 4), ClusterNode("b", 64, 4)]
    (line,) = size_problems(config, "10.0.0.1:1", nodes, frozenset("a"), "unset RAY_ADDRESS")
    assert line.startswith("trainer.nnodes=1 trainer.n_gpus_per_node=8: ") and "has 0 machines with 8 GPUs" in line


def test_a_machine_outside_the_cluster_is_reported():
    nodes = [ClusterNode("a", 64, 4)]
    (line,) = size_problems(composed(), "10.0.0.1:1", nodes, frozenset({"other"}), "unset RAY_ADDRESS")
    assert "this one is none of them" in line and "ray start --address=10.0.0.1:1" in line


# Arguments of ray.init


def test_arguments_that_ray_refuses_are_removed_for_a_running_cluster():
    config = composed("+ray_kwargs.ray_init.object_store_memory=1000000000", "trainer.n_gpus_per_node=2")
    line = fit_to_cluster(config, AddressSources(environment="10.0.0.1:6379"))
    arguments = config.ray_kwargs.ray_init
    assert [arguments.get(name) for name in FOR_A_NEW_CLUSTER] == [None] * len(FOR_A_NEW_CLUSTER)
    assert arguments.include_dashboard is False and "runtime_env" in arguments
    assert line == (
        "Ray: the run uses the cluster at 10.0.0.1:6379 (RAY_ADDRESS=10.0.0.1:6379 in the environment); not used, "
        "because they are for a Ray that the run starts itself: ray_kwargs.ray_init.num_cpus=16 "
        "ray_kwargs.ray_init.num_gpus=2 ray_kwargs.ray_init.object_store_memory=1000000000"
    )


def test_arguments_stay_where_the_run_starts_its_own_ray():
    for sources in (AddressSources(), AddressSources(environment="auto"), AddressSources(environment="local")):
        config = composed()
        assert fit_to_cluster(config, sources) is None
        assert config == composed()


def test_ray_init_refuses_exactly_the_arguments_that_are_removed():
    """Reads Ray's source: a later version may refuse others."""
    import ray._private.worker

    refused = set()
    for branch in ast.walk(ast.parse(Path(ray._private.worker.__file__).read_text("utf-8"))):
        if isinstance(branch, ast.If) and "an existing cluster" in ast.unparse(branch.body[0]):
            refused |= {name.id for name in ast.walk(branch.test) if isinstance(name, ast.Name)}
    assert refused - {"len"} == set(FOR_A_NEW_CLUSTER)


def test_ray_client_is_not_asked_for_its_nodes():
    with listener() as port:
        cluster = ExistingCluster(f"ray://{HOST}:{port}", "")
        assert cluster.is_client
        assert not [*cluster_problems(composed(), AddressSources(environment=cluster.address))]


def test_ray_is_imported_with_the_variable_that_verl_sets(monkeypatch):
    monkeypatch.delenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", raising=False)
    ray_cluster.import_ray()
    assert os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] == "0"
