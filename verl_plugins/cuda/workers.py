# SPDX-License-Identifier: Apache-2.0
"""verl's workers on NVIDIA GPUs."""

from __future__ import annotations

import ray
import torch
from omegaconf import open_dict
from transformers import AutoConfig, AutoModelForCausalLM
from verl.single_controller.base.decorator import Dispatch, register
from verl.trainer.ppo.utils import Role
from verl.utils.device import get_torch_device
from verl.utils.torch_dtypes import PrecisionType
from verl.workers.engine_workers import ActorRolloutRefWorker

from verl_plugins.cuda.memory import reference_fits
from verl_plugins.seeding import SeededTrainingWorker
from verl_plugins.weight_sync import WeightSyncMixin


class CUDAActorRolloutRefWorker(WeightSyncMixin, ActorRolloutRefWorker):
    """Policy, reference policy and the sender of the weight sync.

    `ref.fsdp_config.param_offload=null` is decided here: the reference stays on the GPUs where it fits.
    """

    actor_worker_cls = SeededTrainingWorker
    ref_worker_cls = SeededTrainingWorker

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def init_model(self):
        """See `ActorRolloutRefWorker.init_model`."""
        if "ref" in self.role and self.config.ref.fsdp_config.param_offload is None:
            _, gpu_bytes = get_torch_device().mem_get_info()
            with open_dict(self.config.ref.fsdp_config):
                self.config.ref.fsdp_config.param_offload = self._offloads_reference(gpu_bytes)
        return super().init_model()

    def _offloads_reference(self, gpu_bytes: int) -> bool:
        model, rollout = self.config.model, self.config.rollout
        with torch.device("meta"):
            config = AutoConfig.from_pretrained(model.path, trust_remote_code=model.trust_remote_code)
            parameters = AutoModelForCausalLM.from_config(config).num_parameters()
        dtype = PrecisionType.to_dtype(self.config.ref.fsdp_config.model_dtype)
        fits = reference_fits(
            parameters,
            bytes_per_weight=dtype.itemsize,
            processes=self.world_size,
            gpu_bytes=gpu_bytes,
            rollout_share=rollout.gpu_memory_utilization,
        )
        print(f"reference policy: weights {'stay on the GPUs' if fits else 'are kept in the memory of the machine'}")
        return not fits


def cuda_role_workers(role_worker_mapping: dict) -> dict:
    """verl's role-to-worker mapping with the workers that hold a policy replaced; the critic's is unchanged."""
    return {
        role: worker if role == Role.Critic else ray.remote(CUDAActorRolloutRefWorker)
        for role, worker in role_worker_mapping.items()
    }
