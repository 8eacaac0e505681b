# SPDX-License-Identifier: Apache-2.0
"""Memory and open files that the machine gives to a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from omegaconf import DictConfig

from recipe.hiper.configuration.gpu_memory import MOMENT_BYTES, WEIGHT_BYTES, residents
from recipe.hiper.configuration.host_memory import PROCESS_BYTES, resident_bytes
from recipe.hiper.configuration.model_sizes import ModelSize

CERTAIN_SHARE = 0.75
"""Of the estimate. A run that needs a little less than estimated may fit, and is not refused: `host_memory` computes
what a micro-batch may have, and offers to try it all the same."""

FEWEST_OPEN_FILES = 4096
"""`ray.init` raises the soft limit of its processes to the hard one, and below this number it expects connection errors
(`ray/_private/worker.py`)."""


def host_bytes(config: DictConfig, sizes: Mapping[str, ModelSize]) -> int:
    """Estimated memory of this machine that a run holds, without activations: on GPUs, the processes and what is
    offloaded.
    """
    if config.trainer.device == "cpu":
        return resident_bytes(config, sizes)
    offloaded = sum(
        (0 if model.holds_weights else WEIGHT_BYTES * model.size.saved)
        + (0 if model.holds_moments else MOMENT_BYTES * model.size.trained)
        for model in residents(config, sizes)
    )
    return int(PROCESS_BYTES + offloaded / config.trainer.nnodes)


def memory_problems(config: DictConfig, sizes: Mapping[str, ModelSize] | None, free: int) -> Iterator[str]:
    """A message where the memory is certainly too small.

    Args:
        sizes: of the models; None: not known yet.
        free: see `host_memory.free_bytes`, which knows the limits of containers.
    """
    if sizes is None:
        return
    needed = host_bytes(config, sizes)
    if free < CERTAIN_SHARE * needed:
        remedy = "end other programs, a container with more memory (docker run --memory)"
        if not config.actor_rollout_ref.model.lora_rank:
            remedy += ", or actor_rollout_ref.model.lora_rank=32"
        yield (
            f"{free / 1e9:.1f} GB of memory are free, but the run holds about {needed / 1e9:.1f} GB beside its "
            f"activations, and Ray would end one of its processes. Try: {remedy}"
        )


def open_file_problems(hard_limit: int) -> Iterator[str]:
    """A message where the hard limit of open files is too low for Ray.

    Args:
        hard_limit: RLIMIT_NOFILE; -1: none.
    """
    if 0 <= hard_limit < FEWEST_OPEN_FILES:
        yield (
            f"a process may open {hard_limit} files at most (ulimit -Hn), and the connections of Ray's processes need "
            f"{FEWEST_OPEN_FILES}. Try: ulimit -n 65536 as root, or docker run --ulimit nofile=65536:65536"
        )
