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
from verl_plugins.cpu.environment import CPU_ENVIRONMENT

PROFILE_ENVIRONMENT = {**CPU_ENVIRONMENT, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
"""What every process of `profile=cpu` needs; vLLM is one process less. A value that is already set wins."""


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
        for name, value in PROFILE_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        # Rollout and updates alternate, so each may have the cores; Ray would give its workers one thread each.
        os.environ.setdefault("OMP_NUM_THREADS", str(usable_cpus()))
    return arguments if given else [*arguments, f"profile={profile}"]


def apply_hardware(config: DictConfig) -> None:
    """Values that depend on the machine: the number of GPUs, and the environment of every Ray process."""
    import torch  # it reads the environment, which `choose_profile` sets first

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
    ours = ("HIPER_CACHE", "ALFWORLD_DATA", "OMP_NUM_THREADS", *PROFILE_ENVIRONMENT)
    names = (*ours, "VERL_LOGGING_LEVEL", "WANDB_MODE", "WANDB_API_KEY")
    forwarded = {name: os.environ[name] for name in names if name in os.environ}
    forwarded["TENSORBOARD_DIR"] = str(Path(config.run_dir).absolute() / "tensorboard")
    forwarded["WANDB_DIR"] = str(Path(config.run_dir).absolute())
    with open_dict(config):
        config.run_dir = str(Path(config.run_dir).absolute())
        config.ray_kwargs.ray_init.runtime_env.env_vars = forwarded
