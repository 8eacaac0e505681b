# SPDX-License-Identifier: Apache-2.0
"""A folder that already holds a run: may this one go on from its checkpoints, and where does an evaluation write?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from agent_system.errors import ConfigError
from recipe.hiper.checks import flat_items
from recipe.hiper.settings import number_of_heads

WHAT_ITS_WEIGHTS_ARE = (
    "env.name",
    "env.env_name",
    "env.prompt_style",
    "env.short_keep",
    "actor_rollout_ref.model.path",
    "algorithm.adv_estimator",
)
"""Weights learned under one of these are of no use under another; a different model is another KL reference."""

WHAT_IT_LEARNS = ("algorithm.hae.switch_advantage", "algorithm.hae.penalty_credit")
"""Values learned under one of these mean something else under another."""

SAID_ANEW = (
    *("run_dir", "trainer.default_local_dir", "data.train_files", "data.val_files"),
    *("env.pool_name", "env.kwargs", "ray_kwargs"),
    *("trainer.val_only", "trainer.resume_mode", "trainer.resume_from_path"),
)
"""Keys and sections that may differ between two starts of the same run."""


def separate_evaluation(config: DictConfig) -> None:
    """With `trainer.val_only`, give the evaluation a folder of its own in the run's, and leave the run's files alone.

    Checkpoints are still those of the run. Changes `config` in place.
    """
    if not config.trainer.val_only:
        return
    folder = Path(config.run_dir).absolute()
    with open_dict(config):
        config.trainer.default_local_dir = str(Path(config.trainer.default_local_dir).absolute())
        config.run_dir = str(folder / "evaluations" / time.strftime("%Y%m%d-%H%M%S"))


def earlier_run(config: DictConfig) -> DictConfig | None:
    """Configuration of the run whose checkpoints would be loaded; None where none would, or it is not known."""
    trainer = config.trainer
    if trainer.resume_mode == "resume_path" and trainer.resume_from_path:
        checkpoints = Path(trainer.resume_from_path).absolute().parent
    elif trainer.resume_mode == "auto":
        checkpoints = Path(trainer.default_local_dir).absolute()
        if not (checkpoints / "latest_checkpointed_iteration.txt").exists():
            return None
    else:
        return None
    path = checkpoints.parent / "config.yaml"
    return OmegaConf.load(path) if path.exists() else None


def refuse_another_run(config: DictConfig, earlier: DictConfig) -> None:
    """Check that this run is the same one as that whose checkpoints would be loaded.

    Keys that are not filled in yet (null) are not compared, and of the model's path only the last part is: the cache
    may have moved. Numbers may change: see `changes`.

    Raises:
        ConfigError: with what differs, and how to keep both runs or to start over.
    """

    def value(one: DictConfig, key: str) -> Any:
        found = OmegaConf.select(one, key)
        return Path(found).name if key.endswith(".path") and found else found

    only_evaluates = config.trainer.val_only
    found = []
    for key in (*WHAT_ITS_WEIGHTS_ARE, *(() if only_evaluates else WHAT_IT_LEARNS)):
        now, then = value(config, key), value(earlier, key)
        if now is not None and then is not None and now != then:
            found.append(f"{key}={now}, there {then}")
    heads = [number_of_heads(one) for one in (config, earlier)]
    if heads[0] != heads[1] and config.algorithm.adv_estimator == earlier.algorithm.adv_estimator:
        found.append(f"a critic with {heads[0]} value heads, there {heads[1]}")
    if not found:
        return
    listed = "\n".join(f"  - {line}" for line in found)
    other = Path(config.run_dir).with_name(Path(config.run_dir).name + "-2")
    remedy = f"run_dir={other} keeps both; trainer.resume_mode=disable starts over. To go on with that run"
    raise ConfigError(
        f"{earlier.run_dir} holds another run, and its checkpoints would be loaded:\n{listed}\n"
        f"{'To evaluate that run' if only_evaluates else remedy}, set these as they are there."
    )


def changes(config: DictConfig, earlier: DictConfig) -> Iterator[str]:
    """What is set differently than in the run that is gone on with: "key: then -> now"."""

    def known(one: DictConfig) -> dict[str, Any]:
        return dict(flat_items(OmegaConf.to_container(one, resolve=True)))

    then = known(earlier)
    for key, value in known(config).items():
        is_said_anew = any(key == name or key.startswith(name + ".") for name in SAID_ANEW)
        if key in then and then[key] != value and not is_said_anew:
            yield f"{key}: {then[key]} -> {value}"
