# SPDX-License-Identifier: Apache-2.0
"""For `cpu_run.py --compare-speedups`: a Ray worker hook that takes back what `tensors_only` of the trainer saves.

Ray calls `install` in every worker process. Most of them never import the trainer, and none should have to on this
account, so the change is made when the module is imported.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys

TRAINER = "recipe.hiper.trainer.ppo_trainer"


class _WhenImported(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != TRAINER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module

        def run_and_change(module) -> None:
            run(module)
            module.tensors_only = lambda batch: batch

        spec.loader.exec_module = run_and_change
        return spec


def install() -> None:
    """Let workers fetch all columns of a batch, Python objects included."""
    sys.meta_path.insert(0, _WhenImported())
