# SPDX-License-Identifier: Apache-2.0
"""Is HAE unbiased, and does it vary less? Against the exact policy gradient of small plan-execute processes.

    python benchmarks/hae_oracle.py                 # table and picture; minutes on one core
    python benchmarks/hae_oracle.py --tasks 3 --episodes 20000

For each of some random tasks (`recipe.hiper.toy.oracle`: three states, two sub-goals, two actions, eight turns, noisy
rewards) and each estimator: how far the mean estimate is from the exact gradient, relative to its length, beside what
chance alone would give; in how many tasks that is significant (1%); and the variance of one episode's estimate over
that of flat turn-level GAE at lambda 1 on the same episodes, with a 95% interval over the tasks.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
from intervals import interval
from machine import describe
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
ESTIMATORS = {
    "HAE (segment return)": "segment_return",
    "HAE (termination)": "termination",
    "HAE (past segments)": "past",
    "turn-level GAE": "turn",
    "token-level GAE": "token",
}
"""Past segments: segment return with `lam_boundary` equal to the other lambdas, instead of 0."""
LAMBDAS = (1.0, 0.95, 0.5, 0.0)
ERRORS = (0.0, 1.0)
"""Standard deviation of the errors in the values; the tasks' values spread by 1 to 3."""


FEWEST_EPISODES = 100
"""The test of the bias needs the covariance of the episodes' estimates."""


@dataclass(frozen=True)
class Row:
    """One estimator at one lambda with one error of the values, over all tasks."""

    estimator: str
    lam: float
    error: float
    bias: float
    noise: float
    significant: int
    ratio: float
    half_width: float


def measure(tasks: int, episodes: int) -> list[Row]:
    """All rows."""
    from recipe.hiper.estimators.hae import HAEConfig, SwitchAdvantage
    from recipe.hiper.toy import oracle

    mismatches: dict[tuple[str, float, float], list[tuple[oracle.Mismatch, float]]] = {}
    for seed in tqdm(range(tasks), "tasks", unit="task"):
        task, policy = oracle.make_task(seed), oracle.make_policy(seed + 100)
        exact, values = oracle.exact_gradient(task, policy), oracle.exact_values(task, policy)
        played = oracle.sample(task, policy, episodes, seed + 300)
        for error in ERRORS:
            wrong = oracle.disturbed(values, error, seed + 200)
            anchor = None
            for name in ("turn-level GAE", *(n for n in ESTIMATORS if n != "turn-level GAE")):
                for lam in LAMBDAS:
                    kind = ESTIMATORS[name]
                    if kind == "turn":
                        advantages = oracle.turn_advantages(task, played, wrong, lam)
                    elif kind == "token":
                        advantages = oracle.token_advantages(task, played, wrong, lam)
                    else:
                        switch: SwitchAdvantage = "termination" if kind == "termination" else "segment_return"
                        config = HAEConfig(1.0, lam, lam, switch, lam_boundary=lam if kind == "past" else 0.0)
                        advantages = oracle.hae_advantages(task, policy, played, wrong, config)
                    estimates = oracle.episode_gradients(policy, played, advantages)
                    mismatch = oracle.mismatch(estimates, exact)
                    anchor = anchor or mismatch.variance
                    mismatches.setdefault((name, lam, error), []).append((mismatch, mismatch.variance / anchor))
    rows = []
    for (name, lam, error), measured in mismatches.items():
        ratios = [ratio for _, ratio in measured]
        ratio, half_width = interval(ratios)
        rows.append(
            Row(
                name,
                lam,
                error,
                bias=mean(m.relative_bias for m, _ in measured),
                noise=mean(m.noise for m, _ in measured),
                significant=sum(m.p_value < 0.01 for m, _ in measured),
                ratio=ratio,
                half_width=half_width,
            )
        )
    order = list(ESTIMATORS)
    return sorted(rows, key=lambda row: (row.error, order.index(row.estimator), -row.lam))


def table(rows: list[Row], tasks: int) -> str:
    """Markdown."""
    lines = [
        "| values | estimator | lambda | distance to the exact gradient (by chance) | significant | variance ratio |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (
            "exact" if row.error == 0 else f"errors of {row.error:g}",
            row.estimator,
            f"{row.lam:g}",
            f"{row.bias:.3f} ({row.noise:.3f})",
            f"{row.significant} of {tasks}",
            f"{row.ratio:.2f} ± {row.half_width:.2f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(rows: list[Row], path: Path) -> None:
    """Bias over variance, a line for each estimator along lambda, exact and wrong values side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True)
    for panel, error in zip(panels, ERRORS, strict=True):
        for name in ESTIMATORS:
            line = [row for row in rows if row.estimator == name and row.error == error]
            (drawn,) = panel.plot([r.ratio for r in line], [r.bias for r in line], marker="o", markersize=4, label=name)
            for row in line:
                panel.annotate(
                    f"{row.lam:g}", (row.ratio, row.bias), textcoords="offset points", xytext=(4, 4), fontsize=7,
                    color=drawn.get_color(),
                )  # fmt: skip
        panel.set(
            title="exact values" if error == 0 else f"values with errors of {error:g}",
            xlabel="variance, relative to turn-level GAE at lambda 1",
        )
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("distance of the mean from the exact gradient")
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=10, help="random tasks, at least 2 (default: 10)")
    parser.add_argument("--episodes", type=int, default=40_000, help="episodes of each (default: 40000)")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "hae_oracle.png", help="the picture")
    options = parser.parse_args()
    if options.tasks < 2 or options.episodes < FEWEST_EPISODES:
        parser.error(f"--tasks must be at least 2, --episodes at least {FEWEST_EPISODES}")
    sys.path.insert(0, str(ROOT))
    torch.set_num_threads(1)
    print(describe("torch"))
    rows = measure(options.tasks, options.episodes)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    draw(rows, options.out)
    print(f"\n{table(rows, options.tasks)}\n\n{options.out}")


if __name__ == "__main__":
    main()
