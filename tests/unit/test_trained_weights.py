# SPDX-License-Identifier: Apache-2.0
"""A checkpoint is only loaded into what was trained: adapters, precision, number of processes."""

from __future__ import annotations

import pytest
from made_config import composed
from omegaconf import OmegaConf
from test_resume import left, run, start

from agent_system.errors import ConfigError
from recipe.hiper.run_dir.earlier_runs import earlier_run, refuse_other_run, use_evaluation_folder

MODEL = "actor_rollout_ref.model"
TRAINED = (f"{MODEL}.lora_rank=16", f"{MODEL}.lora_alpha=64", "critic.model.lora_rank=8", "critic.model.lora_alpha=16")


def refusal(folder, *overrides, **presets) -> str:
    config = run(folder, *overrides, **presets)
    with pytest.raises(ConfigError) as refused:
        refuse_other_run(config, earlier_run(config))
    return str(refused.value)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (f"{MODEL}.lora_alpha=16", f"{MODEL}.lora_alpha=16, but the weights of that run need {MODEL}.lora_alpha=64"),
        (f"{MODEL}.lora_rank=0", f"{MODEL}.lora_rank=0, but the weights of that run need {MODEL}.lora_rank=16"),
        (f"{MODEL}.target_modules=[q_proj]", f"need {MODEL}.target_modules=all-linear"),
        (f"{MODEL}.exclude_modules=[v_proj]", f"need {MODEL}.exclude_modules=null"),
        (f"{MODEL}.lora_adapter_path=/another", f"need {MODEL}.lora_adapter_path=null"),
        ("critic.model.lora_rank=32", "need critic.model.lora_rank=8"),
        ("critic.model.lora_alpha=32", "need critic.model.lora_alpha=16"),
        ("trainer.n_gpus_per_node=2", "need trainer.n_gpus_per_node=1"),
        ("trainer.nnodes=2", "need trainer.nnodes=1"),
        ("actor_rollout_ref.actor.fsdp_config.fsdp_size=1", "need actor_rollout_ref.actor.fsdp_config.fsdp_size=-1"),
        ("critic.fsdp.model_dtype=bf16", "need critic.fsdp.model_dtype=fp32"),
    ],
)
def test_a_checkpoint_of_other_weights_is_refused(tmp_path, changed, line):
    left(tmp_path / "run", *TRAINED)
    message = refusal(tmp_path / "run", *TRAINED, changed)
    assert line in message and message.count("  - ") == 1


def test_without_the_keys_of_the_adapters_every_one_is_named(tmp_path):
    left(tmp_path / "run", *TRAINED)
    message = refusal(tmp_path / "run")
    assert message.count("  - ") == 3, "the critic's alpha is the usual one"


def test_a_resume_on_another_machine_names_the_gpus_of_the_run(tmp_path):
    """`trainer.n_gpus_per_node` is filled in, so it changes without the user."""
    left(tmp_path / "run", "trainer.n_gpus_per_node=1", profile="gpu")
    message = refusal(tmp_path / "run", "trainer.n_gpus_per_node=4", profile="gpu")
    assert "trainer.n_gpus_per_node=4, but the weights of that run need trainer.n_gpus_per_node=1" in message


def test_what_does_not_change_the_weights_may_change(tmp_path):
    left(tmp_path / "run", "trainer.n_gpus_per_node=4", profile="gpu")
    spread = run(tmp_path / "run", "trainer.nnodes=2", "trainer.n_gpus_per_node=2", profile="gpu")
    refuse_other_run(spread, earlier_run(spread))
    # Without adapters nothing reads their keys; without a critic nothing reads its.
    unread = run(tmp_path / "run", f"{MODEL}.lora_alpha=64", f"{MODEL}.exclude_modules=[v_proj]", profile="gpu")
    refuse_other_run(unread, earlier_run(unread))
    groups = ("algorithm.adv_estimator=grpo", "env.rollout.n=8")
    left(tmp_path / "grpo", *groups)
    critic = run(tmp_path / "grpo", *groups, "critic.model.lora_rank=8")
    refuse_other_run(critic, earlier_run(critic))


def test_the_same_adapter_under_another_spelling(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    left(tmp_path / "run", *TRAINED, f"{MODEL}.lora_adapter_path={tmp_path}/adapter")
    config = run(tmp_path / "run", *TRAINED, f"{MODEL}.lora_adapter_path=./adapter")
    refuse_other_run(config, earlier_run(config))


def test_an_evaluation_takes_the_adapters_from_the_run(tmp_path, monkeypatch, capsys):
    left(tmp_path / "run", *TRAINED)
    config = run(tmp_path / "run", "trainer.val_only=true", f"{MODEL}.lora_rank=16")
    start(config, monkeypatch)
    model, critic = config.actor_rollout_ref.model, config.critic.model
    assert (model.lora_rank, model.lora_alpha, critic.lora_rank) == (16, 64, 8)
    printed = capsys.readouterr().err
    assert f"taken from the run: {MODEL}.lora_alpha=64 (instead of 16)" in printed
    assert "critic.model.lora_rank=8 (instead of 0)" in printed and f"{MODEL}.lora_rank" not in printed


def test_an_evaluation_uses_as_many_processes_as_the_run(tmp_path, monkeypatch):
    monkeypatch.delenv("VERL_PLATFORM")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    left(tmp_path / "run", "trainer.n_gpus_per_node=2", profile="gpu")
    config = run(tmp_path / "run", "trainer.val_only=true", profile="gpu")
    start(config, monkeypatch)
    assert config.trainer.n_gpus_per_node == 2


def test_an_evaluation_on_too_few_gpus_is_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("VERL_PLATFORM")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    left(tmp_path / "run", "trainer.n_gpus_per_node=4", profile="gpu")
    config = run(tmp_path / "run", "trainer.val_only=true", "trainer.n_gpus_per_node=1", profile="gpu")
    with pytest.raises(ConfigError, match="was written by 4 training processes .*this machine has 1 GPUs"):
        start(config, monkeypatch)


def test_an_evaluation_still_refuses_another_environment(tmp_path):
    left(tmp_path / "run", *TRAINED)
    config = run(tmp_path / "run", "trainer.val_only=true", "env.env_name=alfworld/AlfredTWEnv")
    use_evaluation_folder(config)
    with pytest.raises(ConfigError, match="env.env_name=alfworld/AlfredTWEnv, but that run has"):
        refuse_other_run(config, earlier_run(config))


def test_the_keys_exist():
    """A renamed key of verl's would be compared with nothing."""
    from recipe.hiper.run_dir.trained_weights import ADAPTER_KEYS, ENGINE_KEYS, MODELS, PROCESS_KEYS

    config = composed()
    names = [f"{model}.{name}" for model in MODELS for name in (*ADAPTER_KEYS, "lora_adapter_path")]
    names += [f"{engine}.{name}" for engine in MODELS.values() for name in ENGINE_KEYS]
    missing = object()
    absent = [key for key in (*names, *PROCESS_KEYS) if OmegaConf.select(config, key, default=missing) is missing]
    assert absent == []
