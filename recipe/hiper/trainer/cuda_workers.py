# SPDX-License-Identifier: Apache-2.0
"""The workers of a run on GPUs."""

from __future__ import annotations

from typing import Any

import ray
from verl.trainer.ppo.utils import Role

from recipe.hiper.trainer.critic import MultiHeadCriticWorker
from verl_plugins.cuda.replica import register_replica
from verl_plugins.cuda.workers import cuda_role_workers


def role_workers(role_worker_mapping: dict[Role, Any]) -> dict[Role, Any]:
    """verl's role-to-worker mapping with our workers for GPUs, and the critic's. verl then starts our vLLM servers."""
    register_replica()
    return cuda_role_workers(role_worker_mapping) | {Role.Critic: ray.remote(MultiHeadCriticWorker)}
