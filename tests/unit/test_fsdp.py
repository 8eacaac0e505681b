# SPDX-License-Identifier: Apache-2.0
"""Weights in another precision leave the buffers exact; the reference policy stays on its device where it fits."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from made_config import check, composed
from made_engines import make_engine, one_rank, rows, whole, write_model
from omegaconf import OmegaConf
from torch.distributed.fsdp._fully_shard._fsdp_param_group import FSDPParamGroup
from verl.utils import tensordict_utils as tu
from verl.workers.engine_workers import ActorRolloutRefWorker
from verl.workers.utils.padding import no_padding_2_padding

from agent_system.errors import ConfigError
from recipe.hiper.trainer.cpu_workers import CPUMultiHeadValueEngine
from verl_plugins import fsdp
from verl_plugins.cpu.engines import CPUFSDPEngineWithLMHead, CPUFSDPEngineWithValueHead
from verl_plugins.cuda import workers
from verl_plugins.cuda.memory import reference_fits
from verl_plugins.cuda.workers import CUDAActorRolloutRefWorker
from verl_plugins.packed.engines import PackedFSDPEngineWithLMHead

BF16_WEIGHTS = {"model_dtype": "bf16"}
GIB = 2**30
QWEN = 1_543_714_304
"""Parameters of Qwen2.5-1.5B."""


@pytest.fixture
def model(tmp_path):
    with one_rank(tmp_path):
        yield write_model(tmp_path / "model", rope_theta=1e6)


@pytest.mark.parametrize(
    ("engine_class", "forward_only"),
    [
        (CPUFSDPEngineWithLMHead, True),
        (PackedFSDPEngineWithLMHead, True),
        (PackedFSDPEngineWithLMHead, False),
        (CPUFSDPEngineWithValueHead, False),
        (CPUMultiHeadValueEngine, False),
    ],
)
def test_positions_are_exact_with_weights_in_bf16(model, engine_class, forward_only):
    engine = make_engine(
        engine_class, model, engine=BF16_WEIGHTS | {"forward_only": forward_only}, override={"num_value_heads": 3}
    )
    weights = {p.dtype for name, p in engine.module.named_parameters() if "score" not in name}
    assert weights == {torch.bfloat16}
    frequencies = [buffer for name, buffer in engine.module.named_buffers() if name.endswith("inv_freq")]
    exact = 1e6 ** -(torch.arange(0, 8, 2, dtype=torch.float64) / 8)
    assert frequencies
    for buffer in frequencies:
        assert buffer.dtype == torch.float32
        torch.testing.assert_close(buffer.double(), exact, rtol=1e-6, atol=0)


def test_weights_without_a_dtype_are_verls(model):
    """float32 where they are trained, bf16 in a forward-only engine."""
    for forward_only, dtype in ((False, torch.float32), (True, torch.bfloat16)):
        settings = {"model_dtype": None, "forward_only": forward_only}
        engine = make_engine(CPUFSDPEngineWithLMHead, model, engine=settings)
        assert next(engine.module.parameters()).dtype == dtype


def log_probs(engine) -> torch.Tensor:
    data = rows([(7, 3), (4, 3)])
    with engine.eval_mode():
        output = engine.infer_batch(data, loss_function=None)["model_output"]
    return no_padding_2_padding(output["log_probs"], data)


@pytest.mark.parametrize("engine_class", [PackedFSDPEngineWithLMHead, CPUFSDPEngineWithLMHead])
def test_the_reference_stays_on_its_device(model, engine_class):
    """verl would hold its weights in pinned memory and copy them for every micro-batch."""
    reference = make_engine(engine_class, model, engine={"forward_only": True})
    assert not reference._uses_fsdp2_cpu_offload_policy and reference.engine_config.forward_only
    assert reference.optimizer is None
    policy = make_engine(engine_class, model)
    torch.testing.assert_close(log_probs(reference), log_probs(policy), rtol=0, atol=0)


def mean_loss(model_output, **_) -> tuple[torch.Tensor, dict]:
    return -model_output["log_probs"].values().mean(), {}


def updated(model, engine_class, **settings) -> list[torch.Tensor]:
    """The weights after a pass for log-probabilities and two updates of three micro-batches each."""
    engine = make_engine(engine_class, model, engine=settings)
    packed = engine_class is PackedFSDPEngineWithLMHead
    data = rows([(7, 3), (4, 3), (6, 2)], packed=packed)
    tu.assign_non_tensor(data, max_token_len_per_gpu=10)
    for _ in range(2):
        with engine.eval_mode():
            engine.infer_batch(data, loss_function=None)
        with engine.train_mode():
            engine.train_batch(data, loss_function=mean_loss)
    return [whole(parameter) for parameter in engine.module.parameters()]


@pytest.mark.parametrize("engine_class", [PackedFSDPEngineWithLMHead, CPUFSDPEngineWithLMHead])
def test_whole_weights_are_copied_once_a_batch(model, engine_class, monkeypatch):
    copies = []
    copied = FSDPParamGroup._to_unsharded
    monkeypatch.setattr(FSDPParamGroup, "_to_unsharded", lambda group: copies.append(group) or copied(group))
    groups = 5  # embeddings, two layers, head and the rest
    each_time = updated(model, engine_class, use_no_sync_for_gradient_accumulation=False)
    assert len(copies) > 2 * 2 * 3 * groups
    copies.clear()
    whole_ones = updated(model, engine_class, reshard_after_forward=False, use_no_sync_for_gradient_accumulation=True)
    assert len(copies) == 2 * 2 * groups  # in two passes, twice
    for before, after in zip(each_time, whole_ones, strict=True):
        torch.testing.assert_close(before, after, rtol=0, atol=0)


def test_param_offload_leaves_the_reference_to_verl(monkeypatch):
    seen = []

    class Verls:
        def _build_fsdp_module(self, module):
            seen.append(self.engine_config.forward_only)
            return module

    class Engine(fsdp.ReferenceOnDeviceMixin, Verls):
        def __init__(self, **settings):
            self.engine_config = SimpleNamespace(**settings)

    monkeypatch.setattr(fsdp, "get_device_name", lambda: "cuda")
    for offload in (True, False):
        engine = Engine(forward_only=True, param_offload=offload)
        engine._build_fsdp_module(torch.nn.Identity())
        assert engine.engine_config.forward_only
    Engine(forward_only=False, param_offload=True)._build_fsdp_module(torch.nn.Identity())
    assert seen == [True, False, False]


@pytest.mark.parametrize(
    ("processes", "gpu_gib", "share", "fits"),
    [
        # 1.54e9 x (24 + 4) bytes = 40.3 GiB on one GPU, 10.1 on each of four; 4 GiB are reserved
        (1, 80, 0.6, False),
        (1, 80, 0.44, True),  # 40.3 + 35.2 + 4 = 79.5
        (1, 80, 0.46, False),  # 81.1
        (4, 80, 0.6, True),
        (1, 139.8, 0.6, True),
    ],
)
def test_the_reference_fits_by_hand(processes, gpu_gib, share, fits):
    sizes = dict(processes=processes, gpu_bytes=int(gpu_gib * GIB), rollout_share=share)
    assert reference_fits(QWEN, bytes_per_weight=4, **sizes) is fits


@pytest.mark.parametrize(("configured", "memory", "offloads"), [(None, 2**40, False), (None, 1, True), (True, 1, True)])
def test_the_worker_decides_where_the_configuration_leaves_it_open(tmp_path, monkeypatch, configured, memory, offloads):
    assert composed(profile="gpu").actor_rollout_ref.ref.fsdp_config.param_offload is None
    monkeypatch.setattr(ActorRolloutRefWorker, "init_model", lambda self: None)
    monkeypatch.setattr(workers, "get_torch_device", lambda: SimpleNamespace(mem_get_info=lambda: (0, memory)))
    worker = CUDAActorRolloutRefWorker.__new__(CUDAActorRolloutRefWorker)
    worker.role, worker._world_size = "actor_rollout_ref", 1
    worker.config = OmegaConf.create(
        {
            "model": {"path": str(write_model(tmp_path / "model")), "trust_remote_code": False},
            "rollout": {"gpu_memory_utilization": 0.6},
            "ref": {"fsdp_config": {"param_offload": configured, "model_dtype": "fp32"}},
        }
    )
    worker.init_model()
    assert worker.config.ref.fsdp_config.param_offload is offloads


@pytest.mark.parametrize("key", ["actor_rollout_ref.actor.fsdp_config", "critic.fsdp"])
@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_weights_that_are_trained_stay_in_float32(key, profile):
    """A bf16 weight of 0.02 does not change by steps of 1e-6: 2% of them would move at all."""
    with pytest.raises(ConfigError, match=rf"{key}.model_dtype=bf16: .*Try: {key}.model_dtype=fp32"):
        check(composed(f"{key}.model_dtype=bf16", profile=profile))
    check(composed("actor_rollout_ref.ref.fsdp_config.model_dtype=bf16", profile=profile))
