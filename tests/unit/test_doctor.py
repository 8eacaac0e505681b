# SPDX-License-Identifier: Apache-2.0
"""The preflight prints the plan of a run and lists every problem at once, on any machine, and starts nothing."""

from __future__ import annotations

import json
import shutil
import socket
from dataclasses import replace

import pytest
import torch
from made_checkpoints import make_checkpoint
from made_config import composed

from agent_system.errors import ConfigError
from recipe.hiper.cli.doctor import doctor
from recipe.hiper.configuration import model as model_checks
from recipe.hiper.preflight.folders import read_folder
from recipe.hiper.preflight.plan import lines


@pytest.fixture(autouse=True)
def no_ray(monkeypatch):
    """A preflight that started Ray would take minutes and hold the machine."""
    monkeypatch.setattr("ray.init", lambda *_, **__: pytest.fail("the preflight starts Ray"))


def report(config, capsys) -> tuple[dict[str, str], list[str]]:
    """The parts of the plan, and the problems."""
    problems = []
    try:
        doctor(config)
    except ConfigError as error:
        problems = [line.removeprefix("  - ") for line in str(error).splitlines()[1:]]
    parts: dict[str, str] = {}
    name = ""
    for line in capsys.readouterr().out.splitlines():
        name = line[:10].strip() or name
        parts[name] = f"{parts.get(name, '')} {line[10:]}".strip()
    return parts, problems


def test_the_cpu_profile(tmp_path, capsys):
    parts, problems = report(composed(f"run_dir={tmp_path / 'run'}"), capsys)
    assert problems == [] and not (tmp_path / "run").exists()
    assert parts["model"] == "the small model, made from demonstrations; trained by 1 process"
    assert parts["method"].startswith("hae, 3 value heads on a model of its own")
    assert "1500 generated ALFWorld games for training, 128 of valid_unseen held out" in parts["tasks"]
    assert parts["episodes"].startswith("64 tasks x 1 = 64 a step, 20 turns at most; up to 128 at once")
    assert parts["updates"] == "at most 1,280 turns a step, each one row; 4 equal mini-batches"
    assert parts["run"].startswith("24 steps from step 0, saved every 6, evaluated every 6")


def test_smollm2_has_a_size_before_it_is_downloaded(tmp_path, capsys):
    parts, problems = report(composed(f"run_dir={tmp_path}", model="smollm2"), capsys)
    assert problems == []
    assert "smollm2, fine-tuned on demonstrations (134.5 million parameters)" in parts["model"]
    assert parts["disk"].startswith("1.61 GB a checkpoint, up to 3 more at a time")
    assert "GB of this machine beside the activations" in parts["memory"]


def test_the_gpu_profile_without_a_gpu(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(model_checks, "_hub_answers", lambda: False)
    parts, problems = report(composed(f"run_dir={tmp_path}", profile="gpu"), capsys)
    assert parts["unchecked"].startswith("GPUs, their memory and driver")
    assert parts["model"] == "Qwen/Qwen2.5-1.5B-Instruct; trained by 4 GPUs"
    assert any("sees no GPU on this machine" in problem for problem in problems)


def test_the_checkpoint_that_the_run_resumes_from(tmp_path, capsys):
    checkpoint = make_checkpoint(tmp_path / "run" / "checkpoints", 12)
    (tmp_path / "run" / "metrics.jsonl").write_text(json.dumps({"step": 12, "prompt_length/max": 201.0}))
    parts, problems = report(composed(f"run_dir={tmp_path / 'run'}"), capsys)
    assert problems == []
    assert (
        parts["run"].startswith(f"24 steps from {checkpoint}")
        and "longest so far in this folder: 201" in (parts["prompts"])
    )


def test_all_problems_at_once(tmp_path, capsys, monkeypatch):
    """Of the model, of Ray, and of the folder."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"  # nobody listens
        monkeypatch.setenv("RAY_ADDRESS", address)
        (tmp_path / "file").write_text("")
        config = composed(
            f"run_dir={tmp_path / 'file' / 'run'}", f"actor_rollout_ref.model.path={tmp_path}/nobody/there"
        )
        with pytest.raises(ConfigError):  # the path alone is a problem of the configuration: no plan
            doctor(config)
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "config.json").write_text('{"model_type": "qwen2"}')
        config.actor_rollout_ref.model.path = str(folder)
        _, problems = report(config, capsys)
    text = "\n".join(problems)
    assert f"actor_rollout_ref.model.path={folder} holds no weights" in text
    assert address in text and "unset RAY_ADDRESS" in text
    assert f"run_dir={tmp_path / 'file' / 'run'}" in text
    assert len(problems) >= 3 and all("Try: " in problem for problem in problems)


def test_wrong_values_and_a_missing_gpu_are_one_list(tmp_path, monkeypatch):
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError) as refused:
        doctor(composed(f"run_dir={tmp_path}", "algorithm.gamma=2", "env.max_steps=0", profile="gpu"))
    message = str(refused.value)
    assert "(3 problems)" in message and "algorithm.gamma=2" in message and "env.max_steps=0" in message


def test_a_folder_with_another_run_is_reported(tmp_path, capsys):
    from recipe.hiper.run_dir.earlier_runs import record_start

    earlier = composed(f"run_dir={tmp_path / 'run'}")
    record_start(earlier)
    make_checkpoint(tmp_path / "run" / "checkpoints", 6)
    _, problems = report(composed(f"run_dir={tmp_path / 'run'}", "algorithm.adv_estimator=turn_gae"), capsys)
    assert any("algorithm.adv_estimator=turn_gae, but that run has hae" in problem for problem in problems)


def test_the_hub_is_not_asked_for_a_minute(tmp_path, monkeypatch):
    monkeypatch.setattr(model_checks, "_hub_answers", lambda: False)
    with pytest.raises(
        ConfigError, match=r"not in the cache of the hub, and the hub does not answer\). Try: warm_start"
    ):
        model_checks.read_model("warm_start.base", "nobody/nothing")


def test_long_parts_are_wrapped_below_their_name():
    text = "word " * 60
    wrapped = list(lines({"run": text}))
    assert len(wrapped) > 1 and all(len(line) <= 116 for line in wrapped)
    assert wrapped[0].startswith("run       word") and wrapped[1].startswith(" " * 10 + "word")
    assert " ".join(line[10:] for line in wrapped) == text.strip()


def test_a_full_disk(tmp_path, capsys, monkeypatch):
    def full(path):
        return replace(read_folder(path), free=10**6)

    monkeypatch.setattr("recipe.hiper.preflight.machine.read_folder", full)
    _, problems = report(composed(f"run_dir={tmp_path}", model="smollm2"), capsys)
    assert any("3 checkpoints of about 1,614 MB" in problem and "1 MB free" in problem for problem in problems)


@pytest.mark.parametrize(
    ("lost", "named"),
    [
        (["model.safetensors"], "holds no weights (model.safetensors"),
        (["tokenizer.json", "tokenizer_config.json"], "holds no tokenizer (tokenizer.json"),
    ],
)
def test_a_model_folder_with_missing_files(tmp_path, tiny_model, lost, named):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    for name in lost:
        (folder / name).unlink()
    with pytest.raises(ConfigError) as refused:
        model_checks.require_model_files("actor_rollout_ref.model.path", str(folder))
    assert named in str(refused.value) and "Try: actor_rollout_ref.model.path=" in str(refused.value)


def test_a_model_folder_with_a_missing_part(tmp_path, tiny_model):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    parts = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    with pytest.raises(ConfigError, match="lacks model-00002-of-00002.safetensors"):
        model_checks.require_model_files("critic.model.path", str(folder))
