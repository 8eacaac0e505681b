# SPDX-License-Identifier: Apache-2.0
"""Memory of a CPU run that was freed and is still held by the process."""

from __future__ import annotations

import ctypes


def return_freed_memory(*_args, **_kwargs) -> None:
    """Give what the C library keeps of freed memory back to the system; does nothing without glibc.

    Within a pass the processes of a run keep freed memory on purpose (`MALLOC_TRIM_THRESHOLD_` in `environment.py`).
    Between passes it is missing to the others: trainer and vLLM take turns on the memory of one machine.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
