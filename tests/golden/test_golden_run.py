# SPDX-License-Identifier: Apache-2.0
"""The small run of the script logs the metrics that it logged when they were recorded, to the last bit."""

from __future__ import annotations

import json

import golden_files as files
import pytest
from golden_run import reproducible, this_machine

pytestmark = pytest.mark.engine

RECORDED = files.read(files.RUN)


def test_the_metrics_of_the_small_run_are_those_recorded(script_run):
    if this_machine() != RECORDED["machine"]:
        pytest.skip(f"recorded on {RECORDED['machine']}, this is {this_machine()}: floating-point sums differ")
    lines = (script_run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    metrics = {str(row["step"]): reproducible(row) for row in map(json.loads, lines)}
    assert metrics.keys() >= RECORDED["metrics"].keys()  # other tests resume the run
    differences = [
        f"step {step}, {name}: recorded {before.get(name)}, now {now.get(name)}"
        for step, before, now in ((step, RECORDED["metrics"][step], metrics[step]) for step in RECORDED["metrics"])
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    assert not differences, "\n".join(differences[:20])
