# SPDX-License-Identifier: Apache-2.0
"""What verl's FSDP engines do to a model's weights, corrected: buffers stay exact, a reference stays on its device, and
weights that are kept whole are copied once for each batch.

Mixins to put before an engine class. Registers nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule
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


class WholeWeightsMixin:
    """With `reshard_after_forward=false` the whole weights stay from the first micro-batch of a batch to its last.

    FSDP2 alone keeps them from the forward to the backward pass, and copies them again for the next micro-batch. In one
    process that is a copy of all weights in each micro-batch, for nothing.
    """

    @contextlib.contextmanager
    def _gradient_sync_context(self, *, is_last_micro_batch: bool) -> Iterator[None]:
        if self._keeps_whole:
            self.module.set_reshard_after_backward(is_last_micro_batch)  # type: ignore[attr-defined]
        with super()._gradient_sync_context(is_last_micro_batch=is_last_micro_batch):  # type: ignore[misc]
            yield

    @property
    def _keeps_whole(self) -> bool:
        whole = not self.engine_config.reshard_after_forward  # type: ignore[attr-defined]
        return whole and isinstance(self.module, FSDPModule)  # type: ignore[attr-defined]

    def forward_backward_batch(self, *args, **kwargs):
        try:
            return super().forward_backward_batch(*args, **kwargs)
        finally:
            # Whoever reads or changes the weights next finds the parts that the optimizer knows
            if self._keeps_whole:
                for module in self.module.modules():
                    if isinstance(module, FSDPModule):
                        module.reshard()
