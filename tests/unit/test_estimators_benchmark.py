# SPDX-License-Identifier: Apache-2.0
"""The comparison of estimators: every variant passes the checks of a run, and its table agrees with the files."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from made_config import check, composed

from recipe.hiper.configuration.overrides import check_overrides

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("estimators_benchmark", BENCHMARKS / "estimators.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(BENCHMARKS))
        sys.modules.pop("estimators_benchmark", None)


def test_every_variant_is_a_sound_run(benchmark):
    for variant in benchmark.VARIANTS.values():
        overrides = [*benchmark.SHORT, *variant.overrides]
        check_overrides(["profile=cpu", *overrides])
        preset = dict(override.split("=") for override in overrides).pop("algorithm/hae", "custom")
        config = composed(*(o for o in overrides if "/hae=" not in o), preset=preset)
        check(config)
        assert config.data.train_batch_size * config.env.rollout.n == 64


def write_run(benchmark, folder: Path, turns: list[int], successes: list[float], total: int) -> None:
    folder.mkdir()
    overrides = benchmark.overrides_of(folder.name.rsplit("-", 1)[0]) if "-" in folder.name else []
    benchmark.record_overrides(folder, overrides)
    rows = [{"step": 0, "val/success_rate": successes[0], "val/episodes": 128}]
    for step, (played, won) in enumerate(zip(turns, successes[1:], strict=True), start=1):
        rows.append({"step": step, "rollout/turns": played, "timing_s/step": 30.0, "perf/total_num_tokens": 1000})
        rows[-1]["response_length/mean"] = 12.0
        rows[-1] |= {"val/success_rate": won, "rollout/switch_rate": 0.25, "hierarchy/segment_length": 4.0}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "status.json").write_text(json.dumps({"total_steps": total}))


def test_a_run_is_read_when_it_is_finished(benchmark, tmp_path):
    assert benchmark.read_run("gae", 0, tmp_path / "none") is None
    write_run(benchmark, tmp_path / "half", [100, 100], [0.2, 0.4, 0.5], total=3)
    assert benchmark.read_run("gae", 0, tmp_path / "half") is None
    write_run(benchmark, tmp_path / "whole", [100, 300], [0.2, 0.4, 0.8], total=2)
    run = benchmark.read_run("gae", 0, tmp_path / "whole")
    assert (run.turns, run.successes, run.games) == ([0, 100, 400], [0.2, 0.4, 0.8], 128)
    assert (run.minutes, run.tokens, run.switch_rate) == (1.0, 2000, 0.25)
    # 200 turns are a third of the way from 0.4 to 0.8.
    assert run.success_after(200) == pytest.approx(0.4 + 0.4 / 3)
    assert run.success_after(10_000) == 0.8
    # (0.2 + 0.4) / 2 over 100 turns, (0.4 + 0.8) / 2 over 300.
    assert run.area(400) == pytest.approx((0.3 * 100 + 0.6 * 300) / 400)


def test_the_report_compares_within_the_smallest_budget(benchmark, tmp_path):
    for name, seed, turns in (
        ("turn_gae_0.95", 0, [100]),
        ("turn_gae_0.95", 1, [100]),
        ("gae", 0, [200]),
        ("gae", 1, [200]),
    ):
        write_run(benchmark, tmp_path / f"{name}-{seed}", turns, [0.2, 0.4 + 0.2 * seed], total=1)
    text = benchmark.report(benchmark.finished(tmp_path), tmp_path)
    assert "128 games after 100 environment turns" in text
    # 0.4 and 0.6 for turn_gae; gae is halfway there after 100 turns: 0.3 and 0.4. t(0.975, 1) = 12.706.
    assert "| turn_gae_0.95 | 2 | 20.0 ± 0.0 | 50.0 ± 127.1 |" in text
    assert "| gae | 2 | 20.0 ± 0.0 | 35.0 ± 63.5 |" in text
    # Seed by seed -10 and -20. Pooled: deviations of sqrt(200) and sqrt(50) points, so sqrt(125) with 2 degrees of
    # freedom, t(0.975, 2) = 4.303, times sqrt(1/2 + 1/2).
    assert "| gae | 2 | -15.0 ± 63.5 | -15.0 ± 48.1 |" in text
    assert "Spread within a variant: 11.2 points, 2 degrees of freedom." in text
    assert "minus that of turn_gae_1," not in text  # none was played
    assert len(json.loads((tmp_path / "estimators.json").read_text())) == 4

    # One run of each gives no estimate of the spread.
    alone = benchmark.differences([run for run in benchmark.finished(tmp_path) if run.seed == 0], 100, "turn_gae_0.95")
    assert alone.endswith("| gae | 1 | -10.0 |  |")

    # Elsewhere these runs are known, as long as the settings are the same, and those of a folder go first.
    known = benchmark.read_known(tmp_path / "estimators.json")
    (tmp_path / "elsewhere").mkdir()
    assert benchmark.finished(tmp_path / "elsewhere", known) == benchmark.finished(tmp_path)
    write_run(benchmark, tmp_path / "elsewhere" / "gae-0", [50], [0.2, 0.9], total=1)
    last = [run.successes[-1] for run in benchmark.finished(tmp_path / "elsewhere", known)]
    assert last == pytest.approx([0.4, 0.6, 0.9, 0.6])
    changed = (tmp_path / "estimators.json").read_text().replace("total_training_steps=8", "total_training_steps=9")
    (tmp_path / "estimators.json").write_text(changed)
    assert benchmark.read_known(tmp_path / "estimators.json") == []
    assert benchmark.read_known(tmp_path / "none.json") == []
    assert (tmp_path / "estimators.png").stat().st_size > 5000


def test_how_far_the_critics_have_come(benchmark, tmp_path):
    for seed, value in ((0, 1.0), (1, 2.0)):
        folder = tmp_path / f"turn_gae_1-{seed}"
        write_run(benchmark, folder, [100, 100], [0.2, 0.4, 0.6], total=2)
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for row in rows[1:]:
            row |= {"critic/target_high/mean": value * row["step"], "critic/value_high/mean": value}
            row |= {"critic/explained_variance_high": None if row["step"] == 1 else 0.5}
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = benchmark.report(benchmark.finished(tmp_path), tmp_path)
    # Targets 1 and 2 in the first step, 2 and 4 in the last one.
    assert "| turn_gae_1 | high | 1.50 | 1.50 | 3.00 | 0.50 |" in text


def test_the_overrides_of_a_run_are_recorded(benchmark, tmp_path):
    """A run with other settings is neither resumed nor counted as one with these."""
    write_run(benchmark, tmp_path / "gae-0", [100], [0.2, 0.4], total=1)
    assert benchmark.train("gae", 0, tmp_path / "gae-0", []).successes == [0.2, 0.4]  # finished: nothing is played
    with pytest.raises(SystemExit, match="holds a run with the overrides .*, not .*env.max_steps=30"):
        benchmark.train("gae", 0, tmp_path / "gae-0", ["env.max_steps=30"])
    recorded = json.dumps([*benchmark.overrides_of("gae"), "env.max_steps=30"])
    (tmp_path / "gae-0" / "overrides.json").write_text(recorded)
    benchmark.report(benchmark.finished(tmp_path), tmp_path)
    assert benchmark.read_known(tmp_path / "estimators.json") == []
