# SPDX-License-Identifier: Apache-2.0
"""Weight sync inside vLLM's CPU worker.

After loading, vLLM-CPU repacks the weights of its linear layers for oneDNN and drops `layer.weight`, so that a second
`model.load_weights` finds nothing to load into. vLLM's own layer-wise reload restores each layer, loads it and repacks
it; verl's extension does not use it.
"""

from __future__ import annotations

import logging

import torch
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension

from verl_plugins.cpu.memory import return_freed_memory
from verl_plugins.cpu.vllm_sampler import skip_unused_noise

logger = logging.getLogger(__name__)

skip_unused_noise()  # vLLM imports this module before it makes its sampler


def repack_output_layers(model: torch.nn.Module) -> None:
    """Repack the output layer from the weights it shares with the input embedding.

    With tied embeddings no weight is ever loaded *into* the output layer, so the layer-wise reload leaves its packed
    copy as it was: logits would be computed from the weights of the first sync forever. Packing again is harmless
    where the layer has weights of its own.
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    for layer in model.modules():
        if isinstance(layer, ParallelLMHead):
            layer.quant_method.process_weights_after_loading(layer)


class CPUWeightSyncExtension(vLLMColocateWorkerExtension):
    """Mixed into vLLM's CPU worker by `CPUvLLMHttpServer`."""

    def update_weights_from_ipc(
        self, peft_config: dict | None = None, base_sync_done: bool = False, use_shm: bool = False
    ):
        """Receive the policy's weights and load them. Signature and meaning are verl's.

        A failure to load does not stop the conversation with the sender: the remaining buckets are taken and
        acknowledged first, so that the trainer sees this error at once and does not wait for its time limit.
        """
        self.device = torch.device("cpu")
        if peft_config and base_sync_done:
            # A LoRA adapter is added beside the base weights; nothing was repacked, so verl's own path is right.
            return super().update_weights_from_ipc(peft_config, base_sync_done, use_shm)
        from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightReceiver
        from vllm.model_executor.model_loader.reload.layerwise import (
            finalize_layerwise_reload,
            initialize_layerwise_reload,
        )

        models = list(self._iter_all_models_with_config())
        for model, _config in models:
            initialize_layerwise_reload(model)
        failure: list[Exception] = []
        loaded = 0

        def load_bucket(weights: list[tuple[str, torch.Tensor]], is_last: bool) -> None:
            nonlocal loaded
            if failure:
                return
            try:
                # The layer-wise loaders keep what they are given until a layer is complete, and the shared-memory
                # bucket is overwritten by then: hand them copies.
                copies = [(name, tensor.clone()) for name, tensor in weights]
                self._update_weights(copies, peft_config=peft_config, base_sync_done=base_sync_done)
                loaded += len(copies)
            except Exception as error:  # re-raised below, after the sender has been answered
                failure.append(error)

        receiver = BucketedWeightReceiver(zmq_handle=self._get_zmq_handle(), device=self.device, use_shm=use_shm)
        receiver.receive_weights(on_bucket_received=load_bucket)
        if failure:
            raise RuntimeError(f"vLLM could not load the policy's weights: {failure[0]}") from failure[0]
        for model, config in models:
            finalize_layerwise_reload(model, config)
            repack_output_layers(model)
        return_freed_memory()  # the copies of the buckets
        logger.info("weight sync: %d tensors loaded", loaded)
