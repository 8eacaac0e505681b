# SPDX-License-Identifier: Apache-2.0
"""Writes `report.md` from what benchmarks/gpu/run.sh has so far: `python report.py <output folder> <run folder>`.

Called after each stage. Standard library only, so that it also works where the environment could not be installed.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

STAGES = ("stage", "seconds", "result")
TABLE = "\nrun\n"
"""What training.py prints before the figures of a run."""

COLUMNS = {
    "held-out success": ("val/success_rate", ".3f"),
    "training success": ("rollout/success_rate", ".3f"),
    "well-formed": ("rollout/well_formed_fraction", ".3f"),
    "turns": ("rollout/turns", ".0f"),
    "p(vLLM) - p(trainer), mean": ("training/rollout_probs_diff_mean", ".1e"),
    "generation, s": ("timing_s/gen", ".1f"),
    "critic, s": ("timing_s/update_critic", ".1f"),
    "policy, s": ("timing_s/update_actor", ".1f"),
    "step, s": ("timing_s/step", ".1f"),
}
"""Heading, metric and format of the columns of the reinforcement learning."""


def table(headings: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def learning(rows: list[dict]) -> str:
    """The steps of a run, one a line."""

    def cell(row: dict, key: str, form: str) -> str:
        value = row.get(key)
        return "" if value is None else format(value, form)

    cells = [[str(row["step"]), *(cell(row, key, form) for key, form in COLUMNS.values())] for row in rows]
    return table(["step", *COLUMNS], cells)


def report(out: Path, run: Path) -> str:
    """The whole report; copies the metrics and the curve of the run to `out`."""
    stages = [line.split("\t") for line in (out / "stages.tsv").read_text(encoding="utf-8").splitlines()]
    parts = ["# One GPU, one go (benchmarks/gpu/run.sh)", table(list(STAGES), stages)]
    for name in ("large", "lora"):
        path = out / f"{name}.txt"
        if path.exists():
            text = path.read_text(encoding="utf-8", errors="replace")
            shown = text.partition(TABLE)[2] or text[-4000:]  # where the step failed: the end of what was printed
            parts.append(f"## {name}: one step of the 1.5B architecture\n\n```\n{shown.strip()}\n```")
    metrics = run / "metrics.jsonl"
    if metrics.exists():
        shutil.copy(metrics, out)
        rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
        parts.append(f"## Reinforcement learning\n\n{learning(rows)}")
    if (run / "curve.png").exists():
        shutil.copy(run / "curve.png", out)
        parts.append("![curve](curve.png)")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / "report.md").write_text(report(folder, Path(sys.argv[2])), encoding="utf-8")
