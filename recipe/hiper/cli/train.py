# SPDX-License-Identifier: Apache-2.0
"""Train: check the configuration, prepare tasks and model, run, report."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TextIO

from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from agent_system.errors import HiPERError, ProcessDied
from recipe.hiper.cold_start.smollm2 import make_smollm2
from recipe.hiper.configuration.gpu_memory import fill_in_share
from recipe.hiper.configuration.hardware import (
    choose_precision,
    count_gpus,
    gpu_bytes,
    gpus_here,
    set_process_environment,
)
from recipe.hiper.configuration.host_memory import fill_in_token_budgets, free_bytes
from recipe.hiper.configuration.keys import environment_of, model_of
from recipe.hiper.configuration.lora import lora_notices
from recipe.hiper.configuration.model import (
    SMOLLM2,
    check_model,
    expand_model_paths,
    has_cold_start,
    read_model,
    require_model_files,
)
from recipe.hiper.configuration.model_sizes import (
    SMOLLM2_PARAMETERS,
    checkpoint_bytes,
    count_parameters,
    fill_in_bucket,
    model_fields,
    require_disk_for_cold_start,
    require_disk_for_download,
    trained_sizes,
)
from recipe.hiper.configuration.overrides import reference_config
from recipe.hiper.configuration.problems import raise_all
from recipe.hiper.configuration.schema import RunSettings
from recipe.hiper.configuration.validation import read_settings
from recipe.hiper.preflight.machine import machine_problems
from recipe.hiper.preflight.plan import lines, plan
from recipe.hiper.preflight.ray_cluster import fit_to_cluster
from recipe.hiper.preflight.sizes import known_sizes
from recipe.hiper.run_dir.earlier_runs import (
    changed_settings,
    earlier_run,
    exclusive_run_folder,
    move_earlier_results,
    record_start,
    refuse_other_run,
    use_evaluation_folder,
)
from recipe.hiper.run_dir.progress import ProgressBar, quiet_terminal
from recipe.hiper.run_dir.recorder import mark_ended, require_disk_space
from recipe.hiper.run_dir.resume import (
    decide_start,
    how_to_resume,
    is_finished,
    other_run_dir,
    resume_problems,
    saves_checkpoints,
)
from recipe.hiper.run_dir.stop_request import EndAtOnce, StopRequested
from recipe.hiper.run_dir.trained_weights import use_weights_of_run
from recipe.hiper.tasks.families import SECTIONS, task_problems
from recipe.hiper.tasks.preparation import cache_folder, prepare
from verl_plugins.cpu.processor import fastest_dtype


class RunStopped(HiPERError):
    """The run ended before its last step."""


def check(config: DictConfig) -> RunSettings:
    """Read the configuration and check everything that can be checked before anything is created.

    Raises:
        ConfigError: one message with every problem.
    """
    count_gpus(config)
    return read_checked(config)


def read_checked(config: DictConfig) -> RunSettings:
    """The settings of a configuration in which the training processes are counted.

    Raises:
        ConfigError: one message with every problem of the configuration, the tasks and what the run starts from.
    """
    return read_settings(config, SECTIONS, reference=without_overrides(config), checks=(task_problems, resume_problems))


def without_overrides(config: DictConfig) -> DictConfig:
    """The configuration without the user's overrides."""
    profile = "cpu" if config.trainer.device == "cpu" else "gpu"
    return reference_config(profile, environment_of(config), model_of(config))


def prepare_only(config: DictConfig) -> None:
    """Check, and create the data, the task files and the model.

    Raises:
        HiPERError: something is wrong with the configuration, the tasks or the model; the message has what to type.
    """
    make_ready(config, check(config))


def make_ready(
    config: DictConfig, settings: RunSettings, accept: Callable[[DictConfig], None] = lambda config: None
) -> None:
    """Fill in what depends on the machine, and create the data, the task files and the model.

    Args:
        config: the configuration that verl gets; changed in place.
        settings: what was read from it.
        accept: see `preparation.prepare`.

    Raises:
        HiPERError: the data, the tasks or the model cannot be used; the message has what to type.
    """
    set_process_environment(config)
    expand_model_paths(config)
    _say(choose_precision(config, fastest_dtype()), *lora_notices(config, without_overrides(config)))
    if settings.actor_rollout_ref.model.path:
        _fit_model(config)  # before minutes of preparation
    elif settings.warm_start.base:
        _require_base(settings.warm_start.base, cache_folder() / "models")
    prepare(config, settings, progress=True, accept=accept)
    if not settings.actor_rollout_ref.model.path:
        _fit_model(config)


def _require_base(base: str, models: Path) -> None:
    """Check that a pretrained model can be read and fine-tuned, before the tasks are made.

    Args:
        base: `warm_start.base`.
        models: folder of the models in the cache. Where it holds a model that was made from `base`, that one may be
            enough, and nothing is checked: this machine may have no connection to the hub.

    Raises:
        ConfigError: the model cannot be read or downloaded, or there is no room on the disk.
    """
    if has_cold_start(models, base):
        return
    if base == SMOLLM2:
        require_disk_for_cold_start(base, SMOLLM2_PARAMETERS, models)
        make_smollm2(models / base, progress=True)
        return
    require_model_files("warm_start.base", base)
    read_model("warm_start.base", base)
    parameters = count_parameters(base)
    require_disk_for_download(base, parameters)
    require_disk_for_cold_start(base, parameters, models)


def _fit_model(config: DictConfig) -> None:
    """Check a model that exists, and fill in what depends on its size."""
    require_model_files("actor_rollout_ref.model.path", config.actor_rollout_ref.model.path)
    check_model(config)
    sizes = trained_sizes(config)
    require_disk_for_download(config.actor_rollout_ref.model.path, sizes["actor"].parameters)
    fill_in_bucket(config, sizes["actor"])
    if config.trainer.device == "cuda":
        _say(fill_in_share(config, sizes, gpu_bytes()))
    else:
        _say(fill_in_token_budgets(config, sizes, model_fields(config, sizes), free_bytes()))


def _say(*lines: str | None) -> None:
    """Print lines for the user, except those that are None."""
    for line in lines:
        if line is not None:
            print(line, file=sys.stderr, flush=True)


def train(config: DictConfig) -> None:
    """Check, prepare, train.

    Raises:
        HiPERError: something is wrong; the message has the remedy, or the log file with the whole traceback.
    """
    started = time.time()
    settings = check(config)  # before any folder is created
    use_evaluation_folder(config)
    with exclusive_run_folder(Path(config.run_dir)):
        earlier = earlier_run(config)
        if earlier is not None and settings.trainer.val_only:
            _say(*use_weights_of_run(config, earlier, gpus_here(config)))
            settings = check(config)  # the same rules for the values of the run

        def refuse(config: DictConfig) -> None:
            if earlier is not None:
                refuse_other_run(config, earlier)

        refuse(config)  # before anything is made
        if is_finished(config):
            print(_finished(config), file=sys.stderr)
            return
        start = decide_start(config)
        raise_all(machine_problems(config))
        _say(*start.notices, fit_to_cluster(config))
        _say(*lines(plan(config, settings, known_sizes(config), start.checkpoint, cache_folder())))
        make_ready(config, settings, accept=refuse)  # and when the small model is known
        if earlier is not None:
            _say(*(f"changed: {line}" for line in changed_settings(config, earlier)))
        if moved_to := move_earlier_results(config):
            print(f"this folder held results of an earlier run: they are now in {moved_to}", file=sys.stderr)
        _run(config, settings)
    print(f"finished after {(time.time() - started) / 60:.1f} min", file=sys.stderr)


def _finished(config: DictConfig) -> str:
    steps, other = config.trainer.total_training_steps, other_run_dir(Path(config.run_dir))
    return (
        f"the run in {config.run_dir} has finished its {steps} steps. Try: trainer.total_training_steps={2 * steps} to "
        f"train it further, trainer.val_only=True to evaluate it, or {other} for a new run"
    )


def _show(terminal: TextIO, line: str) -> None:
    tqdm.write(line, file=terminal)  # above the progress bar


def _run(config: DictConfig, settings: RunSettings) -> None:
    folder = Path(config.run_dir)
    size = checkpoint_bytes(config)
    recorder_arguments = dict(
        folder=str(folder),
        total_steps=settings.trainer.total_training_steps,
        checkpoint_bytes=size,
        episodes_every=settings.trainer.episodes_every,
    )
    if saves_checkpoints(settings):
        require_disk_space(config.trainer.default_local_dir, size)
    OmegaConf.save(config, folder / "config.yaml")
    _say(record_start(config))
    log_file = folder / "logs" / f"train-{time.strftime('%Y%m%d-%H%M%S')}.log"
    print(f"run: {folder}\nlog: {log_file}", file=sys.stderr)
    try:
        with quiet_terminal(log_file) as terminal, ProgressBar(folder, terminal):
            # verl takes seconds to import and prints while it does
            from recipe.hiper.trainer.task_runner import run

            try:
                run(config, recorder_arguments, partial(_show, terminal))
            except BaseException as error:
                traceback.print_exc()  # into the log
                if isinstance(error, KeyboardInterrupt | EndAtOnce):  # Ray has killed the process that records
                    mark_ended(folder, "interrupted")
                raise
    except StopRequested:
        raise StopRequested(f"stopped by SIGTERM. {how_to_resume(config)}") from None
    except ProcessDied as died:
        raise RunStopped(
            f"the run failed: {died}\n{how_to_resume(config)} The whole traceback is in {log_file}"
        ) from died
    except HiPERError:
        raise
    except EndAtOnce:
        raise StopRequested(f"ended by SIGTERM. {how_to_resume(config)}") from None
    except KeyboardInterrupt:
        raise RunStopped(f"interrupted. {how_to_resume(config)}") from None
    except Exception as error:
        last_line = str(error).strip().splitlines()[-1] if str(error).strip() else ""
        raise RunStopped(
            f"the run failed: {type(error).__name__}: {last_line}\nThe whole traceback is in {log_file}"
        ) from error
