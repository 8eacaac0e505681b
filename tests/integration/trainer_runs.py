# SPDX-License-Identifier: Apache-2.0
"""Starts a training as a user does, in a process of its own, and reads what it leaves."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def run_module(module: str, arguments: list[str], environment: dict[str, str], log: Path, timeout_s: int = 600) -> str:
    """Run `python -m module arguments` and return everything it printed.

    Raises:
        AssertionError: it failed or took longer than `timeout_s`; with the end of what it printed.
    """
    with open(log, "w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=REPOSITORY,
            env=os.environ | {"VERL_PLATFORM": "cpu"} | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            code = f"no exit code after {timeout_s} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    printed = log.read_text(encoding="utf-8", errors="replace")
    assert code == 0, f"{module} ended with {code}:\n{printed[-6000:]}"
    return printed


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
