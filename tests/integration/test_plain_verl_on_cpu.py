# SPDX-License-Identifier: Apache-2.0
"""Published verl on CPU through the plugin alone: plain PPO, nothing of HiPER."""

from __future__ import annotations

import pandas
import pytest
from trainer_runs import (
    assert_finite,
    assert_policies_agree,
    module_command,
    overrides,
    read_json_lines,
    run_command,
)

pytestmark = [pytest.mark.nightly, pytest.mark.engine]

REWARD = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return float(ground_truth in solution_str)
"""


def make_prompts(path, number: int) -> None:
    rows = [
        {
            "data_source": "words",
            "prompt": [{"role": "user", "content": f"say something about number {index}"}],
            "ability": "writing",
            "reward_model": {"style": "rule", "ground_truth": "look"},
            "extra_info": {"index": index},
        }
        for index in range(number)
    ]
    pandas.DataFrame(rows).to_parquet(path)


def test_two_steps_of_ppo(tiny_model, tmp_path):
    make_prompts(tmp_path / "train.parquet", 16)
    make_prompts(tmp_path / "val.parquet", 8)
    (tmp_path / "reward.py").write_text(REWARD)
    sizes = {
        "actor_rollout_ref.rollout.name": "vllm",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": 4,
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": 4,
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": 4,
        "critic.ppo_micro_batch_size_per_gpu": 4,
        "actor_rollout_ref.actor.ppo_mini_batch_size": 4,
        "data.train_batch_size": 8,
        "data.max_prompt_length": 48,
        "data.max_response_length": 16,
        "data.dataloader_num_workers": 0,
        "actor_rollout_ref.rollout.max_model_len": 64,
        "actor_rollout_ref.rollout.max_num_batched_tokens": 512,
        "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes": 16,
        "transfer_queue.backend.SimpleStorage.num_data_storage_units": 1,
    }
    command = module_command(
        "verl_plugins.cpu.main_ppo",
        f"data.train_files={tmp_path / 'train.parquet'}",
        f"data.val_files={tmp_path / 'val.parquet'}",
        f"actor_rollout_ref.model.path={tiny_model}",
        f"critic.model.path={tiny_model}",
        f"reward.custom_reward_function.path={tmp_path / 'reward.py'}",
        f"trainer.default_local_dir={tmp_path / 'checkpoints'}",
        "trainer.logger=[file]",
        "trainer.total_training_steps=2",
        "trainer.test_freq=2",
        "trainer.save_freq=-1",
        "actor_rollout_ref.actor.use_kl_loss=True",
        "actor_rollout_ref.actor.optim.lr=1e-3",  # large, so that a sync that does nothing is seen at step 2
        *overrides(sizes),
    )
    run_command(command, tmp_path / "log.txt", environment={"VERL_FILE_LOGGER_PATH": str(tmp_path / "metrics.jsonl")})
    rows = {row["step"]: row["data"] for row in read_json_lines(tmp_path / "metrics.jsonl")}
    for step in (1, 2):
        assert_policies_agree(rows[step])
        assert_finite(rows[step], "actor/pg_loss", "actor/kl_loss", "critic/vf_loss", "critic/grad_norm")
        assert rows[step]["actor/grad_norm"] > 0
    assert 0.0 <= rows[2]["val-core/words/acc/mean@1"] <= 1.0
