# SPDX-License-Identifier: Apache-2.0
"""Which precision this processor computes fastest."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

DTYPE_ENV = "VERL_CPU_DTYPE"
"""Set to "bf16" or "fp32" to decide yourself."""

CPU_FLAGS = Path("/proc/cpuinfo")


@cache
def processor_flags(path: Path = CPU_FLAGS) -> frozenset[str]:
    """The instruction sets of the processor, as Linux names them; empty where it does not say."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError:
        return frozenset()
    flags = (line.partition(":")[2] for line in lines if line.startswith(("flags", "Features")))
    return frozenset(next(flags, "").split())


def fastest_dtype(flags: frozenset[str] | None = None) -> str:
    """ "bf16" where the processor multiplies matrices in tiles (AMX), else "fp32".

    AVX512-bf16 alone is no gain. SmolLM2's architecture on two cores of an Intel Xeon with it and without AMX, torch
    2.13, `python benchmarks/precision.py`: 1,017 tokens/s forward in float32 and 608 in bf16, 325 and 200 forward and
    backward. With AMX bf16 was once measured at 2,900 and 700.
    """
    chosen = os.environ.get(DTYPE_ENV)
    if chosen is not None:
        if chosen not in ("bf16", "fp32"):
            raise ValueError(f"{DTYPE_ENV}={chosen} in the environment: bf16 or fp32 is needed. Try: unset {DTYPE_ENV}")
        return chosen
    return "bf16" if "amx_bf16" in (processor_flags() if flags is None else flags) else "fp32"
