# SPDX-License-Identifier: Apache-2.0
"""`profile=gpu` without a GPU: the same settings but for the device (benchmarks/gpu/on_cpu.py), on a tiny model."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from omegaconf import OmegaConf
from trainer_runs import REPOSITORY, Run, assert_finite, module_command, train

from recipe.hiper.configuration.keys import flat_items

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
    "actor_rollout_ref.rollout.agent.num_workers": 2,
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
            timeout_s=900,
        )

    return start


def assert_it_is_the_profile(run: Run, changed: dict) -> None:
    """Every value that the files of `profile=gpu` set was used, but for `changed`: the rehearsal leaves nothing out."""
    folder = REPOSITORY / "recipe" / "hiper" / "config"
    left_out = {key.lstrip("+") for key in changed}
    compared = 0
    for name in ("profile/gpu.yaml", "profile_model/gpu_qwen2.5-1.5b.yaml"):
        for key, value in flat_items(OmegaConf.to_container(OmegaConf.load(folder / name))):
            if key not in left_out and value is not None:  # those are filled in from the machine
                assert OmegaConf.select(run.config, key) == value, key
                compared += 1
    assert compared > 20


def assert_sound(run: Run) -> None:
    """Both steps trained both models, and vLLM in bf16 is the trainer's policy in bf16."""
    assert sorted(run.metrics) == [1, 2]
    for metrics in run.metrics.values():
        losses = [f"critic/vf_loss_{head}" for head in ("high", "low", "term")]
        assert_finite(metrics, *losses, "critic/grad_norm", "actor/pg_loss", "actor/kl_loss")
        assert metrics["actor/grad_norm"] > 0 and metrics["rollout/turns"] == 16
        # bf16 has 8 bits: a probability of 0.5 is known to 0.002.
        assert metrics["training/rollout_probs_diff_valid"] == 1.0
        assert metrics["training/rollout_probs_diff_mean"] < 5e-3
    # A critic that was not loaded would return 0 again.
    assert run.metrics[1]["critic/value_low/mean"] == 0 != run.metrics[2]["critic/value_low/mean"]
    # vLLM's worker answers that there is nothing to free on a CPU; the engine slept and woke up.
    log = "".join(path.read_text(encoding="utf-8") for path in (run.folder / "logs").glob("*.log"))
    assert log.count("sleep mode is not supported on CPU") >= 4


def test_adapters_that_are_merged_for_vllm_on_two_processes_and_resumed(start):
    """Mixed precision, packed rows, gradient checkpointing, an engine that sleeps: see `assert_it_is_the_profile`."""
    settings = {
        "actor_rollout_ref.model.lora_rank": 4,
        "actor_rollout_ref.model.lora_alpha": 32,
        "actor_rollout_ref.model.lora.merge": True,
        "actor_rollout_ref.actor.optim.lr": 3e-2,
        "critic.model.lora_rank": 4,
        "critic.model.lora_alpha": 8,
        "critic.optim.lr": 1e-2,
        "trainer.save_freq": 1,
    }
    start(settings)
    run = start(settings | {"trainer.total_training_steps": 2})
    assert "resuming from the checkpoint of step 1" in run.printed
    assert_it_is_the_profile(run, ON_CPU | SMALL | settings)
    assert_sound(run)
    # The policy has left its reference, the same model without adapters, by much more than bf16 can explain: had vLLM
    # no adapters, or had they been lost in the checkpoint, its probabilities would be as far from the trainer's.
    assert run.metrics[2]["actor/kl_loss"] > 1e-2


@pytest.mark.nightly
def test_all_weights_with_everything_offloaded(start):
    offloads = {
        f"{section}.{what}_offload": True
        for section in ("actor_rollout_ref.actor.fsdp_config", "critic.fsdp")
        for what in ("param", "optimizer")
    }
    settings = offloads | {
        "trainer.total_training_steps": 2,
        "trainer.save_freq": 1,
        "actor_rollout_ref.actor.optim.lr": 1e-3,
        "critic.optim.lr": 1e-3,
    }
    run = start(settings)
    assert_it_is_the_profile(run, ON_CPU | SMALL | settings)
    assert_sound(run)
    # The reference is a model of its own, which keeps the first weights.
    assert run.metrics[2]["actor/kl_loss"] > 1e-5
