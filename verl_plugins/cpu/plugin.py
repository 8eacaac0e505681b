# SPDX-License-Identifier: Apache-2.0
"""What verl loads through its `verl.plugins` entry point, in every process that imports verl. Keep it light."""

from __future__ import annotations

import os
from importlib.metadata import entry_points

from verl.plugin.platform import get_platform

import verl_plugins.cpu.platform  # noqa: F401  (registers the platform)


def _is_selected() -> bool:
    return os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu"


def _load_replica():
    from verl_plugins.cpu.replica import CPUvLLMReplica

    return CPUvLLMReplica


if _is_selected():
    from verl.workers.rollout.replica import RolloutReplicaRegistry

    RolloutReplicaRegistry.register("vllm", _load_replica)


def require_plugin() -> None:
    """Check that this process, and every process it starts, runs verl on the CPU platform with the CPU replica.

    In this process the import of this module is enough. Ray's processes load it only through verl's entry point, so
    the conditions under which verl does that are checked as well.

    Raises:
        RuntimeError: verl does not load the entry point (which it logs at DEBUG level only), or has another platform.
    """
    from verl.workers.rollout.replica import RolloutReplicaRegistry

    if get_platform().device_name != "cpu":
        raise RuntimeError(
            f"verl runs on the platform {get_platform().device_name!r}, not on cpu. Try: VERL_PLATFORM=cpu, set "
            "before the first import of verl"
        )
    names = {point.name for point in entry_points(group="verl.plugins") if point.value == __name__}
    policy = os.environ.get("VERL_USE_EXTERNAL_PLUGINS", "auto").strip().lower()
    allowed = names if policy == "auto" else names & {name.strip() for name in policy.split(",")}
    if not allowed or RolloutReplicaRegistry._registry.get("vllm") is not _load_replica:
        raise RuntimeError(
            "verl does not load the CPU plugin (entry point group 'verl.plugins', name 'cpu'). Try: install this "
            "repository into the active environment (pip install --no-deps --no-build-isolation -e .), unset "
            f"VERL_USE_EXTERNAL_PLUGINS (it is {policy!r}), and set VERL_PLATFORM=cpu before the first import of verl."
        )
