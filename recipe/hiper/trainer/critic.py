# SPDX-License-Identifier: Apache-2.0
"""The critic with several value heads: engine, worker and loss.

One backbone, `num_heads` linear heads of its last hidden state:

    three heads   high, low, term            (HiPER's default)
    two heads     high, low                  (the paper's text)
    one head      a value of the prompt      (turn_gae; verl's own gae reads a value at every token)

Per turn up to three values are used, in the order of `ValueSlot`; `values.HEAD_OF_SLOT` says which head each is read
from.
With two heads the value before the switch decision, V(s_t, o_{t-1}), is the low head read at the first response token:
the prompt shows o_{t-1}, so the head sees the sub-goal that would be kept.
"""

from __future__ import annotations

import dataclasses
import types
from pathlib import Path

import torch
from tensordict import TensorDict
from torch import Tensor, nn
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_id
from verl.utils.import_utils import import_external_libs
from verl.utils.metric import AggregationType, Metric
from verl.workers.config import CriticConfig, TrainingWorkerConfig
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithValueHead
from verl.workers.utils.padding import no_padding_2_padding

from recipe.hiper.estimators.values import ValueSlot, read_slots
from recipe.hiper.trainer.transfer import stacked
from verl_plugins.batching import MicroBatchMixin
from verl_plugins.learning_rate import WarmUpMixin
from verl_plugins.seeding import SeededTrainingWorker
from verl_plugins.value_model import build_value_module

MODEL_TYPE = "multi_head_value_model"


def head_fields(num_heads: int) -> list[str]:
    """Names of the fields that carry the heads' values, one per token. A single head is verl's scalar critic."""
    return ["values"] if num_heads == 1 else [f"values_head_{head}" for head in range(num_heads)]


class Float32Heads(nn.Linear):
    """Value heads that stay in float32 for any dtype of the backbone.

    A bf16 value near 10 is rounded to +-0.03, which is as large as the TD errors it is used in. Weights start at zero:
    before anything is learned every value is 0, not a random number.
    """

    def __init__(self, hidden_size: int, num_heads: int):
        super().__init__(hidden_size, num_heads, bias=True, dtype=torch.float32)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        with torch.autocast(device_type=hidden.device.type, enabled=False):
            return nn.functional.linear(hidden.float(), self.weight.float(), self.bias.float())


class MultiHeadValueEngine(WarmUpMixin, FSDPEngineWithValueHead):
    """verl's value engine with several heads. The number of heads is `critic.model.override_config.num_value_heads`."""

    @property
    def num_heads(self) -> int:
        """Heads of this critic."""
        return int(self.model_config.override_config["num_value_heads"])

    def _build_module(self):
        module = build_value_module(self.model_config, self.engine_config, num_labels=self.num_heads)
        module.score = Float32Heads(module.config.hidden_size, self.num_heads)
        return module

    def _build_lora_module(self, module):
        """Adapters for the backbone. The heads are trained in full.

        PEFT would put adapters on the heads too (`all-linear`) and freeze what lies below. FSDP's root unit computes
        adapters in `mixed_precision.param_dtype`: a value of 20 would be off by 0.05 in bf16.
        """
        # verl asks PEFT for a causal language model, whose wrapper looks this method up. It is for generating only.
        module.prepare_inputs_for_generation = None
        parent, name = _find_heads(module)
        heads = getattr(parent, name)
        delattr(parent, name)
        module = super()._build_lora_module(module)
        setattr(parent, name, heads)
        return module

    def _build_fsdp_module(self, module):
        """Shard the backbone as verl does and the heads as a unit of their own that computes in float32.

        Inside verl's root unit the heads would be cast to `mixed_precision.param_dtype` for every forward pass.
        """
        if self.engine_config.strategy != "fsdp2":
            raise ValueError(
                f"critic.strategy={self.engine_config.strategy}: the multi-head critic needs fsdp2. "
                "Try: critic.strategy=fsdp2"
            )
        parent, name = _find_heads(module)
        heads = getattr(parent, name)
        setattr(parent, name, nn.Identity())
        module = super()._build_fsdp_module(module)
        heads.to(get_device_id())
        policy = MixedPrecisionPolicy(param_dtype=torch.float32, reduce_dtype=torch.float32, cast_forward_inputs=True)
        offload = {"offload_policy": CPUOffloadPolicy(pin_memory=True)} if self._uses_fsdp2_cpu_offload_policy else {}
        fully_shard(heads, mesh=self.device_mesh, mp_policy=policy, **offload)
        setattr(parent, name, heads)
        return module

    def save_checkpoint(self, local_path: str, *args, **kwargs) -> None:
        """See `FSDPEngine.save_checkpoint`. With `save_lora_only` verl saves adapters and nothing else: the heads are
        written to a file of their own."""
        super().save_checkpoint(local_path, *args, **kwargs)
        if self._is_lora and self.checkpoint_manager.should_save_lora_only:
            parent, name = _find_heads(self.module)
            torch.save(getattr(parent, name).state_dict(), _shard_file(local_path, "value_heads"))
            torch.distributed.barrier()

    def load_checkpoint(self, local_path: str, *args, **kwargs) -> None:
        """See `FSDPEngine.load_checkpoint`.

        Raises:
            FileNotFoundError: the checkpoint holds adapters only, and no heads.
        """
        super().load_checkpoint(local_path, *args, **kwargs)
        if not self._is_lora or not self.checkpoint_manager.should_load_model:
            return
        saved = torch.load(_shard_file(local_path, "model"), weights_only=False, mmap=True)
        if not self.checkpoint_manager.is_lora_only_state_dict(saved):
            return
        file = _shard_file(local_path, "value_heads")
        if not file.exists():
            raise FileNotFoundError(
                f"{local_path} holds the critic's adapters but not its value heads ({file.name}): its values would be "
                "0. Try: resume from another checkpoint (trainer.resume_mode=resume_path "
                "trainer.resume_from_path=<folder global_step_N>)"
            )
        parent, name = _find_heads(self.module)
        getattr(parent, name).load_state_dict(torch.load(file, weights_only=False))

    def forward_backward_batch(self, data: TensorDict, loss_function, forward_only: bool = False):
        """Count each head's positions over all ranks first, so that the loss can average over the mini-batch."""
        if "value_mask" in data:
            counts = stacked(data["value_mask"]).sum(dim=0).float().to(get_device_id())
            torch.distributed.all_reduce(counts, group=self.get_data_parallel_group())
            tu.assign_non_tensor_data(data, "value_counts", counts.tolist())
        return super().forward_backward_batch(data, loss_function, forward_only=forward_only)

    def prepare_model_outputs(self, output, output_args, micro_batch: TensorDict, logits_processor_func):
        """One field per head, each as verl's scalar critic emits its values."""
        fields = {}
        for head, name in enumerate(head_fields(self.num_heads)):
            head_output = types.SimpleNamespace(logits=output.logits[..., head : head + 1])
            values = super().prepare_model_outputs(head_output, output_args, micro_batch, logits_processor_func)[
                "values"
            ]
            fields[name] = values
        return fields


def _find_heads(module: nn.Module) -> tuple[nn.Module, str]:
    """The module that holds the heads (below PEFT's wrappers, if any) and their name in it."""
    for parent in module.modules():
        for name, child in parent.named_children():
            if isinstance(child, Float32Heads):
                return parent, name
    raise RuntimeError("the critic has no Float32Heads: it was not built by MultiHeadValueEngine._build_module")


def _shard_file(folder: str, content: str) -> Path:
    """This rank's part of a checkpoint, under a name as verl's checkpoint manager forms it."""
    size, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
    return Path(folder) / f"{content}_world_size_{size}_rank_{rank}.pt"


@EngineRegistry.register(model_type=MODEL_TYPE, backend=["fsdp", "fsdp2"], device="cuda")
class CUDAMultiHeadValueEngine(MicroBatchMixin, MultiHeadValueEngine):
    """On GPU."""


class MultiHeadCriticWorker(SeededTrainingWorker):
    """verl's critic worker on the multi-head engine.

    verl's trainer writes the model type "value_model" into the worker's configuration; a type of our own is the one
    place where an engine can be chosen without taking verl's scalar critic away.
    """

    def __init__(self, config: TrainingWorkerConfig):
        # verl imports it where the configuration is made, which for a critic is the trainer's process and not this one.
        import_external_libs(config.model_config.external_lib)
        super().__init__(dataclasses.replace(config, model_type=MODEL_TYPE))


def hierarchical_value_loss(
    config: CriticConfig,
    model_output: dict[str, Tensor],
    data: TensorDict,
    dp_group=None,
    *,
    num_heads: int,
    coefficients: tuple[float, float, float],
) -> tuple[Tensor, dict]:
    """Clipped squared error of each of the three values, averaged over that value's own positions.

    The averages run over the whole mini-batch on all ranks (`value_counts`), so the gradient does not depend on how the
    mini-batch was cut into micro-batches. FSDP averages gradients over ranks, hence the factor `dp_size`.

        L = sum_h c_h / N_h sum_(rows with a target) 1/2 max((v - G)^2, (clip(v, v_old +- eps) - G)^2)

    Args:
        config: verl's critic configuration (`cliprange_value`).
        model_output: the values of each head, by `head_fields`.
        data: `value_low` `[rows]`; `old_values`, `value_targets`, `value_mask` `[rows, 3]`; `value_counts`, `dp_size`.
        dp_group: unused, part of verl's loss signature.
        num_heads: 1, 2 or 3.
        coefficients: weights of the high, low and term losses.
    """
    values_RL = [no_padding_2_padding(model_output[name], data) for name in head_fields(num_heads)]
    device = values_RL[0].device
    values = read_slots(values_RL, stacked(data["value_low"]).to(device).long())
    old, target, mask = (stacked(data[name]).to(device) for name in ("old_values", "value_targets", "value_mask"))
    mask = mask.bool()

    clipped = values.clamp(old - config.cliprange_value, old + config.cliprange_value)
    plain_error, clipped_error = (values - target) ** 2, (clipped - target) ** 2
    error = 0.5 * torch.maximum(plain_error, clipped_error) * mask
    counts = torch.tensor(tu.get_non_tensor_data(data, "value_counts", default=None), device=device)
    loss_per_slot = error.sum(dim=0) / counts.clamp(min=1.0) * data["dp_size"]
    loss = (loss_per_slot * torch.tensor(coefficients, device=device)).sum()

    was_clipped = ((clipped_error > plain_error) & mask).sum(dim=0) / counts.clamp(min=1.0) * data["dp_size"]
    metrics = {}
    for slot in ValueSlot if num_heads > 1 else (ValueSlot.HIGH,):
        name = slot.name.lower()
        metrics[f"critic/vf_loss_{name}"] = Metric(value=loss_per_slot[slot].detach(), aggregation=AggregationType.SUM)
        metrics[f"critic/vf_clipfrac_{name}"] = Metric(
            value=was_clipped[slot].detach(), aggregation=AggregationType.SUM
        )
    return loss, metrics
