# SPDX-License-Identifier: Apache-2.0
"""Which CJK characters of a reply are the model's own.

The published format forbids the characters U+4E00 to U+9FFF, into which some pretrained models drift. A page may show
such characters too, and a reply that copies them does what it is asked to do.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

_RUN = re.compile("[\u4e00-\u9fff]+")


def has_own_cjk(text: str, copying: Collection[tuple[int, int]], shown: Collection[str]) -> bool:
    """Whether a run of CJK characters in a reply is not copied.

    Args:
        text: the reply.
        copying: half-open ranges of characters in which the reply may copy (its sub-goal and its action).
        shown: texts that it may copy from. A run is copied if it is part of a run of one of them.
    """
    return any(
        not any(start <= run.start() and run.end() <= end for start, end in copying)
        or not any(run[0] in shown_text for shown_text in shown)
        for run in _RUN.finditer(text)
    )


def shown_cjk(texts: Iterable[str]) -> frozenset[str]:
    """What a reply may copy from these texts: their runs of such characters, each as long as possible."""
    return frozenset(run for text in texts for run in _RUN.findall(text))
