# SPDX-License-Identifier: Apache-2.0
"""verl's synchronous V1 trainer on CPU workers."""

from __future__ import annotations

from typing import Any

import ray
from omegaconf import DictConfig, open_dict
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from verl_plugins.cpu.workers import CPUActorRolloutRefWorker, CPUTrainingWorker

POLL_INTERVAL_S = 0.05


def cpu_role_workers(role_worker_mapping: dict) -> dict:
    """verl's role-to-worker mapping with every worker class replaced by its CPU counterpart."""
    return {
        role: ray.remote(CPUTrainingWorker if role == Role.Critic else CPUActorRolloutRefWorker)
        for role in role_worker_mapping
    }


@register_trainer("cpu_sync")
class CPUPPOTrainerSync(PPOTrainerSync):
    """Plain verl PPO on CPU; select it with `trainer.v1.trainer_mode=cpu_sync`."""

    def __init__(self, config: DictConfig):
        with open_dict(config):
            config.trainer.v1.trainer_mode = "sync"  # the base class branches on this literal, not on its own type
        super().__init__(config)

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        self.role_worker_mapping: dict[Role, Any] = cpu_role_workers(self.role_worker_mapping)

    def _build_replay_buffer(self):
        # verl polls every 2 s, which is as long as a whole CPU step; its constructor default has no config key.
        replay_buffer = super()._build_replay_buffer()
        replay_buffer.poll_interval = POLL_INTERVAL_S
        return replay_buffer
