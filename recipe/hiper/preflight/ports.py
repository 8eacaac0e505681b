# SPDX-License-Identifier: Apache-2.0
"""Ports that the configuration or the environment fixes. All others are chosen among the free ones.

verl and vLLM bind port 0 and read what they got. A Ray that the run starts does likewise, and its dashboard looks for a
free port from 8265 upwards unless one is chosen.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

from omegaconf import DictConfig

FEWEST_FREE_PORTS = 100
"""Each of Ray's processes listens on several ports, and so do vLLM and the process group of torch."""

PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def fixed_ports(config: DictConfig, environment: Mapping[str, str]) -> dict[str, int]:
    """Ports that a Ray which the run starts must have, by what chose them."""
    arguments = config.ray_kwargs.ray_init
    ports = {}
    dashboard = arguments.get("dashboard_port")
    if dashboard and arguments.get("include_dashboard"):  # Ray only logs the error where it is null
        ports[f"ray_kwargs.ray_init.dashboard_port={dashboard}"] = int(dashboard)
    head = environment.get("RAY_GCS_SERVER_PORT", "")
    if head.isdigit() and int(head):
        ports[f"RAY_GCS_SERVER_PORT={head} in the environment"] = int(head)
    return ports


def is_free(port: int) -> bool:
    """Whether this process may listen on a TCP port of all interfaces."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Ray binds it
        try:
            listener.bind(("", port))
        except (OSError, OverflowError):
            return False
    return True


def free_port_range(file: Path = PORT_RANGE) -> tuple[int, int] | None:
    """First and last port that Linux gives to programs that ask for any; None where it does not say."""
    try:
        first, last = map(int, file.read_text("utf-8").split())
    except (OSError, ValueError):
        return None
    return first, last


def port_problems(fixed: Mapping[str, int], given_out: tuple[int, int] | None) -> Iterator[str]:
    """A message for each fixed port that is taken, and where Linux has too few ports to give out."""
    for origin, port in fixed.items():
        if not is_free(port):
            setting = origin.partition("=")[0]
            remedy = f"{setting}=null" if setting.startswith("ray_kwargs") else f"unset {setting}"
            yield f"{origin}: this process cannot listen on port {port}, or another program does. Try: {remedy}"
    if given_out is not None and given_out[1] - given_out[0] + 1 < FEWEST_FREE_PORTS:
        first, last = given_out
        yield (
            f"net.ipv4.ip_local_port_range={first} {last}: Linux gives out {max(0, last - first + 1)} ports only, and "
            f"the processes of a run need {FEWEST_FREE_PORTS} or more. Try: sudo sysctl "
            "net.ipv4.ip_local_port_range='32768 60999'"
        )
