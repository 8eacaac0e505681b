# SPDX-License-Identifier: Apache-2.0
"""verl's FSDP engines on CPU. Importing this module registers them for the device "cpu"."""

from __future__ import annotations

from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead, FSDPEngineWithValueHead

import verl_plugins.cpu.attention  # noqa: F401  (a faster backward pass)
from verl_plugins.batching import MicroBatchMixin
from verl_plugins.fsdp import ExactBuffersMixin, ReferenceOnDeviceMixin, WholeWeightsMixin
from verl_plugins.learning_rate import WarmUpMixin
from verl_plugins.reply_logits import RepliesMixin
from verl_plugins.value_features import ValueFeaturesMixin
from verl_plugins.value_model import build_value_module

BACKENDS = ["fsdp2"]


class CPUEngineMixin(WholeWeightsMixin, MicroBatchMixin, ReferenceOnDeviceMixin, WarmUpMixin):
    """Put before a verl FSDP engine class."""


@EngineRegistry.register(model_type="language_model", backend=BACKENDS, device="cpu")
class CPUFSDPEngineWithLMHead(
    ValueFeaturesMixin, CPUEngineMixin, ExactBuffersMixin, RepliesMixin, FSDPEngineWithLMHead
):
    """Policy and reference policy, with logits of the replies only (see `verl_plugins.reply_logits` for why)."""


@EngineRegistry.register(model_type="value_model", backend=BACKENDS, device="cpu")
class CPUFSDPEngineWithValueHead(CPUEngineMixin, FSDPEngineWithValueHead):
    """Scalar critic. verl's own loader requests flash_attention_2, which does not exist on CPU."""

    def _build_module(self):
        return build_value_module(self.model_config, self.engine_config, num_labels=1)
