# SPDX-License-Identifier: Apache-2.0
"""The Ray side of a run: the process that holds the trainer, the environment workers and the agent loops."""

from __future__ import annotations

import random
from typing import Any, cast

import numpy as np
import ray
import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from verl.trainer.main_ppo import run_ppo
from verl.trainer.ppo.utils import need_reference_policy
from verl.utils.config import validate_config

from agent_system.errors import HiPERError
from recipe.hiper.configuration.hardware import CPUS_PER_GPU
from recipe.hiper.configuration.settings import HiPERSettings, episodes_at_once, verl_config
from recipe.hiper.trainer.policy_distance import require_valid_correction
from verl_plugins.cpu.plugin import require_plugin


def seed_process(seed: int) -> None:
    """Seed the global generators of this process: data loaders and libraries draw from them."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@ray.remote(num_cpus=1)
class HiPERTaskRunner:
    """Runs one training in a separate process, as verl's TaskRunner does."""

    def run(self, config: DictConfig) -> None:
        """Start everything, train, and stop everything again, also after an error. `config` is `_with_job`'s."""
        from verl.trainer.ppo.v1 import AgentLoopManagerTQ
        from verl.utils.logging_utils import configure_verl_logging

        from agent_system.environments.pool import PoolConfig, start_pool
        from recipe.hiper.run_dir.recorder import RunRecorder
        from recipe.hiper.trainer.ppo_trainer import HiPERTrainer
        from recipe.hiper.trainer.transfer import connect, disconnect

        configure_verl_logging()
        seed_process(config.env.seed)
        if config.trainer.device == "cpu":
            require_plugin()
        with open_dict(config):
            job = config.pop("hiper_job")
        settings = HiPERSettings.from_config(job.config)
        recorder = RunRecorder(**job.recorder)
        config.transfer_queue.enable = True
        env = config.env
        episodes = episodes_at_once(config)
        connect(config.transfer_queue)
        trainer = pool = None
        succeeded = False
        try:
            pool = start_pool(
                PoolConfig(
                    episodes_in_flight=episodes,
                    num_workers=env.pool.num_workers,
                    envs_per_worker=env.pool.envs_per_worker,
                    num_cpus_per_worker=env.resources_per_worker.num_cpus,
                    timeout_s=env.pool.timeout_s,
                    env_kwargs=cast("dict[str, Any]", OmegaConf.to_container(env.kwargs)),
                    reserved_cpus=CPUS_PER_GPU * config.trainer.n_gpus_per_node * config.trainer.nnodes,
                ),
                env.pool_name,
            )
            trainer = HiPERTrainer(config, settings, recorder)
            trainer.init()
            manager = AgentLoopManagerTQ.create(
                config=trainer.config,
                llm_client=trainer.get_llm_client(),
                teacher_client=trainer.get_teacher_client(),
                reward_loop_worker_handles=trainer.get_reward_handles(),
            )
            trainer.fit(manager)
            succeeded = True
        finally:
            exit_code = 0 if succeeded else 1
            recorder.finish(exit_code)  # verl's Tracking finishes only the backends it knows by name
            tracking = getattr(trainer, "_tracking", None)
            if tracking is not None:
                tracking.finish(exit_code=exit_code)
            if pool is not None:
                pool.close()
            disconnect()


def _with_job(config: DictConfig, recorder: dict) -> DictConfig:
    """verl's configuration, with an additional section for what our runner needs besides."""
    checked = verl_config(config)
    with open_dict(checked):
        checked.hiper_job = {"config": config, "recorder": recorder}
    return checked


def run(config: DictConfig, recorder: dict) -> None:
    """Start Ray and train.

    Args:
        config: checked and prepared.
        recorder: arguments of `RunRecorder`.

    Raises:
        ConfigError: verl refuses the settings of the rollout correction.
        HiPERError: raised inside the run; unwrapped from Ray's exception.
    """
    if config.trainer.device == "cpu":
        require_plugin()
    require_valid_correction(config)
    checked = _with_job(config, recorder)
    has_reference = need_reference_policy(checked)
    validate_config(config=checked, use_reference_policy=has_reference, use_critic=checked.critic.enable)
    try:
        run_ppo(checked, task_runner_class=HiPERTaskRunner)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, HiPERError):
            raise error.cause from None
        raise
    finally:
        ray.shutdown()
