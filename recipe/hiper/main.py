# SPDX-License-Identifier: Apache-2.0
"""Train: `python -m recipe.hiper.main [hydra overrides]`.

Without `profile=...` the profile is gpu where a GPU is found and cpu elsewhere; `--cfg job` prints the configuration,
`trainer.val_only=True` only evaluates the latest checkpoint (or the untrained model), in a folder of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import traceback
from pathlib import Path

from agent_system.errors import ConfigError, HiPERError
from agent_system.making import usable_cpus

PROFILES = ("cpu", "gpu")
ENVIRONMENTS = ("alfworld", "webshop")
PRESETS = ("custom", "released", "paper", "living")
PRESET_GROUP = "algorithm/hae"
QUOTED = """'run_dir="outputs/a (1)"'"""
"""How a value with a blank, bracket or comma is written for the shell and Hydra."""

CPU_ENVIRONMENT = {
    "VERL_PLATFORM": "cpu",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "TORCHDYNAMO_DISABLE": "1",
    # By default glibc gives every activation back to the kernel and asks for it again in the next micro-batch: a third
    # of the processor time of an update went into page faults.
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "MALLOC_ARENA_MAX": "2",
}
"""What every process of a CPU run needs; a value already set in the environment wins."""


class RunStopped(HiPERError):
    """The run ended before its last step."""


def has_gpu() -> bool:
    """Whether an NVIDIA GPU answers on this machine (requirements/gpu.txt is for CUDA). Does not import torch."""
    command = ["nvidia-smi", "-L"]
    return bool(shutil.which(command[0])) and subprocess.run(command, capture_output=True).returncode == 0


def choose_profile(arguments: list[str]) -> list[str]:
    """Append `profile=...` where the user did not say, and set the environment it needs.

    The environment must be right before the first import of verl, which settles its platform for good.
    """
    given = [argument.split("=", 1)[1] for argument in arguments if argument.startswith("profile=")]
    profile = given[-1] if given else ("gpu" if has_gpu() else "cpu")
    if profile == "cpu":
        for name, value in CPU_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        # Rollout and updates alternate, so each may have the cores; Ray would give its workers one thread each.
        os.environ.setdefault("OMP_NUM_THREADS", str(usable_cpus()))
    return arguments if given else [*arguments, f"profile={profile}"]


def fill_in_machine(config) -> None:
    """Values that depend on the machine: the number of GPUs, and the environment of every Ray process."""
    import torch
    from omegaconf import open_dict

    trainer = config.trainer
    if trainer.device != "cpu":
        found = torch.cuda.device_count()
        if not found and trainer.nnodes == 1:
            raise ConfigError(
                f"profile=gpu: PyTorch {torch.__version__} sees no GPU on this machine (nvidia-smi and the driver tell "
                "why). profile=cpu"
            )
        if trainer.n_gpus_per_node is None:
            if not found:
                raise ConfigError(
                    f"trainer.nnodes={trainer.nnodes}, and this machine has no GPU to count. Say how many each node "
                    "has, for example trainer.n_gpus_per_node=8"
                )
            trainer.n_gpus_per_node = found
        if trainer.nnodes == 1 and not 1 <= trainer.n_gpus_per_node <= found:
            raise ConfigError(
                f"trainer.n_gpus_per_node={trainer.n_gpus_per_node}, but this machine has {found} GPUs. "
                f"trainer.n_gpus_per_node={found}, or profile=cpu"
            )
    if "wandb" in trainer.logger and not os.environ.get("WANDB_API_KEY"):
        # Without a key wandb would ask on a terminal that nobody sees. Offline runs are uploaded with `wandb sync`.
        os.environ.setdefault("WANDB_MODE", "offline")
    ours = ("HIPER_CACHE", "ALFWORLD_DATA", "OMP_NUM_THREADS", *CPU_ENVIRONMENT)
    names = (*ours, "VERL_LOGGING_LEVEL", "WANDB_MODE", "WANDB_API_KEY")
    forwarded = {name: os.environ[name] for name in names if name in os.environ}
    forwarded["TENSORBOARD_DIR"] = str(Path(config.run_dir).absolute() / "tensorboard")
    forwarded["WANDB_DIR"] = str(Path(config.run_dir).absolute())
    with open_dict(config):
        config.run_dir = str(Path(config.run_dir).absolute())
        config.ray_kwargs.ray_init.runtime_env.env_vars = forwarded


def reference_config(profile: str, environment: str = "alfworld"):
    """The configuration of a profile and an environment without overrides: the set of keys that exist."""
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_module("recipe.hiper.config", version_base=None):
        return compose("hiper_trainer", overrides=[f"profile={profile}", f"env={environment}"])


def check_overrides(arguments: list[str]) -> None:
    """Check that every override names a key that exists. Hydra stops at the first one, and suggests nothing.

    Raises:
        ConfigError: naming every unknown key, with the most similar known ones.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    from recipe.hiper.checks import flat_keys, raise_all, suggestion

    given = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    profile = next(argument for argument in reversed(given) if argument.startswith("profile=")).split("=", 1)[1]
    if profile not in PROFILES:
        raise_all([f"profile={profile} is not one of {', '.join(PROFILES)}. profile=cpu"])
    chosen = [argument.split("=", 1)[1] for argument in given if argument.startswith("env=")]
    environment = chosen[-1] if chosen else ENVIRONMENTS[0]
    if environment not in ENVIRONMENTS:
        raise_all([f"env={environment} is not one of {', '.join(ENVIRONMENTS)}. env={ENVIRONMENTS[0]}"])
    leaves = set(flat_keys(OmegaConf.to_container(reference_config(profile, environment), resolve=False)))
    try:
        overrides = OverridesParser.create().parse_overrides(given)
    except HydraException as error:
        raise_all([f"{error}. A value with a blank, a bracket or a comma needs quotes, for example {QUOTED}"])
    if sweeps := [override.input_line for override in overrides if override.is_sweep_override()]:
        raise_all([f"{sweeps[0]}: several values would be several runs. Name one; one text needs quotes: {QUOTED}"])
    problems = preset_problems(overrides) + unread_overrides(overrides)
    for override in overrides:
        key = override.key_or_group
        exists = key in leaves or any(leaf.startswith(key + ".") for leaf in leaves)
        is_group = key in ("profile", "env") or "/" in key or "@" in key or key.startswith("hydra")
        if not override.is_add() and not override.is_force_add() and not exists and not is_group:
            problems.append(f"{override.input_line}: there is no key {key}.{suggestion(key, leaves)}")
    raise_all(problems)


def unread_overrides(overrides) -> list[str]:
    """A message for every override of a key of hae's that the chosen estimator does not read."""
    from recipe.hiper.estimate import OF_GROUPS

    read = {"turn_gae": {"norm_adv", "bootstrap_truncated", "random_signs"}, "gae": set()}
    read |= {estimator: {"random_signs"} for estimator in OF_GROUPS}
    chosen = [override.value() for override in overrides if override.key_or_group == "algorithm.adv_estimator"]
    if not chosen or chosen[-1] not in read:
        return []
    section = "algorithm.hae."
    return [
        f"{override.input_line}: {chosen[-1]} does not read it. Leave it out, or algorithm.adv_estimator=hae"
        for override in overrides
        if override.key_or_group.startswith(section)
        and override.key_or_group.removeprefix(section) not in read[chosen[-1]]
    ]


def preset_problems(overrides) -> list[str]:
    """A message for a preset that does not exist, and for every override that contradicts the chosen one.

    Numbers are dials and may be turned; true, false and words are what a preset consists of.
    """
    from importlib.resources import files

    from omegaconf import OmegaConf

    from recipe.hiper.checks import flat_items

    chosen = [override.value() for override in overrides if override.key_or_group == PRESET_GROUP]
    if not chosen:
        return []
    preset = chosen[-1]
    if preset not in PRESETS:
        return [f"{PRESET_GROUP}={preset} is not one of {', '.join(PRESETS)}. {PRESET_GROUP}={PRESETS[0]}"]
    text = (files("recipe.hiper.config") / PRESET_GROUP / f"{preset}.yaml").read_text("utf-8")
    fixed = dict(flat_items(OmegaConf.to_container(OmegaConf.create(text))))
    problems = []
    for override in overrides:
        key = override.key_or_group
        is_what_it_is = isinstance(fixed.get(key), bool | str) and key != "trainer.experiment_name"
        if is_what_it_is and override.value() != fixed[key]:
            problems.append(
                f"{override.input_line} contradicts {PRESET_GROUP}={preset}, which sets {key}={fixed[key]}. Leave one "
                f"of them out; every key of a preset can be set without it ({PRESET_GROUP}={PRESETS[0]})"
            )
    return problems


def checked_and_prepared(config):
    """Fill in what depends on the machine, check everything that can be checked, make what is missing.

    Raises:
        HiPERError: something is wrong with the configuration, the tasks or the model; the message says what mends it.
    """
    from recipe.hiper.checks import check_config, check_model
    from recipe.hiper.prepare import prepare

    fill_in_machine(config)
    profile = "cpu" if config.trainer.device == "cpu" else "gpu"
    environment = next(name for name in ENVIRONMENTS if name in config.env)
    check_config(config, reference_config(profile, environment))
    prepare(config, progress=True)
    check_model(config)
    return config


def train(config) -> None:
    """Check, prepare, train.

    Raises:
        HiPERError: something is wrong; the message says what mends it, or where the whole story is.
    """
    from recipe.hiper.resume import (
        changes,
        correct_pointer,
        earlier_run,
        held,
        refuse_another_run,
        separate_evaluation,
        set_aside,
    )

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


def _run(config) -> None:
    from omegaconf import OmegaConf

    from recipe.hiper.checks import checkpoint_bytes
    from recipe.hiper.console import ProgressBar, quiet_terminal
    from recipe.hiper.recorder import require_disk_space
    from recipe.hiper.resume import begin, how_to_go_on
    from recipe.hiper.settings import number_of_heads

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
            from recipe.hiper.runner import run

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


def command_line(action) -> None:
    """Compose the configuration from the command line and do `action` with it. Our own errors end without traceback."""
    sys.argv[1:] = choose_profile(sys.argv[1:])
    import hydra

    @hydra.main(config_path="pkg://recipe.hiper.config", config_name="hiper_trainer", version_base=None)
    def job(config) -> None:
        try:
            action(config)
        except HiPERError as error:
            print(f"\n{error}", file=sys.stderr)
            raise SystemExit(1) from None

    try:
        check_overrides(sys.argv[1:])
    except HiPERError as error:
        print(f"\n{error}", file=sys.stderr)
        raise SystemExit(1) from None
    job()


if __name__ == "__main__":
    command_line(train)
