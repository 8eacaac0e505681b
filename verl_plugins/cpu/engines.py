# SPDX-License-Identifier: Apache-2.0
"""verl's FSDP engines on CPU. Importing this module registers them for the device "cpu"."""

from __future__ import annotations

import contextlib

import torch
import torch.nn.functional as F
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.torch_functional import entropy_from_logits
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead, FSDPEngineWithValueHead

from verl_plugins.batching import align_right, rows_of_similar_length
from verl_plugins.learning_rate import WarmUpMixin
from verl_plugins.reply_logits import PackedRepliesMixin, wants_replies_only
from verl_plugins.value_model import build_value_module

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


class CPUEngineMixin(WarmUpMixin):
    """Put before a verl FSDP engine class."""

    def _build_fsdp_module(self, module):
        with _not_forward_only(self.engine_config):
            return super()._build_fsdp_module(module)

    def forward_backward_batch(self, data: TensorDict, loss_function, forward_only: bool = False):
        with rows_of_similar_length():
            return super().forward_backward_batch(  # type: ignore[misc]
                data, loss_function, forward_only=forward_only
            )


@EngineRegistry.register(model_type="language_model", backend=BACKENDS, device="cpu")
class CPUFSDPEngineWithLMHead(CPUEngineMixin, PackedRepliesMixin, FSDPEngineWithLMHead):
    """Policy and reference policy, with logits of the replies only (see `verl_plugins.reply_logits` for why).

    Rows that are not packed are padded on the left, so that all replies end in the last column, and the model is asked
    for its last columns only (`logits_to_keep`).
    """

    def prepare_model_inputs(self, micro_batch: TensorDict):
        model_inputs, output_args = super().prepare_model_inputs(micro_batch)
        packed = tu.get_non_tensor_data(data=micro_batch, key="use_remove_padding", default=True)
        if packed or not wants_replies_only(micro_batch):
            return model_inputs, output_args
        lengths_B = micro_batch["input_ids"].offsets().diff()
        pad = tu.get_non_tensor_data(data=micro_batch, key="pad_token_id", default=0)
        input_ids_BL = align_right(model_inputs["input_ids"], lengths_B, pad)
        # Every reply token and the one before the first, whose logits are the first reply token's.
        kept = int(micro_batch["responses"].offsets().diff().max()) + 1
        model_inputs["input_ids"] = input_ids_BL
        model_inputs["position_ids"] = align_right(model_inputs["position_ids"], lengths_B)
        model_inputs["attention_mask"] = align_right(model_inputs["attention_mask"], lengths_B)
        model_inputs["logits_to_keep"] = kept
        output_args["reply_labels"] = input_ids_BL[:, 1 - kept :]
        return model_inputs, output_args

    def prepare_model_outputs(self, output, output_args, micro_batch: TensorDict, logits_processor_func):
        if "reply_labels" not in output_args:
            return super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func)
        labels_BR = output_args["reply_labels"]
        logits_BRV = output.logits[:, :-1] / output_args["temperature"].view(-1, 1, 1)
        cross_entropy_N = F.cross_entropy(logits_BRV.flatten(0, 1), labels_BR.flatten(), reduction="none")
        log_probs_BR = -cross_entropy_N.view_as(labels_BR)
        model_output = {"log_probs": _over_whole_rows(log_probs_BR, micro_batch["input_ids"])}
        if tu.get_non_tensor_data(data=micro_batch, key="calculate_entropy", default=False):
            model_output["entropy"] = _over_whole_rows(entropy_from_logits(logits_BRV), micro_batch["input_ids"])
        return model_output


def _over_whole_rows(replies_BR: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
    """Lay per-token results out as verl expects them: one per token of the row, at the place before the token it is of.

    Args:
        replies_BR: results for the last R tokens of each row.
        input_ids: nested, the rows.

    Returns:
        Nested, in the shape of `input_ids`; 0 where nothing was computed.
    """
    offsets = input_ids.offsets()  # type: ignore[attr-defined]  # a nested tensor
    lengths_B = offsets.diff()
    longest = int(lengths_B.max())
    columns_L = torch.arange(longest, device=replies_BR.device)
    in_row_BL = columns_L >= (longest - lengths_B).unsqueeze(1)
    whole_BL = F.pad(replies_BR, (longest - 1 - replies_BR.shape[1], 1))
    return torch.nested.nested_tensor_from_jagged(whole_BL[in_row_BL], offsets)


@EngineRegistry.register(model_type="value_model", backend=BACKENDS, device="cpu")
class CPUFSDPEngineWithValueHead(CPUEngineMixin, FSDPEngineWithValueHead):
    """Scalar critic. verl's own loader requests flash_attention_2, which does not exist on CPU."""

    def _build_module(self):
        return build_value_module(self.model_config, self.engine_config, num_labels=1)
