# SPDX-License-Identifier: Apache-2.0
"""The model of a critic, loaded without flash attention where there is none. Registers nothing."""

from __future__ import annotations

import torch
from transformers import AutoModelForTokenClassification
from verl.utils.torch_dtypes import PrecisionType

from verl_plugins.fsdp import cast_parameters


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
    cast_parameters(module, dtype)
    if model_config.enable_gradient_checkpointing:
        module.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return module
