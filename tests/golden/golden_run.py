# SPDX-License-Identifier: Apache-2.0
"""The metrics of the small run of the script (`script_run` in tests/conftest.py), and where they are comparable.

The same command logs the same metrics to the last bit on the same machine with the same number of threads and the same
libraries. Elsewhere floating-point sums are added in another order; a probability that moves by 1e-7 can draw another
token, and the episodes diverge from there, so that no tolerance would compare anything.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

OF_THE_MACHINE = ("timing", "perf/", "actor/perf/", "critic/perf/")
"""Beginnings of the names of metrics that measure time and memory."""

PROCESSOR = ("model name", "cpu family", "model", "stepping", "cache size")
"""Lines of /proc/cpuinfo. Kernels are chosen by the instructions and cut their work by the size of the caches."""


def reproducible(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of a step without times and memory."""
    return {name: value for name, value in metrics.items() if not name.startswith(OF_THE_MACHINE)}


def this_machine() -> dict[str, str]:
    """Everything that changes the order of floating-point sums: processor, caches, threads, libraries."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    first = dict(re.findall(r"^([^\t:]+)\s*: ?(.*)$", text.partition("\n\n")[0], re.MULTILINE))
    instructions = {"avx2", "avx512f", "avx512_bf16", "amx_tile"} & set(first.get("flags", "").split())
    return {
        **{name: first.get(name, "unknown") for name in PROCESSOR},
        "instructions": " ".join(sorted(instructions)),
        "cpus": str(len(os.sched_getaffinity(0))),
        **{name: _version(name) for name in ("torch", "vllm", "transformers", "verl")},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # vLLM's build for CPUs has a name of its own
        return version(f"{name}-cpu")
