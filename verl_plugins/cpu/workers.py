# SPDX-License-Identifier: Apache-2.0
"""verl's training workers on CPU: a gloo process group, and a weight sync that ends instead of hanging."""

from __future__ import annotations

import contextlib
import os

import zmq
from verl.single_controller.base.decorator import Dispatch, register
from verl.utils.distributed import initialize_global_process_group_ray
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker

import verl_plugins.cpu.engines  # noqa: F401  (registers the CPU engines in the worker's process)
from verl_plugins.cpu.run_id import own_socket

SYNC_TIMEOUT_ENV = "VERL_CPU_WEIGHT_SYNC_TIMEOUT_S"
DEFAULT_SYNC_TIMEOUT_S = 300.0


def sync_timeout_s() -> float:
    """Seconds one message of the weight sync may take (`VERL_CPU_WEIGHT_SYNC_TIMEOUT_S`, 300 by default)."""
    return float(os.environ.get(SYNC_TIMEOUT_ENV, DEFAULT_SYNC_TIMEOUT_S))


@contextlib.contextmanager
def socket_timeout(seconds: float):
    """Give every ZMQ socket that is created inside this block a time limit.

    verl's sender waits for the rollout process without one, so a vLLM worker that died would leave the trainer
    waiting forever. The limit is set as a default of the process-wide context, which is the one verl uses.
    """
    context: zmq.Context = zmq.Context.instance()
    before = {}
    for option in (zmq.RCVTIMEO, zmq.SNDTIMEO):
        before[option] = context.sockopts.get(option, -1)
        context.setsockopt(option, int(seconds * 1000))
    try:
        yield
    except zmq.Again as error:
        raise TimeoutError(
            f"The rollout process did not take the new weights within {seconds:.0f} s. If it died, its own error is in "
            f"the log of the vLLM server. On a very slow machine, try: {SYNC_TIMEOUT_ENV}=<seconds>"
        ) from error
    finally:
        for option, value in before.items():
            context.setsockopt(option, value)


class CPUProcessGroupMixin:
    """Initialise the process group with plain gloo before verl does.

    verl would request the backend "cpu:gloo,cpu:gloo" (host and device being the same), which torch refuses.
    """

    def __init__(self, *args, **kwargs):
        initialize_global_process_group_ray(backend="gloo")
        super().__init__(*args, **kwargs)


class CPUTrainingWorker(CPUProcessGroupMixin, TrainingWorker):
    """Critic worker, and the inner worker of policy and reference policy."""


class CPUActorRolloutRefWorker(CPUProcessGroupMixin, ActorRolloutRefWorker):
    """Policy, reference policy and the sender of the weight sync."""

    actor_worker_cls = CPUTrainingWorker
    ref_worker_cls = CPUTrainingWorker

    @register(dispatch_mode=Dispatch.ONE_TO_ALL, blocking=False)
    async def update_weights(self, global_steps: int | None = None, mode: str = "auto"):
        """See `ActorRolloutRefWorker.update_weights`; raises TimeoutError instead of waiting forever."""
        self.rollout.zmq_handle = own_socket(self.rollout.zmq_handle)
        with socket_timeout(sync_timeout_s()):
            return await super().update_weights(global_steps=global_steps, mode=mode)
