# SPDX-License-Identifier: Apache-2.0
"""A folder that already holds a run: whether a new start may resume it, and what happens to its files."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
from omegaconf import DictConfig, OmegaConf, open_dict

from agent_system.errors import ConfigError
from agent_system.locks import locked
from recipe.hiper.configuration.keys import ENVIRONMENTS, flat_items, is_in
from recipe.hiper.configuration.section import typed
from recipe.hiper.configuration.settings import number_of_heads
from recipe.hiper.run_dir.checkpoints import POINTER_FILE, move_later_checkpoints, saved_steps, write_pointer
from recipe.hiper.run_dir.recorder import unused_folder
from recipe.hiper.run_dir.resume import (
    belongs_to_run,
    checkpoint_to_resume,
    load_config,
    other_run_dir,
    saves_checkpoints,
    selected_checkpoint,
)
from recipe.hiper.run_dir.trained_weights import weight_differences

RUN_CONFIG_FILE = "run.yaml"
"""File beside the checkpoints: the configuration of the run that they belong to."""

MODEL_KEYS = (
    "env.name",
    "env.env_name",
    "env.prompt_style",
    "env.prompt_layout",
    "env.short_keep",
    "env.system_prompt",
    "data.apply_chat_template_kwargs",
    "actor_rollout_ref.model.path",
    "algorithm.adv_estimator",
    "critic.backbone",
)
"""Weights that were trained with one value are of no use with another; another model is another KL reference."""

NULL_IS_A_VALUE = ("env.system_prompt",)
"""Keys that are not filled in where they are null."""

OBJECTIVE_KEYS = ("algorithm.hae.switch_advantage", "algorithm.hae.penalty_credit", "env.seed")
"""The critic's values depend on the first two, and another seed is another run."""

RESULTS = (
    *("config.yaml", "metrics.jsonl", "curve.png", "episodes", "tensorboard", "wandb"),
    *("failures.jsonl", "status.json", "logs"),
)
"""What a run writes to its folder, except checkpoints and evaluations."""

MAY_DIFFER = (
    *("run_dir", "trainer.default_local_dir", "data.train_files", "data.val_files"),
    *("env.pool_name", "env.kwargs", "ray_kwargs"),
    *("trainer.val_only", "trainer.resume_mode", "trainer.resume_from_path"),
)
"""Keys and sections that differ between two starts of the same run and are not reported."""


OWNER_FILE = "running.json"
"""Which process writes to the folder, for the message that another one gets. Only the lock decides."""


@contextlib.contextmanager
def exclusive_run_folder(folder: Path) -> Iterator[None]:
    """Create `folder` if necessary and lock it against other runs until this one ends, however it ends.

    Raises:
        ConfigError: another run holds the lock, or the folder cannot be created or written to.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder, wait=False))
            owner = {"process": os.getpid(), "machine": socket.gethostname(), "since": time.strftime("%F %T")}
            (folder / OWNER_FILE).write_text(json.dumps(owner), encoding="utf-8")
        except filelock.Timeout:
            raise ConfigError(
                f"run_dir={folder}: another run is writing to it{_owner(folder)}. Try: {other_run_dir(folder)}"
            ) from None
        except OSError as error:
            raise ConfigError(
                f"run_dir={folder} cannot be used as a folder ({error.strerror}). Try: run_dir=<a folder that may be "
                "written to>"
            ) from None
        try:
            yield
        finally:
            (folder / OWNER_FILE).unlink(missing_ok=True)


def _owner(folder: Path) -> str:
    try:
        owner = json.loads((folder / OWNER_FILE).read_text(encoding="utf-8"))
        return f" (process {owner['process']} on {owner['machine']}, since {owner['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def use_evaluation_folder(config: DictConfig) -> None:
    """With `trainer.val_only`, write to a new folder in `evaluations/` of the run and leave the run's files unchanged.

    The checkpoints are still those of the run. Changes `config` in place.
    """
    if not config.trainer.val_only:
        return
    folder = Path(config.run_dir).absolute()
    with open_dict(config):
        config.trainer.val_before_train = True  # otherwise verl ignores val_only and trains
        config.trainer.default_local_dir = str(Path(config.trainer.default_local_dir).absolute())
        config.run_dir = str(folder / "evaluations" / time.strftime("%Y%m%d-%H%M%S"))


def earlier_run(config: DictConfig) -> DictConfig | None:
    """Configuration of the run whose checkpoint would be loaded; None where none would, or where it is unknown."""
    checkpoint = checkpoint_to_resume(config)
    if checkpoint is None:
        return None
    path = checkpoint.parent / RUN_CONFIG_FILE
    return load_config(path) if path.exists() else None


def has_results(folder: Path) -> bool:
    """Whether a run's folder holds results that a new run would overwrite."""
    metrics = folder / "metrics.jsonl"
    return (metrics.exists() and metrics.stat().st_size > 0) or any((folder / "episodes").glob("*.jsonl"))


def move_earlier_results(config: DictConfig) -> Path | None:
    """Move the results of an earlier run to `earlier/<time>` unless this run resumes from its checkpoints.

    Nothing is deleted or overwritten. The checkpoints are moved as well: the next start would resume from them.

    Returns:
        The folder they were moved to; None where there were none, or where this run resumes.
    """
    folder, checkpoints = Path(config.run_dir).absolute(), Path(config.trainer.default_local_dir).absolute()
    if config.trainer.val_only:
        return None
    checkpoint = checkpoint_to_resume(config)
    if checkpoint is not None and belongs_to_run(checkpoint, config):
        return None
    has_checkpoints = (checkpoints / POINTER_FILE).exists() or bool(saved_steps(checkpoints))
    if not has_checkpoints and not has_results(folder):
        return None
    target = unused_folder(folder)
    target.mkdir(parents=True)
    for name in RESULTS:
        if (folder / name).exists():
            (folder / name).rename(target / name)
    if has_checkpoints:  # on their own disk where they are kept elsewhere
        inside = checkpoints.is_relative_to(folder)
        checkpoints.rename(target / checkpoints.name if inside else f"{checkpoints}-{target.name}")
    return target


def record_start(config: DictConfig) -> str | None:
    """Write the configuration beside the checkpoints, and the checkpoint that this run starts from into verl's pointer.

    Complete checkpoints of later steps (of a branch that this run leaves) are moved to `earlier/<time>`. Makes
    `trainer.resume_from_path` absolute in `config`: verl reads the step from it.

    Returns:
        A line for the user where checkpoints were moved.
    """
    trainer = config.trainer
    selected = selected_checkpoint(config)
    if selected:
        trainer.resume_from_path = str(selected)
    if not saves_checkpoints(config):
        return None
    checkpoints = Path(trainer.default_local_dir)
    checkpoints.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, checkpoints / RUN_CONFIG_FILE)
    checkpoint = checkpoint_to_resume(config)
    if checkpoint is None or not belongs_to_run(checkpoint, config):
        return None
    write_pointer(checkpoint)
    target = unused_folder(Path(config.run_dir)) / "checkpoints"
    if steps := move_later_checkpoints(checkpoint, target):
        return f"later checkpoints (steps {', '.join(map(str, steps))}) are now in {target}"
    return None


def refuse_other_run(config: DictConfig, earlier: DictConfig) -> None:
    """Check that `config` describes the run whose checkpoints would be loaded.

    Keys that are not filled in yet (null, but for `NULL_IS_A_VALUE`) are not compared, and of the model's path only the
    last part is: the cache may have moved. Other settings may change: see `changed_settings`. An evaluation takes what
    the weights are from the run first (`use_weights_of_run`).

    Raises:
        ConfigError: with every difference, how to keep both runs and how to restart.
    """

    def value(config: DictConfig, key: str) -> Any:
        selected = OmegaConf.select(config, key)
        return Path(selected).name if key.endswith(".path") and selected else selected

    only_evaluates = config.trainer.val_only
    differences = []
    for key in (*MODEL_KEYS, *(() if only_evaluates else OBJECTIVE_KEYS)):
        now, before = value(config, key), value(earlier, key)
        if now != before and (key in NULL_IS_A_VALUE or None not in (now, before)):
            differences.append(f"{key}={now}, but that run has {before}")
            if key == "actor_rollout_ref.model.path":
                differences += _small_model_differences(config, earlier)
    if config.algorithm.adv_estimator == earlier.algorithm.adv_estimator:
        heads, heads_before = number_of_heads(config), number_of_heads(earlier)
        if heads != heads_before:
            differences.append(f"the critic has {heads} value heads, but that run has {heads_before}")
    for key, before in weight_differences(config, earlier).items():
        now = OmegaConf.select(config, key)
        differences.append(f"{key}={typed(now)}, but the weights of that run need {key}={typed(before)}")
    if not differences:
        return
    listed = "\n".join(f"  - {line}" for line in differences)
    remedy = (
        f"{other_run_dir(Path(config.run_dir))} to keep both runs, trainer.resume_mode=disable to restart (the "
        "earlier results are moved to earlier/), or its values to resume it"
    )
    raise ConfigError(
        f"run_dir={earlier.run_dir} holds another run, whose checkpoints would be loaded:\n{listed}\n"
        f"Try: {'its values to evaluate it' if only_evaluates else remedy}"
    )


def _small_model_differences(config: DictConfig, earlier: DictConfig) -> list[str]:
    """What makes another small demonstrated model: a user sets these keys, and not the name of its folder.

    null is a value in `warm_start` (the default); elsewhere it is filled in later and not compared.
    """
    now, before = (dict(flat_items(OmegaConf.to_container(c, resolve=True))) for c in (config, earlier))
    sections = (
        "warm_start",
        "env.history_length",
        "env.history_observations",
        *(f"env.{name}" for name in ENVIRONMENTS),
    )
    keys = [key for key in now if any(is_in(key, section) for section in sections) and key in before]
    return [
        f"{key}={typed(now[key])}, but that run has {typed(before[key])}"
        for key in keys
        if now[key] != before[key] and (is_in(key, "warm_start") or None not in (now[key], before[key]))
    ]


def changed_settings(config: DictConfig, earlier: DictConfig) -> Iterator[str]:
    """Settings that differ from those of the run that is resumed, each as "key: before -> now"."""

    def values(config: DictConfig) -> dict[str, Any]:
        return dict(flat_items(OmegaConf.to_container(config, resolve=True)))

    before = values(earlier)
    for key, value in values(config).items():
        may_differ = any(key == name or key.startswith(name + ".") for name in MAY_DIFFER)
        if key in before and before[key] != value and not may_differ:
            yield f"{key}: {before[key]} -> {value}"
