# SPDX-License-Identifier: Apache-2.0
"""Logits of the replies only: a mixin for verl's FSDP policy engines. Registers nothing.

verl computes logits of every position. A turn of an agent is nine tenths prompt, and with a vocabulary of 150,000 the
logits of 32,768 packed positions are 10 GB in bf16 alone. Without the package flash-attn verl also turns them into
log-probabilities one position at a time in a Python loop.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from tensordict import TensorDict
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from verl.utils import tensordict_utils as tu
from verl.utils.torch_functional import entropy_from_logits

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


def align_right(padded_BL: Tensor, lengths_B: Tensor, fill: int = 0) -> Tensor:
    """Move rows `[B, L]` that are padded on the right to the right end, so that all of them end in the last column."""
    columns_L = torch.arange(padded_BL.shape[1], device=padded_BL.device)
    source_BL = columns_L - (padded_BL.shape[1] - lengths_B).unsqueeze(1)
    return padded_BL.gather(1, source_BL.clamp(min=0)).masked_fill(source_BL < 0, fill)


def _over_whole_rows(replies_BR: Tensor, input_ids: Tensor) -> Tensor:
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


class RepliesMixin:
    """Put before verl's FSDP policy engine. Everything but replies alone is left to it.

    The model is asked for the positions before reply tokens only (`logits_to_keep`). Rows that are not packed are
    padded on the left for that, so that all replies end in the last column.
    """

    use_ulysses_sp: bool  # of the engine

    def prepare_model_inputs(self, micro_batch: TensorDict):
        model_inputs, output_args = super().prepare_model_inputs(micro_batch)  # type: ignore[misc]
        if wants_replies_only(micro_batch) and not self.use_ulysses_sp:
            if not tu.get_non_tensor_data(data=micro_batch, key="use_remove_padding", default=True):
                self._ask_for_last_columns(micro_batch, model_inputs, output_args)
            elif not output_args["pad_size"]:
                replies = micro_batch["responses"].offsets().diff()
                output_args["reply_places"] = reply_places(micro_batch["input_ids"].offsets(), replies)
                model_inputs["logits_to_keep"] = output_args["reply_places"]
        return model_inputs, output_args

    @staticmethod
    def _ask_for_last_columns(micro_batch: TensorDict, model_inputs: dict, output_args: dict) -> None:
        lengths_B = micro_batch["input_ids"].offsets().diff()
        pad = tu.get_non_tensor_data(data=micro_batch, key="pad_token_id", default=0)
        for name, fill in (("input_ids", pad), ("position_ids", 0), ("attention_mask", 0)):
            model_inputs[name] = align_right(model_inputs[name], lengths_B, fill)
        # Every reply token and the one before the first, whose logits are the first reply token's.
        kept = int(micro_batch["responses"].offsets().diff().max()) + 1
        model_inputs["logits_to_keep"] = kept
        output_args["reply_labels"] = model_inputs["input_ids"][:, 1 - kept :]

    def prepare_model_outputs(self, output, output_args, micro_batch: TensorDict, logits_processor_func):
        entropy = tu.get_non_tensor_data(data=micro_batch, key="calculate_entropy", default=False)
        if "reply_labels" in output_args:
            return _of_padded_rows(output.logits, output_args, micro_batch, entropy=entropy)
        if "reply_places" in output_args:
            return _of_packed_rows(output.logits, output_args, micro_batch, entropy=entropy)
        return super().prepare_model_outputs(  # type: ignore[misc]
            output, output_args, micro_batch, logits_processor_func
        )


def _of_padded_rows(logits_BRV: Tensor, output_args: dict, micro_batch: TensorDict, *, entropy: bool) -> dict:
    labels_BR = output_args["reply_labels"]
    logits_BRV = logits_BRV[:, :-1] / output_args["temperature"].view(-1, 1, 1)
    cross_entropy_N = F.cross_entropy(logits_BRV.flatten(0, 1), labels_BR.flatten(), reduction="none")
    results = {"log_probs": _over_whole_rows(-cross_entropy_N.view_as(labels_BR), micro_batch["input_ids"])}
    if entropy:
        results["entropy"] = _over_whole_rows(entropy_from_logits(logits_BRV), micro_batch["input_ids"])
    return results


def _of_packed_rows(logits_1NV: Tensor, output_args: dict, micro_batch: TensorDict, *, entropy: bool) -> dict:
    places_N = output_args["reply_places"]
    labels_N = output_args["input_ids_rmpad_rolled"][places_N]
    temperature_N = output_args["temperature_rmpad"][places_N]
    outputs = log_probs_and_entropy(logits_1NV.squeeze(0), labels_N, temperature_N, entropy=entropy)
    results = dict(zip(("log_probs", "entropy"), outputs, strict=False))
    input_ids = micro_batch["input_ids"]
    nothing_T = outputs[0].new_zeros(input_ids.values().shape[0])
    return {
        name: torch.nested.nested_tensor_from_jagged(nothing_T.index_put((places_N,), x_N), input_ids.offsets())
        for name, x_N in results.items()
    }
