# SPDX-License-Identifier: Apache-2.0
"""What an error message of the configuration tells the user to type, extracted and applied."""

from __future__ import annotations

import re
from collections.abc import Sequence

OVERRIDE = re.compile(r"(?<![\w./])([\w./@]+=(?:\[[^\]]*\]|[^\s,;)]+))")
ELSEWHERE = ("profile=", "env=")
"""Groups: they replace the whole configuration, so the remedy cannot be applied to a composed one."""


def remedies(problem: str) -> list[list[str]]:
    """The alternatives that the message of one problem offers; each is a list of overrides.

    [] stands for "leave it out". Alternatives with a placeholder (`<folder>`) or another profile are left out.
    """
    _, marker, advice = problem.partition("Try: ")
    if not marker:  # a message of another package, which ends in what to type
        return [[OVERRIDE.findall(problem)[-1]]]
    alternatives = []
    for alternative in re.split(r",? or (?=[a-z])", re.sub(r"\(.*?\)", "", advice)):
        overrides = OVERRIDE.findall(alternative)
        if "<" in alternative or any(override.startswith(ELSEWHERE) for override in overrides):
            continue
        if overrides or "leave" in alternative:
            alternatives.append(overrides)
    return alternatives


def apply_remedy(typed: Sequence[str], remedy: Sequence[str]) -> list[str]:
    """The command line after a remedy: its overrides replace those of the same keys; [] drops the last override."""
    if not remedy:
        return list(typed[:-1])
    keys = {override.split("=")[0] for override in remedy}
    return [override for override in typed if override.lstrip("+").split("=")[0] not in keys] + list(remedy)
