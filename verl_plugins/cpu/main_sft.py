# SPDX-License-Identifier: Apache-2.0
"""verl's supervised fine-tuning on CPU: `VERL_PLATFORM=cpu python -m verl_plugins.cpu.main_sft <verl overrides>`.

Same configuration tree, same overrides, same trainer as `torchrun -m verl.trainer.sft_trainer`, in one process without
torchrun. The values that only make sense on CPU are set where the user left verl's default (`CPU_DEFAULTS`).
"""

from __future__ import annotations

import os
import socket
import sys

os.environ.setdefault("VERL_PLATFORM", "cpu")

import hydra
from omegaconf import DictConfig
from verl.trainer.sft_trainer import SFTTrainer
from verl.utils.distributed import destroy_global_process_group, initialize_global_process_group_ray

import verl_plugins.cpu.engines  # noqa: F401  (registers the engines in this process)
from verl_plugins.cpu.environment import CPU_ENVIRONMENT
from verl_plugins.cpu.plugin import require_plugin

CPU_DEFAULTS = {
    "trainer.device": "cpu",
    "trainer.logger": "[console]",
    "engine.strategy": "fsdp2",
    "engine.use_torch_compile": "False",
    "+engine.mixed_precision": "{param_dtype:fp32,reduce_dtype:fp32,buffer_dtype:fp32}",
    "+model.override_config.attn_implementation": "sdpa",
    "model.use_remove_padding": "False",
    "data.num_workers": "0",
}
"""Overrides put before the user's, as `sft_trainer` would receive them on its command line."""


def one_process() -> dict[str, str]:
    """What torchrun sets for the only process of a training."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    return names | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


@hydra.main(config_path="pkg://verl.trainer.config", config_name="sft_trainer_engine", version_base=None)
def main(config: DictConfig) -> None:
    require_plugin()
    # verl's run_sft names a back end for the CPU and another for the device, which torch refuses where both are one.
    initialize_global_process_group_ray(backend="gloo")
    SFTTrainer(config).fit()
    destroy_global_process_group()


if __name__ == "__main__":
    for name, value in (CPU_ENVIRONMENT | one_process()).items():
        os.environ.setdefault(name, value)
    overridden = {argument.split("=", 1)[0].lstrip("+~") for argument in sys.argv[1:]}
    sys.argv[1:1] = [f"{key}={value}" for key, value in CPU_DEFAULTS.items() if key.lstrip("+") not in overridden]
    main()
