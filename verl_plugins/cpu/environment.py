# SPDX-License-Identifier: Apache-2.0
"""Environment variables that every process of a CPU run needs. Imports nothing: they must be set before torch loads."""

CPU_ENVIRONMENT = {
    "VERL_PLATFORM": "cpu",
    "TORCHDYNAMO_DISABLE": "1",
    # By default glibc gives every activation back to the kernel and allocates it again in the next micro-batch: a third
    # of the processor time of an update went into page faults.
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "MALLOC_ARENA_MAX": "2",
    # A thread of GNU OpenMP that waits for the others spins for milliseconds before it sleeps. Where other programs use
    # the same cores, those that are waited for do not run meanwhile: two trainings side by side on two cores took ten
    # times as long as with this value, and one alone as long (`benchmarks/openmp_spinning.py`).
    "GOMP_SPINCOUNT": "10000",
}
"""A value that is already set wins."""
