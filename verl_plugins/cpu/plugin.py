# SPDX-License-Identifier: Apache-2.0
"""What verl loads through its `verl.plugins` entry point, in every process that imports verl. Keep it light."""

from __future__ import annotations

import os

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
    """Check that this process runs verl on the CPU platform with the CPU replica in place.

    Raises:
        RuntimeError: the entry point was not loaded (package not installed, or its import failed: verl only logs
            that at DEBUG level), or another platform is active.
    """
    from verl.workers.rollout.replica import RolloutReplicaRegistry

    if get_platform().device_name != "cpu":
        raise RuntimeError(
            f"verl runs on the platform {get_platform().device_name!r}, not on cpu. Set VERL_PLATFORM=cpu before the "
            "first import of verl, or use profile=gpu."
        )
    if RolloutReplicaRegistry._registry.get("vllm") is not _load_replica:
        raise RuntimeError(
            "verl did not load the CPU plugin (entry point group 'verl.plugins', name 'cpu'). Install this repository "
            "into the active environment (pip install --no-deps --no-build-isolation -e .), do not set "
            "VERL_USE_EXTERNAL_PLUGINS=none, and set VERL_PLATFORM=cpu before the first import of verl."
        )
