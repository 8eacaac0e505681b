# SPDX-License-Identifier: Apache-2.0
"""Training workers whose random numbers come from the configured seed. Registers nothing."""

from __future__ import annotations

import random

import numpy as np
import torch
from verl.workers.engine_workers import TrainingWorker


def seed_process(seed: int) -> None:
    """Seed the global generators of this process (Python, NumPy, PyTorch): libraries draw from them."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class SeededMixin:
    """Seed the worker's process with `engine_config.seed` before the model is made.

    verl reads that seed only with `full_determinism`. Without one, adapters start from other random numbers in every
    run, and so does dropout.
    """

    def __init__(self, config, *args, **kwargs):
        if config.engine_config is not None:  # None: verl chooses one, with its default seed
            seed_process(config.engine_config.seed)
        super().__init__(config, *args, **kwargs)


class SeededTrainingWorker(SeededMixin, TrainingWorker):
    """The inner worker of policy and reference policy, on any device."""
