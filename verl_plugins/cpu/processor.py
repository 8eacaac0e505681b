# SPDX-License-Identifier: Apache-2.0
"""Which precision this processor computes fastest."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

DTYPE_ENV = "VERL_CPU_DTYPE"
"""Set to "bf16" or "fp32" to decide yourself."""

CPU_INFO = Path("/proc/cpuinfo")


def _field(names: tuple[str, ...], path: Path) -> str:
    """What Linux says of the first core under one of these names; empty where it does not say."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(names)), "")


@cache
def processor_flags(path: Path = CPU_INFO) -> frozenset[str]:
    """The instruction sets of the processor, as Linux names them; empty where it does not say."""
    return frozenset(_field(("flags", "Features"), path).split())


@cache
def processor_vendor(path: Path = CPU_INFO) -> str:
    """ "AuthenticAMD", "GenuineIntel" or another name that Linux gives; empty where it does not say."""
    return _field(("vendor_id",), path)


def fastest_dtype(flags: frozenset[str] | None = None, vendor: str | None = None) -> str:
    """ "bf16" where the processor multiplies matrices in it faster than in float32, else "fp32".

    So do processors with tiles (AMX), and AMD's with AVX512-bf16 (since Zen 4). Intel's with AVX512-bf16 alone are
    slower in bf16. Figures of `python benchmarks/precision.py` on all three: docs/pretrained.md, "Precision".

    Raises:
        ValueError: the environment names another precision.
    """
    chosen = os.environ.get(DTYPE_ENV)
    if chosen is not None:
        if chosen not in ("bf16", "fp32"):
            raise ValueError(f"{DTYPE_ENV}={chosen} in the environment: bf16 or fp32 is needed. Try: unset {DTYPE_ENV}")
        return chosen
    flags = processor_flags() if flags is None else flags
    vendor = processor_vendor() if vendor is None else vendor
    fast = "amx_bf16" in flags or ("avx512_bf16" in flags and vendor == "AuthenticAMD")
    return "bf16" if fast else "fp32"
