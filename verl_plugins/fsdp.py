# SPDX-License-Identifier: Apache-2.0
"""What verl's FSDP engines do to a model's weights, corrected: buffers stay exact, and a reference stays on its device.

Mixins to put before an engine class. Registers nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from verl.utils.device import get_device_name
from verl.utils.torch_dtypes import PrecisionType


@contextlib.contextmanager
def setting(config: Any, name: str, value: Any) -> Iterator[None]:
    """Another value of a field meanwhile, of a dataclass of verl that refuses assignments."""
    before = getattr(config, name)
    object.__setattr__(config, name, value)
    try:
        yield
    finally:
        object.__setattr__(config, name, before)


def cast_parameters(module: torch.nn.Module, dtype: torch.dtype) -> None:
    """Cast the parameters and leave the buffers as they are.

    The frequencies of rotary position embeddings are a float32 buffer. Rounded to bf16 they turn the positions: the
    cosine is off by 0.02 at position 100 and by 0.35 at 2,000 (theta 1e6).
    """
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)


class ExactBuffersMixin:
    """Load a model in `model_dtype` without rounding its buffers, which verl casts too."""

    def _build_module(self) -> torch.nn.Module:
        config = self.engine_config  # type: ignore[attr-defined]
        default = "bf16" if config.forward_only else "fp32"  # as verl has it
        dtype = PrecisionType.to_dtype(config.model_dtype or default)
        with setting(config, "model_dtype", "fp32"):
            module: torch.nn.Module = super()._build_module()  # type: ignore[misc]
        cast_parameters(module, dtype)
        return module


class ReferenceOnDeviceMixin:
    """Keep the weights of a forward-only engine (the reference policy) on its device, unless `param_offload` is true.

    For such an engine verl forces `CPUOffloadPolicy(pin_memory=True)`: every micro-batch copies all weights to the GPU,
    6 GB of a model of 1.5B parameters in float32. On CPU there is nothing to offload, and no memory to pin.
    """

    def _build_fsdp_module(self, module: torch.nn.Module) -> torch.nn.Module:
        config = self.engine_config  # type: ignore[attr-defined]
        offloads = config.param_offload and get_device_name() != "cpu"
        with setting(config, "forward_only", config.forward_only and offloads):
            return super()._build_fsdp_module(module)  # type: ignore[misc]
