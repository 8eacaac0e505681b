# SPDX-License-Identifier: Apache-2.0
"""The learning rate: warm-up from 1/N in every engine, and the log shows the rate of the update just made."""

from __future__ import annotations

import pytest
import torch
from made_engines import make_engine, one_rank, rows, whole, write_model
from verl.workers.engine.base import EngineRegistry
from verl.workers.utils.losses import sft_loss

from recipe.hiper.trainer.cpu_workers import CPUMultiHeadValueEngine
from recipe.hiper.trainer.critic import CUDAMultiHeadValueEngine
from verl_plugins.cpu.engines import CPUFSDPEngineWithLMHead, CPUFSDPEngineWithValueHead
from verl_plugins.learning_rate import WarmUpMixin, from_first_step, warm_up_steps
from verl_plugins.packed.engines import PackedFSDPEngineWithLMHead

PEAK = 3e-3


@pytest.fixture
def model(tmp_path):
    with one_rank(tmp_path):
        yield write_model(tmp_path / "model")


def one_step(engine, step: int) -> float:
    """What verl's worker does in a training step; returns what it logs as the learning rate."""
    data = rows([(5, 4), (6, 3)], seed=step)
    with engine.train_mode():
        engine.train_batch(data, loss_function=lambda **batch: sft_loss(None, **batch))
    return engine.lr_scheduler_step()


@pytest.mark.parametrize(
    ("optimizer", "factors"),
    [
        ({"lr_warmup_steps": 3}, [1 / 3, 2 / 3, 1, 1, 1]),
        ({"lr_warmup_steps": 0}, [1, 1, 1, 1, 1]),
        ({"lr_warmup_steps_ratio": 0.2}, [1 / 2, 1, 1, 1, 1]),  # of the 10 steps
        # cosine over the 4 steps after the warm-up: 1/2 (1 + cos(pi k / 4)) for k = 0, 1, 2, 3; the last is not 0
        (
            {"lr_warmup_steps": 2, "lr_scheduler_type": "cosine", "total_training_steps": 6},
            [0.5, 1, 1, 0.8535534, 0.5, 0.1464466],
        ),
    ],
)
def test_the_first_update_learns_and_the_log_shows_the_rate_of_each_update(model, optimizer, factors):
    engine = make_engine(CPUFSDPEngineWithLMHead, model, optimizer={"lr": PEAK, "weight_decay": 0.0} | optimizer)
    used, logged, moved = [], [], []
    for step in range(len(factors)):
        before = {name: whole(parameter) for name, parameter in engine.module.named_parameters()}
        used.append(engine.optimizer.param_groups[0]["lr"])
        logged.append(one_step(engine, step))
        moved.append(max(float((whole(p) - before[name]).abs().max()) for name, p in engine.module.named_parameters()))
    assert used == pytest.approx([PEAK * factor for factor in factors])
    assert logged == used
    # Adam's first update has the size of the learning rate in every element with a gradient.
    assert moved[0] == pytest.approx(used[0], rel=1e-2)


def test_a_resumed_run_continues_the_warm_up(model, tmp_path):
    settings = {"lr": PEAK, "lr_warmup_steps": 4}
    contents = {"save_contents": ["model", "optimizer", "extra"], "load_contents": ["model", "optimizer", "extra"]}
    engine = make_engine(CPUFSDPEngineWithLMHead, model, optimizer=settings, checkpoint=contents)
    one_step(engine, 0)
    engine.save_checkpoint(str(tmp_path / "checkpoint"), global_step=1)
    resumed = make_engine(CPUFSDPEngineWithLMHead, model, optimizer=settings, checkpoint=contents)
    resumed.load_checkpoint(str(tmp_path / "checkpoint"), del_local_after_load=False)
    rates = [one_step(resumed, step) for step in range(1, 5)]
    assert rates == pytest.approx([PEAK * factor for factor in (2 / 4, 3 / 4, 1, 1)])


@pytest.mark.parametrize(
    "engine",
    [
        CPUFSDPEngineWithLMHead,
        CPUFSDPEngineWithValueHead,
        CPUMultiHeadValueEngine,
        CUDAMultiHeadValueEngine,
        PackedFSDPEngineWithLMHead,
    ],
)
def test_every_engine_of_ours_warms_up_alike(engine):
    assert issubclass(engine, WarmUpMixin)
    verls = {cls for backends in EngineRegistry._engines.values() for cls in _classes(backends)}
    assert engine in verls, "registered"
    assert engine.lr_scheduler_step is WarmUpMixin.lr_scheduler_step


def _classes(node) -> list[type]:
    return [node] if isinstance(node, type) else [cls for child in node.values() for cls in _classes(child)]


def test_nothing_changes_after_the_warm_up():
    factor = from_first_step(lambda step: 0.9**step, 2)
    assert [factor(step) for step in range(4)] == [0.5, 1.0, pytest.approx(0.81), pytest.approx(0.729)]
    unchanged = from_first_step(lambda step: 0.9**step, 0)
    assert [unchanged(step) for step in range(2)] == [1.0, 0.9]


def test_a_number_of_steps_wins_over_a_share():
    config = torch.nn.Module()
    config.lr_warmup_steps, config.lr_warmup_steps_ratio, config.total_training_steps = 3, 0.5, 100
    assert warm_up_steps(config) == 3
    config.lr_warmup_steps = -1
    assert warm_up_steps(config) == 50
