# SPDX-License-Identifier: Apache-2.0
"""The workers of a run on CPU. Importing this module registers CPU engines, so a GPU run does not import it."""

from __future__ import annotations

from typing import Any

import ray
from verl.trainer.ppo.utils import Role
from verl.workers.engine.base import EngineRegistry

from recipe.hiper.trainer.critic import MODEL_TYPE, MultiHeadCriticWorker, MultiHeadValueEngine
from verl_plugins.cpu.engines import CPUEngineMixin
from verl_plugins.cpu.trainer import cpu_role_workers
from verl_plugins.cpu.workers import CPUProcessGroupMixin


@EngineRegistry.register(model_type=MODEL_TYPE, backend=["fsdp", "fsdp2"], device="cpu")
class CPUMultiHeadValueEngine(CPUEngineMixin, MultiHeadValueEngine):
    """The critic's engine on CPU."""


class CPUMultiHeadCriticWorker(CPUProcessGroupMixin, MultiHeadCriticWorker):
    """The critic's worker on CPU."""


def role_workers(role_worker_mapping: dict[Role, Any]) -> dict[Role, Any]:
    """verl's role-to-worker mapping with our workers for CPUs, and the critic's."""
    return cpu_role_workers(role_worker_mapping) | {Role.Critic: ray.remote(CPUMultiHeadCriticWorker)}
