# SPDX-License-Identifier: Apache-2.0
"""What Ray and the weight sync need of the machine: a temporary folder, shared memory, ports."""

from __future__ import annotations

import socket
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
import ray._common.utils
import ray._private.utils
from hypothesis import given
from hypothesis import strategies as st
from made_config import composed

from recipe.hiper.configuration.model_sizes import BUCKET, ModelSize
from recipe.hiper.preflight.folders import FolderState
from recipe.hiper.preflight.ports import fixed_ports, free_port_range, is_free, port_problems
from recipe.hiper.preflight.ray_folder import (
    CONFIGURED,
    LONGEST_SOCKET_PATH,
    RayFolder,
    folder_path,
    ray_folder_problems,
    read_ray_folder,
)
from recipe.hiper.preflight.shared_memory import free_shared_memory, shared_memory_problems, weight_sync_bytes
from recipe.hiper.preflight.sizes import SMOLLM2_SIZE

GB, MIB = 10**9, 1 << 20
ROOMY = FolderState(Path("/data/run"), Path("/data"), True, "ann", "bob", True, 500 * GB, 1000 * GB, 10**6)
SIZES = {"actor": SMOLLM2_SIZE}
DTYPE = "actor_rollout_ref.actor.fsdp_config.model_dtype"


# Ray's temporary folder


@pytest.mark.parametrize(
    "overrides, environment, expected",
    [
        ((), {}, ("/tmp/ray", "")),
        ((), {"TMPDIR": "/t"}, ("/t/ray", "TMPDIR")),
        ((), {"TMPDIR": "/t", "RAY_TMPDIR": "/r"}, ("/r/ray", "RAY_TMPDIR")),
        ((f"+{CONFIGURED}=/c",), {"RAY_TMPDIR": "/r"}, ("/c", CONFIGURED)),
    ],
)
def test_the_folder_is_the_one_that_ray_chooses(overrides, environment, expected, monkeypatch):
    assert folder_path(composed(*overrides), environment) == expected
    if not overrides:
        for name in ("TMPDIR", "RAY_TMPDIR"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert ray._common.utils.get_default_ray_temp_dir() == expected[0]


@given(length=st.integers(2, 120), process=st.integers(1, 4_194_304))
def test_a_path_is_too_long_exactly_where_ray_refuses_it(length, process):
    path = "/" + "x" * (length - 1)
    name = f"session_{datetime.now():%Y-%m-%d_%H-%M-%S_%f}_{process}"
    try:
        ray._private.utils.validate_socket_filepath(f"{path}/{name}/sockets/plasma_store")
        refused = False
    except OSError:
        refused = True
    lines = [*ray_folder_problems(RayFolder(ROOMY, path, "RAY_TMPDIR", process))]
    assert len(lines) == refused
    assert all(str(LONGEST_SOCKET_PATH) in line and "Try: export RAY_TMPDIR=/tmp/ray-$USER" in line for line in lines)


def test_bytes_of_a_path_are_counted_not_characters():
    path = "/" + "ä" * 20
    folder = RayFolder(ROOMY, path, "", 1)
    assert folder.socket_bytes == RayFolder(ROOMY, "/" + "a" * 40, "", 1).socket_bytes


def test_a_folder_of_another_user_is_reported():
    path = Path("/tmp/ray")
    state = replace(ROOMY, path=path, nearest=path, writable=False)
    (line,) = ray_folder_problems(RayFolder(state, "/tmp/ray", "", 1))
    reason = "because /tmp/ray belongs to user ann, and this is bob"
    assert line == (
        f"Ray's temporary folder: /tmp/ray cannot be written, {reason}. Try: export RAY_TMPDIR=/tmp/ray-$USER"
    )


@pytest.mark.parametrize("used, threshold, problems", [(0.94, 0.95, 0), (0.96, 0.95, 1), (0.96, 0.99, 0)])
def test_a_full_disk_is_reported_as_ray_counts_it(used, threshold, problems):
    state = replace(ROOMY, free=int(ROOMY.capacity * (1 - used)))
    lines = [*ray_folder_problems(RayFolder(state, "/tmp/ray", "", 1, threshold))]
    assert len(lines) == problems
    assert all("96.0% full (40.0 GB free)" in line and "RAY_local_fs_capacity_threshold" in line for line in lines)


def test_rays_own_threshold_is_read():
    config = composed()
    assert read_ray_folder(config, {"RAY_local_fs_capacity_threshold": "0.5"}).full_share == 0.5
    assert read_ray_folder(config, {}).full_share == 0.95


def test_a_relative_folder_is_refused_as_ray_does():
    (line,) = ray_folder_problems(RayFolder(ROOMY, "ray", CONFIGURED, 1))
    assert line == f"{CONFIGURED}=ray: Ray accepts an absolute path only. Try: {CONFIGURED}=/tmp/ray-$USER"


# Shared memory


def shared_memory(*overrides, free, sizes=SIZES, starts_ray=True, environment=(), profile="cpu"):
    config = composed(*overrides, profile=profile)
    return [*shared_memory_problems(config, free, sizes, starts_ray, dict(environment))]


def test_the_weight_sync_takes_a_bucket_for_each_process_by_hand():
    # The embedding of SmolLM2 has 28,311,552 numbers: 108 MiB in float32, so a bucket of 128 MiB
    config = composed(f"{DTYPE}=fp32", "trainer.n_gpus_per_node=2")
    assert weight_sync_bytes(config, SMOLLM2_SIZE) == 2 * 128 * MIB
    assert weight_sync_bytes(composed(f"{DTYPE}=fp32", f"{BUCKET}=512"), SMOLLM2_SIZE) == 512 * MIB
    # A model of a million parameters never fills its bucket
    assert weight_sync_bytes(composed(f"{DTYPE}=fp32"), ModelSize(10**6, 10**6, 10**5)) == 4 * 10**6


def test_the_small_model_runs_in_dockers_64_megabytes_and_smollm2_does_not():
    dockers = 64 * MIB - 4096
    assert not shared_memory(free=dockers, sizes={"actor": ModelSize(10**6, 10**6, 10**5)})
    (line,) = shared_memory(f"{DTYPE}=fp32", free=dockers)
    assert "/dev/shm has 67 MB free, but the weight sync writes 134 MB there" in line
    assert "Try: docker run --shm-size=8g" in line
    assert not shared_memory(free=dockers, sizes=None)


def test_several_gpus_need_room_for_nccl_and_one_does_not():
    (line,) = shared_memory("trainer.n_gpus_per_node=4", free=64 * MIB, profile="gpu")
    assert "NCCL needs about 1,000 MB" in line and "--shm-size=8g" in line
    assert not shared_memory("trainer.n_gpus_per_node=1", free=64 * MIB, profile="gpu")
    assert not shared_memory("trainer.n_gpus_per_node=4", free=2 * GB, profile="gpu")


def test_a_large_object_store_is_refused_as_ray_does():
    store = f"+ray_kwargs.ray_init.object_store_memory={20 * GB}"
    (line,) = shared_memory(store, free=12 * GB)
    assert line.startswith(f"ray_kwargs.ray_init.object_store_memory={20 * GB} is more than the 12,000 MB free")
    assert not shared_memory(store, free=21 * GB)
    assert not shared_memory(store, free=12 * GB, starts_ray=False)
    assert not shared_memory(store, free=12 * GB, environment={"RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE": "1"})
    # Ray puts a smaller one elsewhere
    assert not shared_memory(f"+ray_kwargs.ray_init.object_store_memory={9 * GB}", free=GB)


def test_free_shared_memory_is_that_of_the_folder(tmp_path):
    assert free_shared_memory(tmp_path) > 0
    assert free_shared_memory(tmp_path / "none") == 0


# Ports


def test_ports_are_fixed_by_configuration_and_environment_only():
    assert fixed_ports(composed(), {}) == {}
    config = composed("+ray_kwargs.ray_init.dashboard_port=8265")
    assert fixed_ports(config, {}) == {}  # there is no dashboard: include_dashboard=false
    config = composed("+ray_kwargs.ray_init.dashboard_port=8265", "ray_kwargs.ray_init.include_dashboard=true")
    assert set(fixed_ports(config, {"RAY_GCS_SERVER_PORT": "6379"}).values()) == {8265, 6379}
    assert fixed_ports(composed(), {"RAY_GCS_SERVER_PORT": "0"}) == {}  # any port


def test_a_fixed_port_that_is_taken_is_reported():
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        origin = f"RAY_GCS_SERVER_PORT={port} in the environment"
        (line,) = port_problems({origin: port}, (32768, 60999))
        assert line.startswith(f"{origin}: ") and line.endswith("Try: unset RAY_GCS_SERVER_PORT")
        (line,) = port_problems({f"ray_kwargs.ray_init.dashboard_port={port}": port}, None)
        assert line.endswith("Try: ray_kwargs.ray_init.dashboard_port=null")
    assert is_free(port) and not [*port_problems({origin: port}, (32768, 60999))]
    assert not is_free(70_000)


def test_too_few_ports_are_reported(tmp_path):
    assert not [*port_problems({}, (40000, 40099))]
    (line,) = port_problems({}, (40000, 40098))
    assert line.startswith("net.ipv4.ip_local_port_range=40000 40098: Linux gives out 99 ports")
    file = tmp_path / "range"
    file.write_text("40000\t40050\n")
    assert free_port_range(file) == (40000, 40050) and free_port_range(tmp_path / "none") is None
