# SPDX-License-Identifier: Apache-2.0
"""verl's platform interface, answered for a machine without accelerator."""

from __future__ import annotations

import contextlib
import types

import psutil
import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry

from verl_plugins.cpu.memory import return_freed_memory


def _nothing(*_args, **_kwargs) -> None:
    return None


def _no_bytes(*_args, **_kwargs) -> int:
    """Device memory statistics: there is no device memory."""
    return 0


def _cpu_device_module() -> types.ModuleType:
    """`torch.cpu` with the functions verl calls on `torch.cuda`, so that verl's device-agnostic code finds them."""
    module = types.ModuleType("verl_plugins.cpu.device_module", "A torch.cuda-shaped view of the CPU.")
    for name in dir(torch.cpu):
        if not name.startswith("_"):
            setattr(module, name, getattr(torch.cpu, name))
    module.empty_cache = return_freed_memory  # type: ignore[attr-defined]
    for name in ("ipc_collect", "synchronize", "set_device", "reset_peak_memory_stats"):
        setattr(module, name, _nothing)
    for name in ("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved"):
        setattr(module, name, _no_bytes)
    of_torch_cuda = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: torch.device("cpu"),
        "get_device_name": lambda *_args: "cpu",
        "manual_seed": torch.manual_seed,
        "manual_seed_all": torch.manual_seed,
        "get_rng_state": lambda *_args: torch.get_rng_state(),
        "set_rng_state": lambda state, *_args: torch.set_rng_state(state),
        "mem_get_info": lambda *_args: (psutil.virtual_memory().available, psutil.virtual_memory().total),
    }
    for name, function in of_torch_cuda.items():
        setattr(module, name, function)
    return module


@PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformBase):
    """CPU as a verl platform; chosen by `VERL_PLATFORM=cpu`, or by verl itself where no accelerator is found.

    Ray schedules verl's workers by accelerator. Here the accelerators are *logical*: the resource is called "GPU" and
    Ray is started with that many of them (`ray_kwargs.ray_init.num_gpus=N`, N training processes).
    """

    _module = _cpu_device_module()

    @property
    def device_name(self) -> str:
        return "cpu"

    @property
    def vendor_name(self) -> str:
        return "generic"

    @property
    def device_module(self) -> types.ModuleType:
        return self._module

    def is_available(self) -> bool:
        return True

    def current_device(self) -> torch.device:
        # verl passes this to Tensor.to() and device_mesh code; an index such as 0 would mean cuda:0 there.
        return torch.device("cpu")

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        return None

    def synchronize(self, device_index: int | None = None) -> None:
        return None

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        return None

    def empty_cache(self) -> None:
        return_freed_memory()

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextlib.contextmanager
    def nvtx_range(self, msg: str):
        yield

    def profiler_start(self) -> None:
        return None

    def profiler_stop(self) -> None:
        return None

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        # False selects the shared-memory bucket for the weight sync, the only transport two CPU processes share.
        return False

    def cudart(self) -> None:
        return None
