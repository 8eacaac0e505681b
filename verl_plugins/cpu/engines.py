# SPDX-License-Identifier: Apache-2.0
"""verl's FSDP engines on CPU. Importing this module registers them for the device "cpu"."""

from __future__ import annotations

import contextlib

import torch
from transformers import AutoModelForTokenClassification
from verl.utils.torch_dtypes import PrecisionType
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead, FSDPEngineWithValueHead

BACKENDS = ["fsdp2"]


@contextlib.contextmanager
def _not_forward_only(engine_config):
    """Hide `forward_only` while the module is sharded.

    For a forward-only engine (the reference policy) verl forces `CPUOffloadPolicy(pin_memory=True)`, and pinning
    memory needs an accelerator. On CPU there is nothing to offload anyway.
    """
    before = engine_config.forward_only
    object.__setattr__(engine_config, "forward_only", False)  # the dataclass refuses plain assignment
    try:
        yield
    finally:
        object.__setattr__(engine_config, "forward_only", before)


class CPUEngineMixin:
    """Put before a verl FSDP engine class."""

    def _build_fsdp_module(self, module):
        with _not_forward_only(self.engine_config):
            return super()._build_fsdp_module(module)


@EngineRegistry.register(model_type="language_model", backend=BACKENDS, device="cpu")
class CPUFSDPEngineWithLMHead(CPUEngineMixin, FSDPEngineWithLMHead):
    """Policy and reference policy."""


@EngineRegistry.register(model_type="value_model", backend=BACKENDS, device="cpu")
class CPUFSDPEngineWithValueHead(CPUEngineMixin, FSDPEngineWithValueHead):
    """Scalar critic. verl's own loader asks for flash_attention_2, which does not exist on CPU."""

    def _build_module(self):
        return build_value_module(self.model_config, self.engine_config, num_labels=1)


def build_value_module(model_config, engine_config, num_labels: int) -> torch.nn.Module:
    """A token-classification model whose `num_labels` logits per token are value estimates.

    Attention comes from `model.override_config.attn_implementation` (sdpa where unset), so that the same function
    serves machines with and without flash attention. Dropout is off: values must not be noisy.
    """
    dtype = PrecisionType.to_dtype(engine_config.model_dtype or "fp32")
    config = model_config.hf_config
    config.num_labels = num_labels
    config.classifier_dropout = 0.0
    attention = (model_config.override_config or {}).get("attn_implementation", "sdpa")
    module = AutoModelForTokenClassification.from_pretrained(
        model_config.local_path,
        dtype=dtype,
        config=config,
        attn_implementation=attention,
        trust_remote_code=model_config.trust_remote_code,
    )
    module.to(dtype)
    if model_config.enable_gradient_checkpointing:
        module.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return module
