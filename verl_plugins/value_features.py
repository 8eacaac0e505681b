# SPDX-License-Identifier: Apache-2.0
"""Hidden states of the policy at the places where a turn's values are read: a mixin for verl's FSDP policy engines.

A critic with a backbone of its own costs a second model, one more forward pass and one more update in every step. The
policy's forward pass for the log-probabilities already computes a description of the same state. This mixin returns it
as one more column of that pass; value heads on it cost next to nothing. Registers nothing.

Notation, shapes in names: _B rows of a micro-batch, 2 places of a row, _F features (hidden size times layers).
"""

from __future__ import annotations

from functools import partial

import torch
from tensordict import TensorDict
from torch import Tensor, nn
from verl.utils import tensordict_utils as tu

DEPTHS = (0.5, 0.75, 1.0)
"""Which decoder layers are read, as shares of the depth. The last layer knows mostly the next token; what a state is
worth stands out more in the middle."""

FLAG, COLUMN = "with_value_features", "value_features"
"""What requests the column in a batch, and its name: float32 `[rows, 2, F]`."""

PLACE = "value_low"
"""Column of the batch: the reply token before which the second place of a row is; the first is before the reply."""


def decoder_layers(module: nn.Module) -> nn.ModuleList:
    """The decoder layers of a transformer, below any wrapper.

    Raises:
        ValueError: there is no list of modules named "layers".
    """
    for name, child in module.named_modules():
        if name.rpartition(".")[2] == "layers" and isinstance(child, nn.ModuleList):
            return child
    raise ValueError(f"{type(module).__name__} has no list of decoder layers. Try: critic.backbone=own")


def hidden_places(micro_batch: TensorDict, width: int | None) -> Tensor:
    """Positions of the hidden states, `[rows, 2]`: before the reply, and before its token number `value_low`.

    Args:
        micro_batch: nested `input_ids` and `responses`; `value_low` `[rows]`.
        width: columns of rows that are padded on the left; None for rows that start in their first column.
    """
    replies_B = micro_batch["responses"].offsets().diff()
    ends_B = torch.full_like(replies_B, width) if width else micro_batch["input_ids"].offsets().diff()
    low = micro_batch[PLACE]
    low_B = torch.stack(list(low.unbind())).reshape(-1) if low.is_nested else low.reshape(-1)
    low_B = torch.minimum(low_B.to(replies_B), replies_B - 1)
    return torch.stack([ends_B - replies_B - 1, ends_B - replies_B - 1 + low_B], dim=1)


class ValueFeaturesMixin:
    """Put before a policy engine."""

    def _build_fsdp_module(self, module):
        module = super()._build_fsdp_module(module)
        self._hidden: dict[int, Tensor] | None = None
        layers = decoder_layers(module)
        for order, depth in enumerate(DEPTHS):
            layers[max(1, round(depth * len(layers))) - 1].register_forward_hook(partial(self._keep_hidden, order))
        return module

    def _keep_hidden(self, order: int, _layer, _inputs, output) -> None:
        if self._hidden is not None:
            self._hidden[order] = output[0] if isinstance(output, tuple) else output

    def prepare_model_inputs(self, micro_batch: TensorDict):
        wanted = tu.get_non_tensor_data(data=micro_batch, key=FLAG, default=False)
        self._hidden = {} if wanted else None
        return super().prepare_model_inputs(micro_batch)  # type: ignore[misc]

    def prepare_model_outputs(self, output, output_args, micro_batch: TensorDict, logits_processor_func):
        outputs = super().prepare_model_outputs(  # type: ignore[misc]
            output, output_args, micro_batch, logits_processor_func
        )
        if self._hidden is not None:
            packed = tu.get_non_tensor_data(data=micro_batch, key="use_remove_padding", default=True)
            outputs[COLUMN] = self._features(micro_batch, packed, aligned_right="reply_labels" in output_args)
            self._hidden = None
        return outputs

    def _features(self, micro_batch: TensorDict, packed: bool, aligned_right: bool) -> Tensor:
        assert self._hidden is not None
        hidden = [self._hidden[order] for order in range(len(DEPTHS))]
        places_B2 = hidden_places(micro_batch, hidden[0].shape[1] if aligned_right else None)
        if packed:
            places_B2 = places_B2 + micro_batch["input_ids"].offsets()[:-1].unsqueeze(1)
            rows_B2 = torch.zeros_like(places_B2)
        else:
            rows_B2 = torch.arange(len(places_B2), device=places_B2.device).unsqueeze(1).expand(-1, 2)
        return torch.cat([layer[rows_B2, places_B2].float() for layer in hidden], dim=-1)
