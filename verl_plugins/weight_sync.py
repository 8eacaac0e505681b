# SPDX-License-Identifier: Apache-2.0
"""A weight sync that ends instead of hanging, over sockets that no other run of the machine uses. Registers nothing."""

from __future__ import annotations

import contextlib
import os

import zmq
from verl.single_controller.base.decorator import Dispatch, register

from verl_plugins.run_id import own_socket, run_id

SYNC_TIMEOUT_ENV = "VERL_WEIGHT_SYNC_TIMEOUT_S"
DEFAULT_SYNC_TIMEOUT_S = 300.0


def sync_timeout_s() -> float:
    """Seconds one message of the weight sync may take (`VERL_WEIGHT_SYNC_TIMEOUT_S`, 300 by default)."""
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


class WeightSyncMixin:
    """Put before verl's `ActorRolloutRefWorker`, which sends the weights."""

    @register(dispatch_mode=Dispatch.ONE_TO_ALL, blocking=False)
    async def update_weights(self, global_steps: int | None = None, mode: str = "auto"):
        """See `ActorRolloutRefWorker.update_weights`; raises TimeoutError instead of waiting forever."""
        self.rollout.zmq_handle = own_socket(self.rollout.zmq_handle)  # type: ignore[attr-defined]
        with socket_timeout(sync_timeout_s()):
            return await super().update_weights(global_steps=global_steps, mode=mode)  # type: ignore[misc]


class OwnSocketMixin:
    """Put before verl's `vLLMHttpServer`, whose engine receives the weights."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        os.environ["VERL_RAY_JOB_ID"] = run_id()  # read by the engine's process; see `own_socket`
