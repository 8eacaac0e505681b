# SPDX-License-Identifier: Apache-2.0
"""The policy engine with logits of the replies only on NVIDIA GPUs. Importing this module registers it."""

from __future__ import annotations

from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from verl_plugins.batching import MicroBatchMixin
from verl_plugins.fsdp import ExactBuffersMixin, ReferenceOnDeviceMixin, WholeWeightsMixin
from verl_plugins.learning_rate import WarmUpMixin
from verl_plugins.reply_logits import RepliesMixin
from verl_plugins.value_features import ValueFeaturesMixin


# verl's own engine is registered for every vendor; an entry for one vendor has priority.
@EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cuda", vendor="nvidia")
class PackedFSDPEngineWithLMHead(
    ValueFeaturesMixin,
    WholeWeightsMixin,
    MicroBatchMixin,
    ReferenceOnDeviceMixin,
    WarmUpMixin,
    ExactBuffersMixin,
    RepliesMixin,
    FSDPEngineWithLMHead,
):
    """Policy and reference policy on NVIDIA GPUs, for packed rows and padded ones."""
