# SPDX-License-Identifier: Apache-2.0
"""Whether the run starts its own Ray or connects to a running cluster, as `ray.init` of Ray 2.60 decides it.

An address comes from `ray_kwargs.ray_init.address`, else from RAY_ADDRESS, else from a file that `ray start` leaves on
this machine. `ray.init` keeps trying an address where nothing answers, also that of a file which is left over, and
raises ConnectionError in the end.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict

from recipe.hiper.preflight.cluster_size import (
    ClusterNode,
    NoRayThere,
    import_ray,
    raylets_here,
    read_nodes,
    size_problems,
    start_command,
)
from recipe.hiper.preflight.ray_folder import folder_path

ADDRESS = "ray_kwargs.ray_init.address"
RECORD = "ray_current_cluster"
"""Name of the file with the address of the latest `ray start`, in Ray's temporary folder."""

CONNECT_TIMEOUT_S = 2.0

FOR_A_NEW_CLUSTER = (
    "num_cpus",
    "num_gpus",
    "resources",
    "labels",
    "object_store_memory",
    "_system_config",
    "_enable_object_reconstruction",
    "_node_name",
)
"""Arguments with which `ray.init` refuses to connect to a running cluster (`ray/_private/worker.py`)."""


@dataclass(frozen=True)
class AddressSources:
    """Where the address of a running cluster may come from.

    Attributes:
        configured: `ray_kwargs.ray_init.address`.
        environment: RAY_ADDRESS.
        record: file of the latest `ray start`.
        recorded: what it holds; None where there is no such file.
        running: addresses of the clusters of which this machine runs a part. Ray looks at them for `auto` only.
    """

    configured: str | None = None
    environment: str | None = None
    record: Path = Path("/tmp/ray") / RECORD
    recorded: str | None = None
    running: frozenset[str] = field(default_factory=frozenset)

    @property
    def wanted(self) -> str | None:
        """The address that the user chose; None, "auto" and "local" have a meaning of their own."""
        return (self.configured if self.configured not in (None, "auto") else self.environment) or self.configured

    @property
    def name_of_wanted(self) -> str:
        """What chose it, for messages."""
        if self.configured not in (None, "auto") or not self.environment:
            return f"{ADDRESS}={self.wanted}"
        return f"RAY_ADDRESS={self.wanted} in the environment"

    @property
    def remedy(self) -> str:
        """What to type so that the run starts its own Ray."""
        if self.wanted is None:
            return f"rm {self.record}, if it is left over, or export RAY_ADDRESS=local"
        if self.configured not in (None, "auto") or not self.environment:
            return f"{ADDRESS}=null"
        return "unset RAY_ADDRESS"


@dataclass(frozen=True)
class ExistingCluster:
    """A cluster that `ray.init` would connect to.

    Attributes:
        address: host:port of its head; ray://host:port of a Ray Client server.
        origin: what names it, for messages.
    """

    address: str
    origin: str

    @property
    def is_client(self) -> bool:
        """Whether it is reached through Ray Client, which does not ask the head of the cluster."""
        return "://" in self.address


def read_address_sources(config: DictConfig, environment: Mapping[str, str] = os.environ) -> AddressSources:
    """Read configuration, environment and Ray's file."""
    record = Path(folder_path(config, environment)[0]) / RECORD
    configured = OmegaConf.select(config, ADDRESS)
    sources = AddressSources(
        configured=configured,
        environment=environment.get("RAY_ADDRESS") or None,
        record=record,
        recorded=record.read_text("utf-8").strip() if os.access(record, os.R_OK) else None,
    )
    if sources.wanted != "auto":
        return sources
    import_ray()
    from ray._private.services import find_gcs_addresses

    running = frozenset(find_gcs_addresses())
    return AddressSources(configured, sources.environment, record, sources.recorded, running)


def existing_cluster(sources: AddressSources) -> ExistingCluster | None:
    """The cluster that `ray.init` would connect to. None where it would start one, or find none for `auto`."""
    wanted = sources.wanted
    if wanted == "local":
        return None
    if wanted not in (None, "auto"):
        return ExistingCluster(wanted, sources.name_of_wanted)
    if wanted == "auto" and sources.running and (len(sources.running) == 1 or sources.recorded is None):
        return ExistingCluster(min(sources.running), f"{sources.name_of_wanted}, a Ray on this machine")
    if sources.recorded is None:
        return None
    return ExistingCluster(sources.recorded, f"{sources.record}, which `ray start` has written")


def split_address(address: str) -> tuple[str, int] | None:
    """Host and port of "host:port", "[IPv6]:port" or "ray://host:port"; None where it is something else."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        return None
    if not host.strip("[]") or (":" in host and not bracketed):
        return None
    return host.strip("[]"), int(port)


def _as_ray_calls(host: str) -> str:
    """The host that `ray.init` connects to: the address of this machine in its network instead of 127.0.0.1."""
    import_ray()
    from ray._private.services import resolve_ip_for_localhost

    return str(resolve_ip_for_localhost(host))


def answers(host: str, port: int, timeout_s: float = CONNECT_TIMEOUT_S) -> str | None:
    """Connect to a TCP port. Returns None where something accepts the connection, else the error."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return None
    except OSError as error:
        return str(error)


def cluster_problems(config: DictConfig, sources: AddressSources) -> Iterator[str]:
    """A message where the run would connect to a cluster that is not there, or that cannot carry it."""
    cluster = existing_cluster(sources)
    if cluster is None:
        if sources.wanted == "auto":
            yield (
                f"{sources.name_of_wanted}: no Ray runs on this machine, and there is no {sources.record}. Try: "
                f"{sources.remedy}, so that the run starts its own Ray, or {start_command(config)}"
            )
        return
    target = split_address(cluster.address)
    if target is None:
        yield (
            f"{cluster.origin}: {cluster.address!r} is not an address of the form host:port. Try: {sources.remedy}, "
            "so that the run starts its own Ray"
        )
        return
    host, port = target
    if not cluster.is_client:
        host = _as_ray_calls(host)
    error = answers(host, port)
    nodes: list[ClusterNode] | None = None
    if error is None and not cluster.is_client:
        try:
            nodes = read_nodes(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        except NoRayThere as failure:
            error = str(failure)
    if error is not None:
        option = f"--ray-client-server-port={port}" if cluster.is_client else f"--port={port}"
        yield (
            f"{cluster.origin}: no Ray cluster answers at {cluster.address} ({error}). Try: {sources.remedy}, so that "
            f"the run starts its own Ray, or on {host}: {start_command(config)} {option}"
        )
    elif nodes is not None:
        yield from size_problems(config, cluster.address, nodes, raylets_here(), sources.remedy)


def fit_to_cluster(config: DictConfig, sources: AddressSources | None = None) -> str | None:
    """Where the run will connect to a running cluster, set the arguments to null that are for a new one only.

    `ray.init` ends with a ValueError if it gets them. Changes `config` in place.

    Args:
        sources: None: they are read.

    Returns:
        A line for the user that names the cluster; None where the run starts its own Ray.
    """
    cluster = existing_cluster(read_address_sources(config) if sources is None else sources)
    if cluster is None:
        return None
    arguments = config.ray_kwargs.ray_init
    unused = {name: arguments[name] for name in FOR_A_NEW_CLUSTER if arguments.get(name) is not None}
    with open_dict(arguments):
        for name in unused:
            arguments[name] = None
    line = f"Ray: the run uses the cluster at {cluster.address} ({cluster.origin})"
    if unused:
        names = " ".join(f"ray_kwargs.ray_init.{name}={value}" for name, value in unused.items())
        line += f"; not used, because they are for a Ray that the run starts itself: {names}"
    return line
