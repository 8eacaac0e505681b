# SPDX-License-Identifier: Apache-2.0
"""Logits of the replies only, for packed rows: a mixin for verl's FSDP policy engines. Registers nothing.

verl computes logits of every position. A turn of an agent is nine tenths prompt, and with a vocabulary of 150,000 the
logits of 32,768 packed positions are 10 GB in bf16 alone. Without the package flash-attn verl also turns them into
log-probabilities one position at a time in a Python loop.
"""

from __future__ import annotations

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from verl.utils import tensordict_utils as tu

CHUNK = 2048
"""Positions whose probabilities of the whole vocabulary exist at a time: 1.2 GB in float32 for 150,000 tokens."""


def wants_replies_only(micro_batch: TensorDict) -> bool:
    """Whether only log-probabilities and entropies of replies are requested."""
    others = ("use_fused_kernels", "calculate_sum_pi_squared", "distillation_use_topk")
    return (
        not any(tu.get_non_tensor_data(data=micro_batch, key=name, default=False) for name in others)
        and "responses" in micro_batch
        and micro_batch["responses"].is_nested
        and micro_batch["position_ids"].dim() == 2
    )


def reply_places(row_bounds: Tensor, replies: Tensor) -> Tensor:
    """Packed positions whose logits are those of reply tokens: each one before a reply token.

    Args:
        row_bounds: `[rows + 1]`, 0 and the end of each packed row; a row ends with its reply.
        replies: `[rows]`, tokens of each reply; fewer than the row's.
    """
    ends = row_bounds[1:].to(replies.dtype)
    first = torch.repeat_interleave(ends - replies - 1 - (replies.cumsum(0) - replies), replies)
    return first + torch.arange(first.numel(), device=first.device)


def log_probs_and_entropy(
    logits_NV: Tensor, labels_N: Tensor, temperature_N: Tensor, *, entropy: bool
) -> tuple[Tensor, ...]:
    """Of the labels and, if requested, of the distributions; in float32, chunk by chunk in the backward pass too."""

    def of_chunk(logits, labels, temperature):
        log_probs = torch.log_softmax(logits.float() / temperature.unsqueeze(-1), dim=-1)
        of_labels = log_probs.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        return (of_labels, -(log_probs.exp() * log_probs).sum(dim=-1)) if entropy else (of_labels,)

    chunks = zip(logits_NV.split(CHUNK), labels_N.split(CHUNK), temperature_N.split(CHUNK), strict=True)
    results = [checkpoint(of_chunk, *chunk, use_reentrant=False) for chunk in chunks]
    return tuple(torch.cat(parts) for parts in zip(*results, strict=True))


class PackedRepliesMixin:
    """Put before verl's FSDP policy engine. Rows with padding, and everything else that verl can do, are left to it."""

    use_ulysses_sp: bool  # of the engine

    def prepare_model_inputs(self, micro_batch: TensorDict):
        model_inputs, output_args = super().prepare_model_inputs(micro_batch)  # type: ignore[misc]
        packed = tu.get_non_tensor_data(data=micro_batch, key="use_remove_padding", default=True)
        if packed and wants_replies_only(micro_batch) and not self.use_ulysses_sp and not output_args["pad_size"]:
            replies = micro_batch["responses"].offsets().diff()
            output_args["reply_places"] = reply_places(micro_batch["input_ids"].offsets(), replies)
            model_inputs["logits_to_keep"] = output_args["reply_places"]
        return model_inputs, output_args

    def prepare_model_outputs(self, output, output_args, micro_batch: TensorDict, logits_processor_func):
        places_N = output_args.get("reply_places")
        if places_N is None:
            return super().prepare_model_outputs(  # type: ignore[misc]
                output, output_args, micro_batch, logits_processor_func
            )
        labels_N = output_args["input_ids_rmpad_rolled"][places_N]
        temperature_N = output_args["temperature_rmpad"][places_N]
        entropy = tu.get_non_tensor_data(data=micro_batch, key="calculate_entropy", default=False)
        outputs = log_probs_and_entropy(output.logits.squeeze(0), labels_N, temperature_N, entropy=entropy)
        results = dict(zip(("log_probs", "entropy"), outputs, strict=False))
        input_ids = micro_batch["input_ids"]
        nothing_T = outputs[0].new_zeros(input_ids.values().shape[0])
        return {
            name: torch.nested.nested_tensor_from_jagged(nothing_T.index_put((places_N,), x_N), input_ids.offsets())
            for name, x_N in results.items()
        }
