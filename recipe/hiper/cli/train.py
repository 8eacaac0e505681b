# SPDX-License-Identifier: Apache-2.0
"""Train: check the configuration, prepare tasks and model, run, report."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from agent_system.errors import HiPERError
from recipe.hiper.configuration.hardware import apply_hardware
from recipe.hiper.configuration.overrides import ENVIRONMENTS, reference_config
from recipe.hiper.configuration.settings import number_of_heads
from recipe.hiper.configuration.validation import check_config, check_model, checkpoint_bytes
from recipe.hiper.run_dir.progress import ProgressBar, quiet_terminal
from recipe.hiper.run_dir.recorder import require_disk_space
from recipe.hiper.run_dir.resume import (
    begin,
    changes,
    correct_pointer,
    earlier_run,
    held,
    how_to_go_on,
    refuse_another_run,
    resume_problems,
    separate_evaluation,
    set_aside,
)
from recipe.hiper.tasks.preparation import prepare
from recipe.hiper.tasks.webshop import webshop_problems


class RunStopped(HiPERError):
    """The run ended before its last step."""


def check(config: DictConfig) -> None:
    """Check everything that can be checked before anything is made.

    Raises:
        ConfigError: one message with every problem.
    """
    profile = "cpu" if config.trainer.device == "cpu" else "gpu"
    environment = next(name for name in ENVIRONMENTS if name in config.env)
    check_config(config, reference_config(profile, environment), (task_problems, resume_problems))


def task_problems(config: DictConfig) -> Iterator[str]:
    """A message for every problem with the environment's own settings."""
    if "webshop" in config.env:
        yield from webshop_problems(config)


def checked_and_prepared(config: DictConfig) -> DictConfig:
    """Fill in what depends on the machine, check everything that can be checked, make what is missing.

    Raises:
        HiPERError: something is wrong with the configuration, the tasks or the model; the message says what fixes it.
    """
    apply_hardware(config)
    check(config)
    prepare(config, progress=True)
    check_model(config)
    return config


def train(config: DictConfig) -> None:
    """Check, prepare, train.

    Raises:
        HiPERError: something is wrong; the message says what fixes it, or where the whole story is.
    """
    started = time.time()
    separate_evaluation(config)
    with held(Path(config.run_dir)):
        earlier = earlier_run(config)
        if earlier is not None:
            refuse_another_run(config, earlier)  # before anything is made
        config = checked_and_prepared(config)
        if earlier is not None:
            refuse_another_run(config, earlier)  # and now that the model is known
            for line in changes(config, earlier):
                print(f"changed: {line}", file=sys.stderr)
        if line := correct_pointer(config):
            print(line, file=sys.stderr)
        if aside := set_aside(config):
            print(f"this folder held results of an earlier run: they are now in {aside}", file=sys.stderr)
        _run(config)
    print(f"finished after {(time.time() - started) / 60:.1f} min", file=sys.stderr)


def _run(config: DictConfig) -> None:
    folder = Path(config.run_dir)
    recorder_arguments = dict(
        folder=str(folder),
        total_steps=config.trainer.total_training_steps,
        checkpoint_bytes=checkpoint_bytes(config.actor_rollout_ref.model.path, number_of_heads(config) > 0),
        episodes_every=config.trainer.episodes_every,
    )
    if config.trainer.save_freq > 0 and not config.trainer.val_only:
        require_disk_space(config.trainer.default_local_dir, recorder_arguments["checkpoint_bytes"])
    OmegaConf.save(config, folder / "config.yaml")
    begin(config)
    log_file = folder / "logs" / f"train-{time.strftime('%Y%m%d-%H%M%S')}.log"
    print(f"run: {folder}\nlog: {log_file}", file=sys.stderr)
    try:
        with quiet_terminal(log_file) as terminal, ProgressBar(folder, terminal):
            # verl takes seconds to import and prints while it does
            from recipe.hiper.trainer.task_runner import run

            try:
                run(config, recorder_arguments)
            except BaseException:
                traceback.print_exc()  # into the log
                raise
    except HiPERError:
        raise
    except KeyboardInterrupt:
        raise RunStopped(f"interrupted. {how_to_go_on(config)}") from None
    except Exception as error:
        last_line = str(error).strip().splitlines()[-1] if str(error).strip() else ""
        raise RunStopped(f"the run failed: {type(error).__name__}: {last_line}\nAll of it is in {log_file}") from error
