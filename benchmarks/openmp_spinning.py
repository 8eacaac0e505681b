# SPDX-License-Identifier: Apache-2.0
"""How long a training step takes for values of GOMP_SPINCOUNT, alone and beside a second training on the same cores.

    python benchmarks/openmp_spinning.py

A thread of GNU OpenMP that waits for the others spins this often before it sleeps. Where two programs share the cores,
a thread that spins keeps those from running that it waits for. Prints seconds per step (the median of `--repeats`) and
the ratio to OpenMP's default, alone and with two processes side by side.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

from machine import describe

STEP = """
import sys, time, torch
from transformers import LlamaConfig, LlamaForCausalLM
torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(
    vocab_size=1000, hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=4))
optimizer = torch.optim.AdamW(model.parameters())
ids = torch.randint(0, 1000, (16, 160))
def step():
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
step()
start, steps = time.perf_counter(), 0
while time.perf_counter() - start < float(sys.argv[1]):
    step()
    steps += 1
print((time.perf_counter() - start) / steps)
"""


def seconds_per_step(spin_count: str, processes: int, seconds: float) -> float:
    """Mean over `processes` trainings that run side by side."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    if spin_count != "default":
        environment["GOMP_SPINCOUNT"] = spin_count
    command = [sys.executable, "-c", STEP, str(seconds)]
    runs = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    printed = [run.communicate()[0] for run in runs]
    if any(run.returncode for run in runs):
        sys.exit("a training failed")
    return statistics.mean(map(float, printed))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", nargs="*", default=["default", "1000", "10000", "100000"])
    parser.add_argument("--seconds", type=float, default=10.0, help="length of one measurement (default: 10)")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each (default: 3)")
    options = parser.parse_args()
    results: dict[tuple[str, int], list[float]] = {}
    for _ in range(options.repeats):
        for processes in (1, 2):
            for count in options.counts:
                seconds = seconds_per_step(count, processes, options.seconds)
                results.setdefault((count, processes), []).append(seconds)
    print(describe("torch"))
    print(f"{'GOMP_SPINCOUNT':>15} {'alone':>10} {'ratio':>6} {'two':>10} {'ratio':>6}   (seconds per step)")
    anchor = [statistics.median(results[options.counts[0], processes]) for processes in (1, 2)]
    for count in options.counts:
        alone, two = (statistics.median(results[count, processes]) for processes in (1, 2))
        print(f"{count:>15} {alone:10.3f} {alone / anchor[0]:6.2f} {two:10.3f} {two / anchor[1]:6.2f}")


if __name__ == "__main__":
    main()
