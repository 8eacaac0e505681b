# SPDX-License-Identifier: Apache-2.0
"""verl's `main_ppo` on CPU: `VERL_PLATFORM=cpu python -m verl_plugins.cpu.main_ppo <verl overrides>`.

Same configuration tree, same overrides, same trainer; a handful of values that only make sense on CPU are set where
the user left verl's default (`CPU_DEFAULTS`).
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("VERL_PLATFORM", "cpu")

import hydra
import ray
from omegaconf import DictConfig
from verl.trainer.main_ppo import TaskRunnerV1, run_ppo
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import validate_config

from verl_plugins.cpu.environment import CPU_ENVIRONMENT
from verl_plugins.cpu.plugin import require_plugin

PROCESS_ENVIRONMENT = {**CPU_ENVIRONMENT, "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}
"""What every Ray process needs; a value that is already set wins."""

CPU_DEFAULTS = {
    "trainer.device": "cpu",
    "trainer.n_gpus_per_node": "1",
    "trainer.v1.trainer_mode": "cpu_sync",
    "+ray_kwargs.ray_init.num_gpus": "${trainer.n_gpus_per_node}",
    "ray_kwargs.ray_init.num_cpus": "16",
    "actor_rollout_ref.actor.strategy": "fsdp2",
    "actor_rollout_ref.ref.strategy": "fsdp2",
    "critic.strategy": "fsdp2",
    "actor_rollout_ref.actor.use_torch_compile": "False",
    "actor_rollout_ref.ref.use_torch_compile": "False",
    "+actor_rollout_ref.model.override_config.attn_implementation": "sdpa",
    "+critic.model.override_config.attn_implementation": "sdpa",
    "+actor_rollout_ref.actor.fsdp_config.mixed_precision": "{param_dtype:fp32,reduce_dtype:fp32,buffer_dtype:fp32}",
    "+actor_rollout_ref.ref.fsdp_config.mixed_precision": "{param_dtype:fp32,reduce_dtype:fp32,buffer_dtype:fp32}",
    "+critic.fsdp.mixed_precision": "{param_dtype:fp32,reduce_dtype:fp32,buffer_dtype:fp32}",
    "actor_rollout_ref.rollout.dtype": "float32",
    "actor_rollout_ref.rollout.enforce_eager": "True",
    "actor_rollout_ref.rollout.free_cache_engine": "False",
    "+actor_rollout_ref.rollout.enable_sleep_mode": "False",
    "actor_rollout_ref.rollout.tensor_model_parallel_size": "1",
    "actor_rollout_ref.rollout.agent.num_workers": "1",
    "reward.num_workers": "1",
}
"""Overrides put before the user's, as `main_ppo` would receive them on its command line."""


@ray.remote
class CPUTaskRunner(TaskRunnerV1.__ray_metadata__.modified_class):
    """verl's task runner in a process that knows the CPU trainer."""

    def run(self, config: DictConfig) -> None:
        import verl_plugins.cpu.trainer  # noqa: F401  (registers cpu_sync in this process)

        require_plugin()
        super().run(config)


@hydra.main(config_path="pkg://verl.trainer.config", config_name="ppo_trainer", version_base=None)
def main(config: DictConfig) -> None:
    require_plugin()
    validate_config(config=config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    run_ppo(config, task_runner_class=CPUTaskRunner)


if __name__ == "__main__":
    for name, value in PROCESS_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    overridden = {argument.split("=", 1)[0].lstrip("+~") for argument in sys.argv[1:]}
    defaults = [f"{key}={value}" for key, value in CPU_DEFAULTS.items() if key.lstrip("+") not in overridden]
    sys.argv[1:1] = defaults
    main()
