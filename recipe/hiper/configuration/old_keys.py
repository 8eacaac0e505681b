# SPDX-License-Identifier: Apache-2.0
"""Keys that earlier versions had: they are translated to today's, with a notice."""

from __future__ import annotations

import re
from collections.abc import Sequence

OLD_KEYS = {
    "critic.model.fsdp_config.param_offload": "critic.fsdp.param_offload",
    "critic.model.fsdp_config.optimizer_offload": "critic.fsdp.optimizer_offload",
}
"""Keys of the released HiPER's script that verl has renamed since, and their names today."""


def translate_old_keys(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Replace old keys on the command line.

    Returns:
        The arguments with today's keys, and a line for the user about each replaced one.
    """
    translated, notices = [], []
    for argument in arguments:
        parts = re.fullmatch(r"(\+\+|\+|~)?([\w.]+)(=.*)?", argument, re.DOTALL)
        new = OLD_KEYS.get(parts[2]) if parts else None
        if parts and new:
            # `+` was for keys that verl's tree did not have; today's are there
            prefix = parts[1] if parts[1] == "~" else ""
            translated.append(f"{prefix}{new}{parts[3] or ''}")
            notices.append(f"{parts[2]} is called {new} today: {translated[-1]} is used")
        else:
            translated.append(argument)
    return translated, notices
