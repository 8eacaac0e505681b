# SPDX-License-Identifier: Apache-2.0
"""Room in /dev/shm. Docker gives a container 64 MB of it unless told otherwise.

Ray needs none: an object store that does not fit moves to Ray's temporary folder with a warning. verl's weight sync
between CPU processes and NCCL do: a write beyond the end of /dev/shm kills the process with SIGBUS.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from recipe.hiper.configuration.model_sizes import BUCKET, BUCKET_STEP, ELEMENT_BYTES, ModelSize

SHARED_MEMORY = Path("/dev/shm")

STORE = "ray_kwargs.ray_init.object_store_memory"

LARGEST_STORE_ELSEWHERE = 10**10
"""Ray refuses to keep a larger object store outside /dev/shm (`ray_constants.REQUIRE_SHM_SIZE_THRESHOLD`)."""

NCCL_BYTES = 10**9
"""Of /dev/shm for the processes of several GPUs; what NVIDIA's manual of NCCL recommends for a container."""

REMEDY = "docker run --shm-size=8g, or as root: mount -o remount,size=8g /dev/shm"


def free_shared_memory(folder: Path = SHARED_MEMORY) -> int:
    """Bytes that are free in /dev/shm; 0 where there is none."""
    try:
        disk = os.statvfs(folder)
    except FileNotFoundError:
        return 0
    return disk.f_bavail * disk.f_frsize


def weight_sync_bytes(config: DictConfig, size: ModelSize) -> int:
    """Bytes that verl's weight sync writes to /dev/shm on a CPU machine: a bucket for each training process.

    Pages of a bucket that no weight reaches are never taken, so that a small model needs less than its bucket.
    """
    element = ELEMENT_BYTES[config.actor_rollout_ref.actor.fsdp_config.model_dtype]
    bucket = OmegaConf.select(config, BUCKET)
    if bucket is None:  # as `fill_in_bucket` computes it
        bucket = -(-size.largest * element // (BUCKET_STEP << 20)) * BUCKET_STEP
    used: int = min(bucket << 20, size.saved * element) * config.trainer.n_gpus_per_node
    return used


def shared_memory_problems(
    config: DictConfig,
    free: int,
    sizes: Mapping[str, ModelSize] | None,
    starts_ray: bool,
    environment: Mapping[str, str],
) -> Iterator[str]:
    """A message for each use of /dev/shm that would end the run.

    Args:
        free: bytes of /dev/shm.
        sizes: of the models; None: not known yet.
        starts_ray: whether the run starts its own Ray.
    """
    trainer = config.trainer
    if trainer.device == "cpu" and sizes is not None:
        needed = weight_sync_bytes(config, sizes["actor"])
        if free < needed:
            yield (
                f"/dev/shm has {free / 1e6:,.0f} MB free, but the weight sync writes {needed / 1e6:,.0f} MB there "
                f"(trainer.n_gpus_per_node={trainer.n_gpus_per_node} buckets of {BUCKET}), and its process would be "
                f"killed. Try: {REMEDY}"
            )
    elif trainer.device == "cuda" and trainer.n_gpus_per_node * trainer.nnodes > 1 and free < NCCL_BYTES:
        yield (
            f"/dev/shm has {free / 1e6:,.0f} MB free, but NCCL needs about {NCCL_BYTES / 1e6:,.0f} MB there for "
            f"trainer.n_gpus_per_node={trainer.n_gpus_per_node} processes. Try: {REMEDY}"
        )
    store = OmegaConf.select(config, STORE)
    slow = environment.get("RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE")
    if starts_ray and store is not None and store > max(free, LARGEST_STORE_ELSEWHERE) and not slow:
        yield (
            f"{STORE}={store} is more than the {free / 1e6:,.0f} MB free in /dev/shm, and Ray keeps no object store of "
            f"that size elsewhere. Try: {STORE}=null, or {REMEDY}"
        )
