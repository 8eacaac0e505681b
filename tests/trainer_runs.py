# SPDX-License-Identifier: Apache-2.0
"""Starts a training as a user does, in a separate process, and reads what it leaves. All test folders use it."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Run:
    """What a training left when it ended. Later starts in the same folder change the files, not this.

    Attributes:
        folder: the run's folder.
        printed: everything that it printed.
        metrics: the rows of metrics.jsonl by step.
        status: the contents of status.json.
        checkpoints: names of the files and folders of each saved step, by step.
        pointer: the step that verl's tracker file names; None without checkpoints.
        files: the contents of metrics.jsonl and config.yaml.
    """

    folder: Path
    printed: str
    metrics: dict[int, dict]
    status: dict[str, Any]
    checkpoints: dict[int, set[str]]
    pointer: int | None
    files: dict[str, bytes]

    @classmethod
    def of(cls, folder: Path, printed: str) -> Run:
        """Read the folder of a run that has ended."""
        rows = read_json_lines(folder / "metrics.jsonl")
        metrics = {row["step"]: row for row in rows}
        assert len(metrics) == len(rows), "a step is logged twice"
        saved = (folder / "checkpoints").glob("global_step_*")
        tracker = folder / "checkpoints" / "latest_checkpointed_iteration.txt"
        return cls(
            folder,
            printed,
            metrics,
            json.loads((folder / "status.json").read_text(encoding="utf-8")),
            {int(step.name.rpartition("_")[2]): {path.name for path in step.iterdir()} for step in saved},
            int(tracker.read_text()) if tracker.exists() else None,
            {name: (folder / name).read_bytes() for name in ("metrics.jsonl", "config.yaml")},
        )

    def episodes(self, split: str, step: int) -> list[dict]:
        """The recorded episodes of a step."""
        return read_json_lines(self.folder / "episodes" / f"{split}_{step:06d}.jsonl")

    @cached_property
    def config(self) -> DictConfig:
        """The configuration that the run used."""
        return OmegaConf.create(self.files["config.yaml"].decode())


def module_command(module: str, *arguments: str) -> list[str]:
    """`python -m module arguments` with the interpreter of the tests."""
    return [sys.executable, "-m", module, *arguments]


def script_command(script: str, *arguments: str) -> list[str]:
    """A script of example_scripts, as a user types it."""
    return ["bash", str(REPOSITORY / "example_scripts" / script), *arguments]


def overrides(settings: Mapping[str, Any]) -> list[str]:
    """Hydra overrides from a table of keys and values."""
    return [f"{key}={value}" for key, value in settings.items()]


def run_command(
    command: list[str],
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    cwd: Path = REPOSITORY,
    timeout_s: int = 600,
    interrupt_when: Callable[[], bool] | None = None,
    accident: Callable[[subprocess.Popen], object] = lambda process: process.send_signal(signal.SIGINT),
    exit_code: int | None = None,
) -> str:
    """Run a command and return everything that it printed.

    The environment's interpreter comes first in PATH, so that the scripts use it and install nothing.

    Args:
        command: see `module_command` and `script_command`.
        log: receives what the command prints.
        environment: variables to add to those of the tests.
        cwd: where it runs.
        timeout_s: it is killed, with all that it started, after so many seconds.
        interrupt_when: interrupt the command (Ctrl-C) as soon as this is true. It must then end with an error within
            60 seconds.
        accident: what happens then, instead of Ctrl-C.
        exit_code: of the error; None: any.

    Raises:
        AssertionError: it failed (with `interrupt_when`: it succeeded), or took too long. Ends with its last output.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with open(log, "w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            # Ray's processes have the priority of others (its default is 15): unit tests run beside them.
            env={
                **os.environ,
                "VERL_PLATFORM": "cpu",
                "PATH": path,
                "RAY_worker_niceness": "0",
                **(environment or {}),
            },
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # What a shell starts in the background ignores Ctrl-C, and so does everything below it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            if interrupt_when is None:
                code = process.wait(timeout=timeout_s)
            else:
                code = _interrupt(process, interrupt_when, accident, timeout_s)
        except subprocess.TimeoutExpired as late:
            code = f"no exit code after {late.timeout:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    printed = log.read_text(encoding="utf-8", errors="replace")
    has_failed = code != 0
    is_expected = has_failed == (interrupt_when is not None) and not isinstance(code, str)
    if exit_code is not None:
        is_expected = code == exit_code
    assert is_expected, f"{' '.join(command)} ended with {code}:\n{printed[-6000:]}"
    return printed


def _interrupt(
    process: subprocess.Popen,
    when: Callable[[], bool],
    accident: Callable[[subprocess.Popen], object],
    timeout_s: int,
) -> int:
    for _ in range(4 * timeout_s):
        if when():
            accident(process)
            return process.wait(timeout=60)
        try:
            process.wait(timeout=0.25)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(f"{process.args} ended with {process.returncode} before it could be interrupted")
    raise subprocess.TimeoutExpired(process.args, timeout_s)


def train(command: list[str], folder: Path, settings: Mapping[str, Any], **how: Any) -> Run:
    """Run a training and read its folder.

    Args:
        command: what to start; the settings follow as arguments.
        folder: the run's folder. What is printed goes to a file beside it.
        settings: keys and values, without `run_dir`.
        how: as for `run_command`.
    """
    number = len(list(folder.parent.glob(f"{folder.name}-*.txt")))
    log = folder.parent / f"{folder.name}-{number}.txt"
    printed = run_command([*command, *overrides({"run_dir": folder, **settings})], log, **how)
    return Run.of(folder, printed)


def read_json_lines(path: Path) -> list[dict]:
    """The objects of a .jsonl file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def assert_policies_agree(metrics: dict) -> None:
    """vLLM's policy is the trainer's policy: what every bug of the weight sync, the masks or the tokens would break."""
    assert metrics["training/rollout_probs_diff_max"] < 1e-5
    assert metrics["training/rollout_probs_diff_valid"] == 1.0


def assert_finite(metrics: dict, *names: str) -> None:
    """The named metrics exist and are numbers."""
    for name in names:
        assert metrics[name] is not None and math.isfinite(metrics[name]), f"{name} = {metrics[name]}"
