# SPDX-License-Identifier: Apache-2.0
"""The Ray side of a run: the process that holds the trainer, the environment workers and the agent loops."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any, cast

import ray
from omegaconf import DictConfig, OmegaConf, open_dict
from verl.trainer.main_ppo import run_ppo
from verl.trainer.ppo.utils import need_reference_policy
from verl.utils.config import validate_config

from agent_system.errors import HiPERError, ProcessDied
from recipe.hiper.configuration.hardware import CPUS_PER_GPU
from recipe.hiper.configuration.settings import HiPERSettings, episodes_at_once, verl_config
from recipe.hiper.run_dir.recorder import can_stop
from recipe.hiper.run_dir.stop_request import StopRequested, stopping_on_sigterm
from recipe.hiper.trainer.policy_distance import require_valid_correction
from recipe.hiper.trainer.process_death import Cluster, explain_death
from verl_plugins.cpu.plugin import require_plugin


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
        from verl_plugins.seeding import seed_process

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
        outcome = "failed"
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
            outcome = "finished"
        except StopRequested:
            outcome = "stopped"
            raise
        finally:
            exit_code = 1 if outcome == "failed" else 0
            recorder.finish(outcome)  # verl's Tracking finishes only the backends it knows by name
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


class _Start:
    """`HiPERTaskRunner` as verl's `run_ppo` starts it; a context is entered just before.

    At that moment Ray has started, and has set a handler for SIGTERM that the context replaces.
    """

    def __init__(self, context: AbstractContextManager[None], stack: ExitStack):
        self._context = context
        self._stack = stack
        self._cluster: Cluster | None = None

    def explain_loss(self) -> ProcessDied | None:
        """See `Cluster`."""
        return self._cluster.explain_loss() if self._cluster else None

    def _begin(self) -> None:
        self._cluster = Cluster()
        self._stack.enter_context(self._context)

    def options(self, **options: Any) -> Any:
        """`HiPERTaskRunner.options`."""
        self._begin()
        return cast("Any", HiPERTaskRunner).options(**options)

    def remote(self) -> Any:
        """`HiPERTaskRunner.remote`."""
        self._begin()
        return cast("Any", HiPERTaskRunner).remote()


def run(config: DictConfig, recorder: dict, tell: Callable[[str], None]) -> None:
    """Start Ray and train.

    Args:
        config: checked and prepared.
        recorder: arguments of `RunRecorder`.
        tell: shows the user a line.

    Raises:
        ConfigError: verl refuses the settings of the rollout correction.
        ProcessDied: a process or a machine of the run is gone.
        HiPERError: raised inside the run; unwrapped from Ray's exception. After SIGTERM it is `StopRequested`.
        EndAtOnce: SIGTERM where there is nothing to save, or a second one.
    """
    if config.trainer.device == "cpu":
        require_plugin()
    require_valid_correction(config)
    checked = _with_job(config, recorder)
    has_reference = need_reference_policy(checked)
    validate_config(config=checked, use_reference_policy=has_reference, use_critic=checked.critic.enable)
    folder = Path(recorder["folder"])
    try:
        with ExitStack() as stack:
            start = _Start(stopping_on_sigterm(folder, partial(can_stop, folder), tell), stack)
            try:
                run_ppo(checked, start)
            except ray.exceptions.RayError as error:
                # Whatever a lost machine causes first, in whichever process
                if lost := start.explain_loss() or explain_death(error):
                    raise lost from error
                if isinstance(error, ray.exceptions.RayTaskError) and isinstance(error.cause, HiPERError):
                    raise error.cause from None
                raise
    finally:
        ray.shutdown()
