# SPDX-License-Identifier: Apache-2.0
"""Names of metrics in files of earlier versions. Metrics that are fractions were once called `*_share`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_OLD = re.compile(r"^((?:rollout|val|hierarchy)/\w+)_share(?=/|$)")


def current_name(name: str) -> str:
    """The name under which a metric is logged now: "rollout/admissible_share" -> "rollout/admissible_fraction"."""
    return _OLD.sub(r"\1_fraction", name)


def with_current_names(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of metrics.jsonl of any version, under current names."""
    return {current_name(name): value for name, value in row.items()}
