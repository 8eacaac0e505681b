# SPDX-License-Identifier: Apache-2.0
"""All estimators on a text game that takes seconds a run (`recipe.hiper.toy`): who learns, how fast, how surely.

    python benchmarks/errand_game.py                              # every estimator, 20 seeds; half an hour on one core
    python benchmarks/errand_game.py --seeds 3 --games memory     # a look
    python benchmarks/errand_game.py --study why                  # what makes the difference between HAE and turn_gae
    python benchmarks/errand_game.py --study living               # settings under which the hierarchy stays alive

Every run is a file in --out and is not repeated while its settings stay the same. Runs of one seed start from the same
policy and play the same tasks, so differences are paired over seeds. Intervals are 95%, Student's t over the seeds.

success      share of episodes won in the last ten iterations
area         mean success over all iterations: how fast it was learned
switch rate  share of SWITCH among the turns with a choice, in the last ten iterations; length: turns of a segment
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, median
from typing import Any

from intervals import interval
from machine import describe
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
LAST = 10
AGAINST = {
    "main": ("turn_gae_0.95", "hae_released"),
    "why": ("turn_gae_0.95",),
    "living": ("always_turn_gae",),  # of the policies without a choice the best
}
"""What the others are compared with."""
SHOWN = (
    "hae_released",
    "hae_paper",
    "hae_free",
    "hae_past",
    "hae_living",
    "turn_gae_0.95",
    "turn_gae_0",
    "gae",
    "grpo",
    "gigpo",
)
"""Curves of the picture."""


@dataclass(frozen=True)
class Run:
    """One run, by name."""

    game: str
    arm: str
    seed: int
    iterations: int
    lr: float = 3e-3
    critic_only: int = 0

    @property
    def how(self) -> Any:
        from recipe.hiper.toy.train import Training

        return Training(iterations=self.iterations, lr=self.lr, critic_only=self.critic_only)

    def path(self, out: Path) -> Path:
        return out / f"{self.game}-{self.iterations}-{self.lr:g}-{self.critic_only}" / f"{self.arm}-{self.seed}.json"


def games() -> dict[str, Any]:
    """The variants of the game.

    The planner of `memory` is the paper's, pi(o_t | s_t), that of `rewrite` a language model's, which sees the kept
    sub-goal and can write it again. `restless` starts with a policy that does so on nearly every turn.
    """
    from recipe.hiper.toy.game import House
    from recipe.hiper.toy.train import Game

    long = House(size=6, passage=2, horizon=16)
    return {
        "memory": Game(long),
        "rewrite": Game(long, sees_kept=True),
        "restless": Game(long, sees_kept=True, whim=0.9, repeat=0.95),
        "markov": Game(replace(long, clue_always_visible=True)),
    }


def settings(run: Run) -> dict[str, Any]:
    """Everything a run depends on, as plain values."""
    from recipe.hiper.toy.variants import VARIANTS

    return {
        "game": asdict(games()[run.game]),
        "arm": asdict(VARIANTS[run.arm]),
        "how": asdict(run.how),
        "seed": run.seed,
    }


def play(run: Run, out: Path) -> Path:
    """Train once and write the file; in a worker process."""
    import torch

    from recipe.hiper.toy.train import train
    from recipe.hiper.toy.variants import VARIANTS

    torch.set_num_threads(1)
    curve = train(games()[run.game], VARIANTS[run.arm], run.seed, run.how)
    path = run.path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_suffix(".part")
    written.write_text(json.dumps({"settings": settings(run), "curve": asdict(curve)}) + "\n", encoding="utf-8")
    written.replace(path)
    return path


def is_done(run: Run, out: Path) -> bool:
    """Whether the file is there and was made with these very settings."""
    path = run.path(out)
    if not path.exists():
        return False
    return json.loads(path.read_text(encoding="utf-8"))["settings"] == json.loads(json.dumps(settings(run)))


@dataclass(frozen=True)
class Result:
    """The runs of one estimator on one game, one entry per seed each.

    Attributes:
        curves: success by iteration.
        explained: explained variance of the three values, median over the iterations.
        expected: mean high value where a later segment opens over the mean return from there, iterations 2 to 10.
    """

    success: list[float]
    area: list[float]
    switch_rate: list[float]
    length: list[float]
    seconds: list[float]
    curves: list[list[float]]
    explained: list[list[float]]
    expected: list[float]


def read(runs: list[Run], out: Path) -> Result:
    """Read the files of the finished runs of one estimator on one game."""
    curves = [json.loads(run.path(out).read_text(encoding="utf-8"))["curve"] for run in runs]

    def last(name: str) -> list[float]:
        return [mean(curve[name][-LAST:]) for curve in curves]

    return Result(
        success=last("success"),
        area=[mean(curve["success"]) for curve in curves],
        switch_rate=last("switch_rate"),
        length=last("segment_length"),
        seconds=[curve["seconds"] for curve in curves],
        curves=[curve["success"] for curve in curves],
        explained=[[_median(column) for column in zip(*curve["explained"], strict=True)] for curve in curves],
        expected=[_ratio(curve["expected"][1:10], curve["earned"][1:10]) for curve in curves],
    )


def _median(values: tuple[float, ...]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return median(known) if known else math.nan


def _ratio(above: list[float], below: list[float]) -> float:
    pairs = [(a, b) for a, b in zip(above, below, strict=True) if not math.isnan(a + b)]
    total = sum(b for _, b in pairs)
    return sum(a for a, _ in pairs) / total if total else math.nan


def table(results: dict[str, Result], references: list[str]) -> str:
    """Markdown, with differences of success and area against each reference, paired over seeds."""
    against = [f"{name} against {reference}" for reference in references for name in ("success", "area")]
    head = ["estimator", "success", "area", *against, "switch rate", "length", "s a run"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for arm, result in results.items():
        cells = [arm, _shown(result.success), _shown(result.area)]
        for anchor in (results[reference] for reference in references):
            for name in ("success", "area"):
                pairs = zip(getattr(result, name), getattr(anchor, name), strict=True)
                cells.append("" if anchor is result else _shown([a - b for a, b in pairs], sign="+"))
        low, high = min(result.switch_rate), max(result.switch_rate)
        plans = not arm.startswith("flat_")
        cells.append(f"{mean(result.switch_rate):.2f} ({low:.2f} to {high:.2f})" if plans else "")
        cells.append(f"{mean(result.length):.1f}" if plans else "")
        cells.append(f"{mean(result.seconds):.1f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def summary(results_by_game: dict[str, dict[str, Result]]) -> str:
    """Markdown: success of every estimator on every game, and in brackets the share of SWITCH."""
    lines = ["| estimator | " + " | ".join(results_by_game) + " |", "|" + "---|" * (len(results_by_game) + 1)]
    for arm in dict.fromkeys(arm for results in results_by_game.values() for arm in results):
        cells = [arm]
        for results in results_by_game.values():
            cell = _shown(results[arm].success) if arm in results else ""
            cells.append(
                cell if not cell or arm.startswith("flat_") else f"{cell} ({mean(results[arm].switch_rate):.2f})"
            )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def raw(results_by_game: dict[str, dict[str, Result]]) -> dict[str, Any]:
    """What the tables are made of: game, estimator, and a list over the seeds of each figure."""
    names = ("success", "area", "switch_rate", "length", "seconds")
    return {
        game: {
            arm: {name: [round(v, 4) for v in getattr(result, name)] for name in names} for arm, result in of.items()
        }
        for game, of in results_by_game.items()
    }


def values_table(results: dict[str, Result]) -> str:
    """Markdown: how good the values were."""
    lines = ["| estimator | explained: V_hi | V_lo | V_term | V_hi over return, early |", "|---|---|---|---|---|"]
    for arm, result in results.items():
        heads = [mean(column) for column in zip(*result.explained, strict=True)]
        cells = [arm, *("" if math.isnan(head) else f"{head:.2f}" for head in heads), f"{mean(result.expected):.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _shown(values: list[float], sign: str = "") -> str:
    middle, half = interval(values)
    return f"{middle:{sign}.3f} ± {half:.3f}" if math.isfinite(half) else f"{middle:{sign}.3f}"


def draw(results_by_game: dict[str, dict[str, Result]], shown: tuple[str, ...], path: Path) -> None:
    """Mean success over iterations with its 95% interval, a panel for each game."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(2, len(results_by_game))
    lines = -(-len(results_by_game) // columns)
    figure = Figure(figsize=(4.4 * columns, 0.8 + 2.9 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False).flatten()
    for spare in panels[len(results_by_game) :]:
        spare.set_visible(False)
    for panel, (game, results) in zip(panels, results_by_game.items(), strict=False):
        for arm in (arm for arm in shown if arm in results):
            points = [interval(list(column)) for column in zip(*results[arm].curves, strict=True)]
            middle, half = zip(*points, strict=True)
            (line,) = panel.plot(middle, label=arm, linewidth=1.4)
            low, high = ([m + s * h for m, h in points] for s in (-1, 1))
            if math.isfinite(half[0]):  # more than one seed
                panel.fill_between(range(len(half)), low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        panel.set(title=game, ylim=(0, 1))
        panel.grid(alpha=0.3)
    figure.supxlabel("iteration (64 episodes each)", fontsize=10)
    figure.supylabel("success", fontsize=10)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=5, frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def _positive(text: str) -> int:
    """A number of things, at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    sys.path.insert(0, str(ROOT))
    from recipe.hiper.toy import variants

    names = ", ".join(variants.VARIANTS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "errand_game", help="folder of the runs")
    parser.add_argument("--seeds", type=_positive, default=20, help="runs of each estimator (default: 20)")
    parser.add_argument("--iterations", type=_positive, default=60, help="of 64 episodes (default: 60)")
    parser.add_argument("--lr", type=float, default=3e-3, help="the policy's step size (default: 0.003)")
    parser.add_argument("--critic-only", type=int, default=0, help="first iterations that teach the critic only")
    parser.add_argument(
        "--games", nargs="+", choices=games(), default=list(games()), metavar="GAME",
        help=f"some of {', '.join(games())} (default: all)",
    )  # fmt: skip
    parser.add_argument("--study", choices=("main", "why", "living"), default="main", help="default: main")
    parser.add_argument(
        "--arms", nargs="+", choices=variants.VARIANTS, metavar="ARM",
        help=f"only these estimators with their settings, some of {names} (default: those of the study)",
    )  # fmt: skip
    parser.add_argument("--processes", type=_positive, default=2, help="runs at once, one thread each (default: 2)")
    options = parser.parse_args(arguments)
    studies = {
        "main": variants.MAIN,
        "why": {n: variants.VARIANTS[n] for n in ("turn_gae_0.95", "hae_released", "hae_free", *variants.WHY)},
        "living": variants.LIVING,
    }
    chosen = list(options.arms or studies[options.study])
    print(describe("torch"), flush=True)
    # Seed by seed, so that what is there when it is stopped compares everything.
    runs = [
        Run(game, arm, seed, options.iterations, options.lr, options.critic_only)
        for seed in range(options.seeds)
        for game in options.games
        for arm in chosen
        # Flat replies have no sub-goal to rewrite.
        if not (game in ("rewrite", "restless") and arm.startswith("flat_"))
    ]
    if not runs:
        parser.error(f"flat estimators do not play {', '.join(options.games)}. Try: --games memory")
    missing = [run for run in runs if not is_done(run, options.out)]
    print(f"{len(runs)} runs, {len(runs) - len(missing)} of them there already", flush=True)
    if options.processes == 1:
        for run in tqdm(missing, unit="run"):
            play(run, options.out)
    elif missing:
        with ProcessPoolExecutor(options.processes) as pool:
            waiting = [pool.submit(play, run, options.out) for run in missing]
            for done in tqdm(as_completed(waiting), total=len(waiting), unit="run"):
                done.result()

    results_by_game = {
        game: {
            arm: read(mine, options.out)
            for arm in chosen
            if (mine := [run for run in runs if (run.game, run.arm) == (game, arm)])
        }
        for game in options.games
    }
    print(f"\n{summary(results_by_game)}")
    for game, results in results_by_game.items():
        references = [name for name in AGAINST[options.study] if name in results]
        print(f"\n{game}, {options.seeds} seeds\n\n{table(results, references)}")
        if options.study == "why":
            print(f"\n{values_table(results)}")
    numbers = options.out / f"{options.study}.json"
    numbers.write_text(json.dumps(raw(results_by_game)) + "\n", encoding="utf-8")
    picture = options.out / f"{options.study}.png"
    shown = SHOWN if options.study == "main" and not options.arms else tuple(chosen)[:10]
    draw(results_by_game, shown, picture)
    print(f"\n{numbers}\n{picture}")


if __name__ == "__main__":
    main()
