# SPDX-License-Identifier: Apache-2.0
"""Every check of the machine, before Ray is started and before anything is created."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from omegaconf import DictConfig

from recipe.hiper.configuration.host_memory import free_bytes
from recipe.hiper.configuration.model_sizes import ModelSize
from recipe.hiper.preflight.disk import (
    CACHE_FILES,
    CACHE_REMEDY,
    OTHER_BYTES,
    RUN_FILES,
    checkpoint_problems,
    cold_start_problems,
    file_problems,
)
from recipe.hiper.preflight.folders import read_folder
from recipe.hiper.preflight.host import memory_problems, open_file_problems
from recipe.hiper.preflight.ports import fixed_ports, free_port_range, port_problems
from recipe.hiper.preflight.processor import driver_problems, driver_version, processor_problems
from recipe.hiper.preflight.ray_cluster import cluster_problems, existing_cluster, read_address_sources
from recipe.hiper.preflight.ray_folder import ray_folder_problems, read_ray_folder
from recipe.hiper.preflight.shared_memory import free_shared_memory, shared_memory_problems
from recipe.hiper.preflight.sizes import known_sizes
from recipe.hiper.preflight.temporary import clock_problems, temporary_problems
from recipe.hiper.tasks.preparation import cache_folder
from verl_plugins.cpu.processor import processor_flags


def machine_problems(config: DictConfig, sizes: Mapping[str, ModelSize] | None = None) -> list[str]:
    """Check this machine, or the Ray cluster that the run would use. Starts no process of Ray and creates nothing.

    Args:
        config: checked, with `trainer.n_gpus_per_node` filled in (`cli.train.check`).
        sizes: of the models, see `model_sizes.trained_sizes`; None: as far as `known_sizes` knows them.

    Returns:
        A line for each problem: what is wrong with its value, why, and `Try: ...`. Empty where there is none.
    """
    if sizes is None:
        sizes = known_sizes(config)
    return [*_ray_problems(config, sizes), *_disk_problems(config, sizes), *_host_problems(config, sizes)]


def _ray_problems(config: DictConfig, sizes: Mapping[str, ModelSize] | None) -> Iterator[str]:
    sources = read_address_sources(config)
    yield from cluster_problems(config, sources)
    starts_ray = existing_cluster(sources) is None
    if starts_ray:
        yield from ray_folder_problems(read_ray_folder(config, os.environ))
    yield from port_problems(fixed_ports(config, os.environ) if starts_ray else {}, free_port_range())
    yield from shared_memory_problems(config, free_shared_memory(), sizes, starts_ray, os.environ)


def _disk_problems(config: DictConfig, sizes: Mapping[str, ModelSize] | None) -> Iterator[str]:
    checkpoints = read_folder(Path(config.trainer.default_local_dir))
    yield from checkpoint_problems(config, sizes, checkpoints)
    name = f"run_dir={config.run_dir}"
    remedy = "run_dir=<another folder>"
    yield from file_problems(read_folder(Path(config.run_dir)), RUN_FILES, OTHER_BYTES, name, remedy)
    cache = cache_folder()
    yield from file_problems(read_folder(cache), CACHE_FILES, OTHER_BYTES, "the cache (HIPER_CACHE)", CACHE_REMEDY)
    yield from cold_start_problems(config, cache)
    temporary = os.environ.get("TMPDIR")
    yield from temporary_problems(read_folder(Path(temporary)) if temporary else None, read_folder(Path("/tmp")))


def _host_problems(config: DictConfig, sizes: Mapping[str, ModelSize] | None) -> Iterator[str]:
    yield from memory_problems(config, sizes, free_bytes())
    yield from open_file_problems(resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    yield from clock_problems(datetime.now(UTC))
    if config.trainer.device == "cpu":
        yield from processor_problems(processor_flags(), platform.machine())
    elif config.trainer.nnodes == 1:
        import torch  # it reads the environment, which `choose_profile` sets first

        yield from driver_problems(driver_version(), torch.version.cuda, torch.cuda.is_available)
