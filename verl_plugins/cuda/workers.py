# SPDX-License-Identifier: Apache-2.0
"""verl's workers on NVIDIA GPUs."""

from __future__ import annotations

import ray
from verl.trainer.ppo.utils import Role
from verl.workers.engine_workers import ActorRolloutRefWorker

from verl_plugins.weight_sync import WeightSyncMixin


class CUDAActorRolloutRefWorker(WeightSyncMixin, ActorRolloutRefWorker):
    """Policy, reference policy and the sender of the weight sync."""


def cuda_role_workers(role_worker_mapping: dict) -> dict:
    """verl's role-to-worker mapping with the workers that hold a policy replaced; the critic's is unchanged."""
    return {
        role: worker if role == Role.Critic else ray.remote(CUDAActorRolloutRefWorker)
        for role, worker in role_worker_mapping.items()
    }
