# SPDX-License-Identifier: Apache-2.0
"""Seeds depend on what they are for, and on nothing else."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_config import composed
from omegaconf import OmegaConf

from agent_system.rollout.environment_registry import FAMILY_NAMES
from agent_system.rollout.seeds import derived_seed
from recipe.hiper.configuration.keys import flat_items
from recipe.hiper.trainer.cpu_workers import CPUMultiHeadCriticWorker
from recipe.hiper.trainer.critic import MultiHeadCriticWorker
from verl_plugins.cpu.workers import CPUActorRolloutRefWorker
from verl_plugins.cuda.workers import CUDAActorRolloutRefWorker
from verl_plugins.seeding import SeededMixin, SeededTrainingWorker, seed_process

PARTS = st.lists(st.integers(0, 10**6), min_size=1, max_size=5)


def test_the_same_on_every_machine():
    assert derived_seed(0, "train", 1, 2, 0) == 6866114794357647288


@given(PARTS, PARTS)
def test_every_part_counts(first, second):
    assert (derived_seed(*first) == derived_seed(*second)) == (first == second)
    assert 0 <= derived_seed(*first) < 2**63


OF_THE_TASKS = ("warm_start.seed", "env.alfworld.generated.seed", "env.webshop.generated.seed")
"""What is played, and the model that a run starts from: runs that differ in `env.seed` share them."""


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
@pytest.mark.parametrize("environment", FAMILY_NAMES)
def test_one_seed_is_every_seed_of_a_run(profile, environment):
    config = composed("env.seed=7", profile=profile, environment=environment)
    values = dict(flat_items(OmegaConf.to_container(config, resolve=True)))
    seeds = {key: value for key, value in values.items() if key.endswith("seed") and key not in OF_THE_TASKS}
    assert len(seeds) >= 9
    assert {key: value for key, value in seeds.items() if value != 7} == {}


def test_a_seed_of_the_user_stays():
    assert composed("env.seed=7", "actor_rollout_ref.rollout.seed=3").actor_rollout_ref.rollout.seed == 3


def test_the_generators_of_the_trainer_follow_the_seed():
    def drawn(seed: int) -> tuple[float, float, float]:
        seed_process(seed)
        return random.random(), float(np.random.random()), float(torch.rand(1))

    assert drawn(7) == drawn(7)
    assert all(first != second for first, second in zip(drawn(7), drawn(8), strict=True))


def test_adapters_of_a_worker_start_from_the_seed():
    """Without it, two runs with the same seed trained different adapters."""

    class Worker:
        def __init__(self, config):
            self.adapter = torch.nn.Linear(3, 2).weight

    class Seeded(SeededMixin, Worker):
        pass

    def adapter(seed: int) -> torch.Tensor:
        return Seeded(SimpleNamespace(engine_config=SimpleNamespace(seed=seed))).adapter

    torch.manual_seed(0)
    first = adapter(7)
    assert torch.equal(adapter(7), first)
    assert not torch.equal(adapter(8), first)


@pytest.mark.parametrize("policy", [CPUActorRolloutRefWorker, CUDAActorRolloutRefWorker])
@pytest.mark.parametrize("critic", [CPUMultiHeadCriticWorker, MultiHeadCriticWorker])
def test_every_training_worker_is_seeded(policy, critic):
    for worker in (policy.actor_worker_cls, policy.ref_worker_cls, critic):
        assert issubclass(worker, SeededTrainingWorker)
