# SPDX-License-Identifier: Apache-2.0
"""The command line: which profile is taken, and what its processes get."""

from __future__ import annotations

import os
import stat

import pytest
from made_config import composed

import recipe.hiper.main
import recipe.hiper.prepare
from agent_system.errors import ConfigError
from recipe.hiper.cli.command_line import run_command
from recipe.hiper.cli.train import train
from recipe.hiper.configuration.hardware import (
    PROFILE_ENVIRONMENT,
    choose_profile,
    count_gpus,
    has_gpu,
    set_process_environment,
)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine without GPU and with an empty environment; returns a function that puts a command on its PATH."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "OMP_NUM_THREADS", *PROFILE_ENVIRONMENT):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", str(tmp_path))

    def add_command(name: str, exit_code: int) -> None:
        command = tmp_path / name
        command.write_text(f"#!/bin/sh\nexit {exit_code}\n")
        command.chmod(command.stat().st_mode | stat.S_IEXEC)

    return add_command


def test_without_a_gpu_the_cpu_profile_and_its_environment(machine):
    assert not has_gpu()
    assert choose_profile(["env.seed=1"]) == ["env.seed=1", "profile=cpu", "model=tiny"]
    # Hydra accepts no override behind an option.
    assert choose_profile(["a=1", "--cfg", "job", "~b"]) == ["a=1", "~b", "profile=cpu", "model=tiny", "--cfg", "job"]
    assert {name: os.environ[name] for name in PROFILE_ENVIRONMENT} == PROFILE_ENVIRONMENT
    assert int(os.environ["OMP_NUM_THREADS"]) >= 1, "Ray would give its workers one thread each"


def test_what_the_user_set_wins(machine, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    choose_profile([])
    assert os.environ["OMP_NUM_THREADS"] == "7" and os.environ["VERL_PLATFORM"] == "cpu"


def test_a_gpu_that_answers_is_taken(machine):
    machine("nvidia-smi", 0)
    assert choose_profile([]) == ["profile=gpu", "model=qwen2.5-1.5b"]
    assert os.environ["VERL_PLATFORM"] == "nvidia"


def test_a_driver_without_a_gpu_is_no_gpu(machine):
    machine("nvidia-smi", 9)
    assert choose_profile([]) == ["profile=cpu", "model=tiny"]


@pytest.mark.parametrize(("given", "platform"), [("cpu", "cpu"), ("gpu", "nvidia")])
def test_the_users_profile_and_model_are_kept(machine, given, platform):
    machine("nvidia-smi", 0)
    arguments = [f"profile={given}", "model=smollm2", "env.seed=1"]
    assert choose_profile(arguments) == arguments
    assert os.environ.get("VERL_PLATFORM") == platform


def test_every_process_gets_the_environment(machine, monkeypatch, tmp_path):
    choose_profile(["profile=cpu"])
    monkeypatch.setenv("HIPER_CACHE", "somewhere")
    monkeypatch.chdir(tmp_path)
    config = composed("run_dir=here", "trainer.logger=[tensorboard,wandb]")
    set_process_environment(config)
    forwarded = config.ray_kwargs.ray_init.runtime_env.env_vars
    assert {name: forwarded[name] for name in PROFILE_ENVIRONMENT} == PROFILE_ENVIRONMENT
    assert forwarded["HIPER_CACHE"] == "somewhere" and int(forwarded["OMP_NUM_THREADS"]) >= 1
    assert config.run_dir == str(tmp_path / "here")
    assert forwarded["TENSORBOARD_DIR"] == str(tmp_path / "here" / "tensorboard")
    # Without a key wandb would ask on a terminal that the user does not see.
    assert forwarded["WANDB_MODE"] == "offline"


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (2, "trainer.n_gpus_per_node=99, but this machine has 2 GPUs. Try: trainer.n_gpus_per_node=2, or profile=cpu"),
        (0, "sees no GPU on this machine .*Try: profile=cpu"),
    ],
)
def test_more_gpus_than_there_are(machine, monkeypatch, found, message):
    monkeypatch.setattr("torch.cuda.device_count", lambda: found)
    config = composed("trainer.n_gpus_per_node=99", profile="gpu")
    with pytest.raises(ConfigError, match=message):
        count_gpus(config)


def test_the_cpu_platform_is_refused_with_the_gpu_profile(machine, monkeypatch):
    """A left-over of a CPU run: verl would start CPU workers around CUDA engines."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("VERL_PLATFORM", "CPU")
    with pytest.raises(ConfigError, match=r"VERL_PLATFORM=cpu is set .* Try: unset VERL_PLATFORM, or profile=cpu"):
        count_gpus(composed(profile="gpu"))
    count_gpus(composed())


def test_the_platform_reaches_every_process_of_a_gpu_run(machine, tmp_path):
    choose_profile(["profile=gpu"])
    config = composed(f"run_dir={tmp_path}", profile="gpu")
    set_process_environment(config)
    assert config.ray_kwargs.ray_init.runtime_env.env_vars.VERL_PLATFORM == "nvidia"


def test_the_gpus_are_counted(machine, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    config = composed(profile="gpu")
    config.trainer.n_gpus_per_node = None
    count_gpus(config)
    assert config.trainer.n_gpus_per_node == 2
    config.trainer.n_gpus_per_node = "many"
    count_gpus(config)  # a value of the wrong type is reported with all other problems
    assert config.trainer.n_gpus_per_node == "many"


@pytest.mark.parametrize("module", [recipe.hiper.main, recipe.hiper.prepare])
def test_help_says_what_the_command_does(machine, monkeypatch, capsys, module):
    monkeypatch.setattr("sys.argv", ["python", "env.seed=1", "--help"])
    module.main()
    printed = capsys.readouterr().out
    assert printed.startswith(f"python -m {module.__name__}: ")
    assert f"  python -m {module.__name__} run_dir=outputs/mine " in printed and "--cfg job" in printed


def test_ctrl_c_before_the_run_is_one_line(machine, monkeypatch, capsys):
    def interrupt(config):
        raise KeyboardInterrupt

    monkeypatch.setattr("sys.argv", ["python", "profile=cpu"])
    with pytest.raises(SystemExit) as ended:
        run_command(interrupt, "python -m some: thing")
    assert ended.value.code == 130 and "interrupted. The same command continues" in capsys.readouterr().err


@pytest.mark.parametrize("typed", ["env.max_steps=0", "run_dir=null", "trainer.logger=null", "trainer.val_only=maybe"])
def test_nothing_is_created_before_the_configuration_is_right(tmp_path, monkeypatch, typed):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"(?s)1 problem.*Try: "):
        train(composed(f"run_dir={tmp_path / 'run'}", typed))
    assert list(tmp_path.iterdir()) == []
