# SPDX-License-Identifier: Apache-2.0
"""A user's estimator, with a critic and a bootstrap, in the real trainer: one module on PYTHONPATH and one override."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from trainer_runs import REPOSITORY, Run, assert_finite, assert_policies_agree, module_command, train

pytestmark = pytest.mark.engine

GAMMA = 0.5
MAX_STEPS = 3


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_model, games_in_a_run, hiper_cache) -> Run:
    """Two steps on the smallest generated games; the tiny model wins none of them, so the step limit cuts them all."""
    settings = {
        "profile": "cpu",
        "actor_rollout_ref.model.path": tiny_model,
        "algorithm.adv_estimator": "own_estimator:RETURN_TO_GO",
        "algorithm.gamma": GAMMA,
        "algorithm.hae.bootstrap_truncated": True,
        "algorithm.hae.norm_adv": False,
        "algorithm.inadmissible_penalty": -0.5,
        "algorithm.updates_per_step": 1,
        **games_in_a_run,
        "env.val_tasks": 6,
        "env.max_steps": MAX_STEPS,
        "data.train_batch_size": 4,
        "data.max_prompt_length": 1200,
        "data.max_response_length": 8,  # cuts the last block off, so that every turn has a penalty to learn from
        "critic.optim.lr": 0.01,  # so that the values of the second step differ clearly from 0
        "trainer.critic_warmup": 0,
        "trainer.total_training_steps": 2,
        "trainer.save_freq": -1,
        "trainer.test_freq": -1,
        "trainer.val_before_train": False,
    }
    path = os.pathsep.join(filter(None, (str(REPOSITORY), str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
    environment = {"HIPER_CACHE": str(hiper_cache), "PYTHONPATH": path}
    folder = tmp_path_factory.mktemp("own_estimator") / "run"
    return train(module_command("recipe.hiper.main"), folder, settings, environment=environment)


def test_it_trains_policy_and_critic(run):
    assert sorted(run.metrics) == [1, 2]
    for row in run.metrics.values():
        assert_policies_agree(row)
        assert_finite(row, "actor/pg_loss", "critic/vf_loss_high", "advantage/turn/mean", "advantage/turn/std")
        assert row["actor/grad_norm"] > 0 and row["critic/grad_norm"] > 0
        # One head, and no decision has an advantage of its own.
        assert "critic/vf_loss_low" not in row and "advantage/switch/mean" not in row
    # The heads start at zero: what the critic learned in step 1 is in the values of step 2.
    assert run.metrics[1]["critic/value_high/mean"] == 0 and run.metrics[2]["critic/value_high/mean"] != 0


def test_its_advantages_are_returns_less_values_and_continue_after_the_step_limit(run):
    """Recomputed from the episode file, which has no value of the state after the step limit. The last turn gives it,
    A(last) = r + gamma V' - V(last), and every earlier turn has to agree.
    """
    bootstraps = []
    for episode in run.episodes("train", 2):
        turns = episode["trajectory"]
        assert len(turns) == MAX_STEPS and turns[-1]["truncated"] and not turns[-1]["terminated"]
        last = turns[-1]
        after = (last["advantages"]["action"] + last["values"]["high"] - last["shaped_reward"]) / GAMMA
        bootstraps.append(after)
        rest = after
        for turn in reversed(turns):
            rest = turn["shaped_reward"] + GAMMA * rest
            for decision in ("switch", "action"):
                assert turn["advantages"][decision] == pytest.approx(rest - turn["values"]["high"], abs=1e-5)
    assert all(abs(value) > 1e-4 for value in bootstraps), "the states after the step limit were counted as 0"
