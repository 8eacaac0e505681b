# SPDX-License-Identifier: Apache-2.0
"""Room for what a run writes: checkpoints in its folder, generated tasks and models in the cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from omegaconf import DictConfig

from agent_system.errors import ConfigError
from recipe.hiper.configuration.model import SMOLLM2, has_cold_start
from recipe.hiper.configuration.model_sizes import SMOLLM2_PARAMETERS, ModelSize, require_disk_for_cold_start
from recipe.hiper.preflight.folders import FolderState, write_problems
from recipe.hiper.preflight.sizes import checkpoint_size
from recipe.hiper.run_dir.checkpoints import complete_steps

RUN_FILES = 1_000
"""Files of a run of the default length: episodes, logs, checkpoints."""

CACHE_FILES = 5_000
"""Files of the generated games and of the small model (3,544 were counted)."""

OTHER_BYTES = 200_000_000
"""Of the generated games (100 MB were measured) and the small model, or of the metrics and episodes of a run."""

CACHE_REMEDY = "export HIPER_CACHE=<folder on another disk>"


def checkpoints_to_write(config: DictConfig) -> int:
    """Checkpoints of this run that will be on the disk at a time, beside those that are there already.

    One more than `max_actor_ckpt_to_keep` for a moment: the oldest is deleted when the next is complete.
    """
    trainer = config.trainer
    if trainer.save_freq <= 0 or trainer.val_only:
        return 0
    steps = complete_steps(Path(trainer.default_local_dir)) if trainer.resume_mode == "auto" else []
    done, last = (steps[-1] if steps else 0), trainer.total_training_steps
    planned = max(0, last // trainer.save_freq - done // trainer.save_freq)
    if last % trainer.save_freq and done < last:
        planned += 1  # the last step is saved in any case
    kept = trainer.max_actor_ckpt_to_keep
    if not kept:
        return planned
    return min(planned, max(0, kept + trainer.save_best + 1 - len(steps)))


def checkpoint_problems(config: DictConfig, sizes: Mapping[str, ModelSize] | None, disk: FolderState) -> Iterator[str]:
    """A message where the checkpoints of a run do not fit.

    Args:
        sizes: of the models; None: not known yet.
        disk: of `trainer.default_local_dir`.
    """
    number = checkpoints_to_write(config)
    if sizes is None or not number:
        return
    size = checkpoint_size(sizes)
    if disk.free < number * size:
        fewer = "trainer.max_actor_ckpt_to_keep=1"
        yield (
            f"{number} checkpoints of about {size / 1e6:,.0f} MB will be on the disk at a time "
            f"(trainer.max_actor_ckpt_to_keep={config.trainer.max_actor_ckpt_to_keep}), but {disk.nearest} has "
            f"{disk.free / 1e6:,.0f} MB free. Try: run_dir=<folder on another disk>"
            + (f", or {fewer}" if number > 2 else ", or trainer.save_freq=-1 for a run without checkpoints")
        )


def file_problems(disk: FolderState, files: int, room: int, name: str, remedy: str) -> Iterator[str]:
    """A message for each reason why a number of files cannot be created in a folder.

    Args:
        room: bytes of them.
        name: what the folder is for.
        remedy: what to type.
    """
    yield from write_problems(disk, name, remedy)
    if disk.free < room:
        yield (
            f"{name}: {disk.nearest} has {disk.free / 1e6:,.0f} MB free, and about {room / 1e6:,.0f} MB are needed. "
            f"Try: {remedy}"
        )
    if disk.free_files is not None and disk.free_files < files:
        yield (
            f"{name}: the file system of {disk.nearest} takes {disk.free_files:,} more files (df -i), and about "
            f"{files:,} are needed. Try: {remedy}"
        )


def cold_start_problems(config: DictConfig, cache: Path) -> Iterator[str]:
    """A message where the fine-tuning of SmolLM2 does not fit into the cache. Other models are counted when they are
    read.
    """
    models, base = cache / "models", config.warm_start.base
    if config.actor_rollout_ref.model.path is not None or base != SMOLLM2 or has_cold_start(models, base):
        return
    try:
        require_disk_for_cold_start(base, SMOLLM2_PARAMETERS, models)
    except ConfigError as error:
        yield str(error)
