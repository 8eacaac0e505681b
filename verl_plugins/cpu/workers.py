# SPDX-License-Identifier: Apache-2.0
"""verl's training workers on CPU: a gloo process group, and a weight sync that ends instead of hanging."""

from __future__ import annotations

from verl.utils.distributed import initialize_global_process_group_ray
from verl.workers.engine_workers import ActorRolloutRefWorker

import verl_plugins.cpu.engines  # noqa: F401  (registers the CPU engines in the worker's process)
from verl_plugins.seeding import SeededTrainingWorker
from verl_plugins.weight_sync import WeightSyncMixin


class CPUProcessGroupMixin:
    """Initialise the process group with plain gloo before verl does.

    verl would request the backend "cpu:gloo,cpu:gloo" (host and device being the same), which torch refuses.
    """

    def __init__(self, *args, **kwargs):
        initialize_global_process_group_ray(backend="gloo")
        super().__init__(*args, **kwargs)


class CPUTrainingWorker(CPUProcessGroupMixin, SeededTrainingWorker):
    """Critic worker, and the inner worker of policy and reference policy."""


class CPUActorRolloutRefWorker(WeightSyncMixin, CPUProcessGroupMixin, ActorRolloutRefWorker):
    """Policy, reference policy and the sender of the weight sync."""

    actor_worker_cls = CPUTrainingWorker
    ref_worker_cls = CPUTrainingWorker
