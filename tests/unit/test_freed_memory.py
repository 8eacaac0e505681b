# SPDX-License-Identifier: Apache-2.0
"""Freed memory stays with a process of a CPU run until it is returned."""

from __future__ import annotations

import os
import subprocess
import sys

from verl_plugins.cpu.environment import CPU_ENVIRONMENT
from verl_plugins.cpu.memory import return_freed_memory
from verl_plugins.cpu.platform import PlatformCPU

PROGRAM = """
import psutil, torch
from verl_plugins.cpu.memory import return_freed_memory

def resident():
    return psutil.Process().memory_info().rss >> 20

tensors = [torch.ones(2**18) for _ in range(400)]  # of 1 MiB
print(resident())
del tensors
print(resident())
return_freed_memory()
print(resident())
"""


def test_freed_memory_is_returned():
    environment = os.environ | CPU_ENVIRONMENT
    output = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    full, freed, returned = map(int, output.stdout.split())
    assert freed > full - 100, "the settings keep it"
    assert returned < full - 300


def test_verl_returns_it_where_it_would_empty_a_gpus_cache():
    assert PlatformCPU._module.empty_cache is return_freed_memory
