# SPDX-License-Identifier: Apache-2.0
"""`profile=gpu` without a GPU: the same settings but for the device (benchmarks/gpu/on_cpu.py), on a tiny model."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from trainer_runs import REPOSITORY, Run, assert_finite, module_command, train

sys.path.insert(0, str(REPOSITORY / "benchmarks" / "gpu"))

from on_cpu import ON_CPU, environment

pytestmark = pytest.mark.engine

SMALL = {
    "profile": "gpu",
    "model": "qwen2.5-1.5b",  # its settings; the weights are the tiny model's
    "env.max_steps": 4,
    "env.val_tasks": 6,
    "data.train_batch_size": 4,
    "data.max_prompt_length": 1800,
    "data.max_response_length": 16,
    "algorithm.updates_per_step": 2,
    "trainer.n_gpus_per_node": 2,
    "trainer.total_training_steps": 1,
    "trainer.test_freq": -1,
    "trainer.val_before_train": False,
    "actor_rollout_ref.rollout.max_num_seqs": 8,
    # the games of `generated_games`
    "env.alfworld.generated.receptacles": "[4,6]",
    "env.alfworld.generated.same_kind": 2,
    "env.alfworld.generated.objects_per_receptacle": 2,
    "env.alfworld.generated.max_instances": 2,
}
"""Sizes only."""


@pytest.fixture
def start(tmp_path, hiper_cache, games_in_a_run, tiny_model) -> Callable[[dict], Run]:
    """Starts, or resumes, a run of `profile=gpu` with everything made small: `start(settings)`."""

    def start(settings: dict) -> Run:
        model = {"actor_rollout_ref.model.path": tiny_model}
        return train(
            module_command("recipe.hiper.main"),
            tmp_path / "run",
            ON_CPU | SMALL | games_in_a_run | model | settings,
            environment=environment() | {"HIPER_CACHE": str(hiper_cache)},
        )

    return start


def test_adapters_that_are_merged_for_vllm_and_resumed(start):
    settings = {
        "actor_rollout_ref.model.lora_rank": 4,
        "actor_rollout_ref.model.lora_alpha": 8,
        "actor_rollout_ref.model.lora.merge": True,
        "critic.model.lora_rank": 4,
        "critic.model.lora_alpha": 8,
        "actor_rollout_ref.actor.optim.lr": 1e-2,
        "trainer.save_freq": 1,
    }
    start(settings)
    run = start(settings | {"trainer.total_training_steps": 2})
    print(run.printed)
    print(run.metrics)
    assert "resuming from the checkpoint of step 1" in run.printed
    assert sorted(run.metrics) == [1, 2]
