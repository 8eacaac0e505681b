# SPDX-License-Identifier: Apache-2.0
"""What depends on the machine: the profile, the number of GPUs, the environment variables of every process."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from omegaconf import DictConfig, open_dict

from agent_system.errors import ConfigError
from agent_system.processes import usable_cpus
from recipe.hiper.configuration.keys import USUAL_MODEL
from verl_plugins.cpu.environment import CPU_ENVIRONMENT

PROFILE_ENVIRONMENT = {**CPU_ENVIRONMENT, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
"""What every process of `profile=cpu` needs; vLLM is one process less. A value that is already set wins."""

CPUS_PER_GPU = 3
"""What verl's placement group requests of Ray per GPU beside those of the pool. Else it waits forever."""


def has_gpu() -> bool:
    """Whether an NVIDIA GPU answers on this machine (requirements/gpu.txt is for CUDA). Does not import torch."""
    command = ["nvidia-smi", "-L"]
    return bool(shutil.which(command[0])) and subprocess.run(command, capture_output=True).returncode == 0


SLOWDOWN = 3
"""float32 instead of bf16 with AMX, in the forward pass of SmolLM2; see `verl_plugins.cpu.processor.fastest_dtype`."""

BF16, FP32 = ("bf16", "bfloat16"), ("fp32", "float32")
"""Names of verl's engines and of vLLM."""


def choose_precision(config: DictConfig, fastest: str) -> str | None:
    """On a CPU: replace bf16 with float32 where the processor is no faster with it. Changes `config` in place.

    Args:
        fastest: "bf16" or "fp32" (`verl_plugins.cpu.processor.fastest_dtype`).

    Returns:
        A line for the user: what was detected, and what follows. None where the run has no bf16, or has GPUs.
    """
    if config.trainer.device != "cpu":
        return None
    policy = config.actor_rollout_ref
    engines = [policy.actor.fsdp_config, policy.ref.fsdp_config, config.critic.fsdp]
    mixed = [engine.mixed_precision for engine in engines if engine.get("mixed_precision")]
    rounded = [section for section in mixed if section.get("param_dtype") in BF16]
    if not rounded and policy.rollout.dtype not in BF16:
        return None
    if fastest in BF16:
        return "bf16: this processor is faster in it (or VERL_CPU_DTYPE in the environment says so)"
    with open_dict(config):
        for section in rounded:
            section.param_dtype = FP32[0]
        if policy.rollout.dtype in BF16:
            policy.rollout.dtype = FP32[1]
    return (
        "bf16: this processor is slower in it than in float32 (no AMX, and not AMD's AVX512-bf16), so actor, "
        f"reference, critic and rollout compute in float32, about {SLOWDOWN} times slower than bf16 with AMX"
    )


def gpu_bytes() -> int | None:
    """Memory of the smallest GPU of this machine; None where it has none."""
    import torch  # it reads the environment, which `choose_profile` sets first

    return min(
        (torch.cuda.get_device_properties(index).total_memory for index in range(torch.cuda.device_count())),
        default=None,
    )


def is_override(argument: str) -> bool:
    """Whether an argument of the command line is `key=value` or `~key`, and no option or the value of one."""
    return not argument.startswith("-") and ("=" in argument or argument.startswith("~"))


def choose_profile(arguments: list[str]) -> list[str]:
    """Add `profile=...` and `model=...` where the command line has none, and set the environment of the profile.

    Overrides come first in the result, then the options: Hydra accepts no overrides behind an option.

    The environment must be right before the first import of verl, which chooses its platform then.
    """
    chosen = [argument.split("=", 1)[1] for argument in arguments if argument.startswith("profile=")]
    profile = chosen[-1] if chosen else ("gpu" if has_gpu() else "cpu")
    if profile == "cpu":
        for name, value in PROFILE_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        # Rollout and updates alternate, so each may have the cores; Ray would give its workers one thread each.
        os.environ.setdefault("OMP_NUM_THREADS", str(usable_cpus()))
    else:
        # verl would look for a GPU in every process, and take a machine of a Ray cluster that has none for a CPU run.
        os.environ.setdefault("VERL_PLATFORM", "nvidia")
    overrides = [argument for argument in arguments if is_override(argument)]
    options = [argument for argument in arguments if argument not in overrides]
    if not chosen:
        overrides.append(f"profile={profile}")
    if not any(override.startswith("model=") for override in overrides) and profile in USUAL_MODEL:
        overrides.append(f"model={USUAL_MODEL[profile]}")
    return [*overrides, *options]


def gpus_here(config: DictConfig) -> int | None:
    """GPUs of this machine that a run may use; None where it needs none (`trainer.device=cpu`), or where its training
    processes are on other machines.
    """
    import torch  # it reads the environment, which `choose_profile` sets first

    if config.trainer.device == "cpu" or config.trainer.nnodes != 1:
        return None
    return torch.cuda.device_count()


def count_gpus(config: DictConfig) -> None:
    """Fill in `trainer.n_gpus_per_node`. Values of a wrong type are left to `validation.read_settings`.

    Raises:
        ConfigError: the environment forbids GPUs, there is none, or there are fewer than `trainer.n_gpus_per_node`.
    """
    import torch  # it reads the environment, which `choose_profile` sets first

    trainer = config.trainer
    if trainer.device == "cpu" or not isinstance(trainer.nnodes, int):
        return
    if os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu":
        raise ConfigError(
            "VERL_PLATFORM=cpu is set in the environment, so verl would look for no GPU, but the profile is gpu. "
            "Try: unset VERL_PLATFORM, or profile=cpu"
        )
    gpus = torch.cuda.device_count()
    if not gpus and trainer.nnodes == 1:
        raise ConfigError(
            f"profile=gpu: PyTorch {torch.__version__} sees no GPU on this machine (nvidia-smi and the driver show "
            "why). Try: profile=cpu"
        )
    if trainer.n_gpus_per_node is None:
        if not gpus:
            raise ConfigError(
                f"trainer.n_gpus_per_node=null with trainer.nnodes={trainer.nnodes}: this machine has no GPU to count. "
                "Try: trainer.n_gpus_per_node=8"
            )
        trainer.n_gpus_per_node = gpus
    if trainer.nnodes == 1 and isinstance(trainer.n_gpus_per_node, int) and trainer.n_gpus_per_node > gpus:
        raise ConfigError(
            f"trainer.n_gpus_per_node={trainer.n_gpus_per_node}, but this machine has {gpus} GPUs. "
            f"Try: trainer.n_gpus_per_node={gpus}, or profile=cpu"
        )


def set_process_environment(config: DictConfig) -> None:
    """Make `run_dir` absolute, and fill in the environment variables of every Ray process."""
    folder = Path(config.run_dir).absolute()
    if "wandb" in config.trainer.logger and not os.environ.get("WANDB_API_KEY"):
        # Without a key wandb would ask on a terminal that nobody sees. Offline runs are uploaded with `wandb sync`.
        os.environ.setdefault("WANDB_MODE", "offline")
    ours = ("HIPER_CACHE", "ALFWORLD_DATA", "OMP_NUM_THREADS", *PROFILE_ENVIRONMENT)
    names = (*ours, "VERL_WEIGHT_SYNC_TIMEOUT_S", "VERL_LOGGING_LEVEL", "WANDB_MODE", "WANDB_API_KEY")
    forwarded = {name: os.environ[name] for name in names if name in os.environ}
    forwarded |= {"TENSORBOARD_DIR": str(folder / "tensorboard"), "WANDB_DIR": str(folder)}
    with open_dict(config):
        config.run_dir = str(folder)
        config.ray_kwargs.ray_init.runtime_env.env_vars = forwarded
