# SPDX-License-Identifier: Apache-2.0
"""`benchmarks/gpu/run.sh --rehearse`: the script and the files that a GPU gets, on a CPU."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from trainer_runs import REPOSITORY, assert_finite, read_json_lines, run_command

pytestmark = pytest.mark.engine

MOST_FILES, MOST_BYTES = 8, 16 * 2**20
"""What a machine that is lent for minutes may return."""


def rehearse(folder: Path, *options: str) -> dict[str, str]:
    """Run the script and return the result of every stage."""
    command = ["bash", str(REPOSITORY / "benchmarks" / "gpu" / "run.sh"), "--rehearse", "--out", str(folder / "out")]
    run_command([*command, *options], folder / "printed.txt", environment={"PYTHON": sys.executable}, timeout_s=1500)
    files = list((folder / "out").iterdir())
    assert len(files) <= MOST_FILES and all(path.is_file() and path.stat().st_size < MOST_BYTES for path in files)
    lines = (folder / "out" / "stages.tsv").read_text(encoding="utf-8").splitlines()
    report = (folder / "out" / "report.md").read_text(encoding="utf-8")
    stages = [line.split("\t") for line in lines]
    assert all(f"| {' | '.join(stage)} |" in report for stage in stages)
    return {name: result for name, _, result in stages}


def write_wheel(path: Path, module: str) -> None:
    """A package with one module."""
    info = f"{module}-1.0.dist-info"
    wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = {
        f"{module}.py": "ANSWER = 42\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n",
        f"{info}/WHEEL": wheel,
    }
    record = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (files | {f"{info}/RECORD": record}).items():
            archive.writestr(name, content)


def test_wheels_in_parts_are_installed_and_a_stage_that_fails_does_not_stop_the_next(tmp_path):
    parts = tmp_path / "parts"
    parts.mkdir()
    wheel = parts / "carried-1.0-py3-none-any.whl"
    write_wheel(wheel, "carried")
    content = wheel.read_bytes()
    wheel.unlink()
    for number, half in enumerate((content[:300], content[300:])):
        (parts / f"{wheel.name}.part-{number:02d}").write_bytes(half)
    work = tmp_path / "work"
    options = ["--parts", str(parts), "--work", str(work), "--stages", "environment checks large"]
    stages = rehearse(tmp_path, *options)
    assert stages["environment"] == stages["checks"] == "done"
    answer = subprocess.run(
        [sys.executable, "-c", "import carried; print(carried.ANSWER)"],
        env={"PYTHONPATH": str(work / "site")}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert answer.stdout == "42\n" and list((work / "site").glob("hiper-*.dist-info")), "with its entry points"
    assert json.loads((tmp_path / "out" / "checks.json").read_text())["rows"]
    # The stage `base`, which makes a model, was left out.
    assert stages["large"].startswith("FAILED: ") and "holds no tokenizer.json" in stages["large"]

    (parts / f"{wheel.name}.part-01").unlink()
    stages = rehearse(tmp_path, *options[:-1], "environment checks")
    assert stages["environment"].startswith("FAILED: ") and stages["checks"] == "done"


def test_without_time_nothing_starts(tmp_path):
    stages = rehearse(tmp_path, "--minutes", "0")
    assert set(stages) == {"base", "checks", "large", "lora", "cold_start", "rl"}
    assert set(stages.values()) == {"not started: no time left"}


@pytest.mark.nightly
@pytest.mark.timeout(1600)
def test_the_whole_of_it(tmp_path):
    stages = rehearse(tmp_path, "--minutes", "20")
    assert stages == dict.fromkeys(("base", "checks", "large", "lora", "cold_start", "rl"), "done")
    out = tmp_path / "out"
    report = (out / "report.md").read_text(encoding="utf-8")
    for name in ("large", "lora"):
        assert f"## {name}" in report and (out / f"{name}.txt").read_text().count("seconds: update_actor") == 1
    start, *steps = read_json_lines(out / "metrics.jsonl")
    assert start["step"] == 0 and [row["step"] for row in steps] == [1, 2]
    assert_finite(steps[-1], "val/success_rate", "actor/grad_norm", "critic/grad_norm")
    assert (out / "curve.png").stat().st_size > 10_000 and "| held-out success |" in report
