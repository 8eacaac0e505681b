# SPDX-License-Identifier: Apache-2.0
"""Which of the admissible actions a written action is."""

from __future__ import annotations

from collections.abc import Sequence

from agent_system.plan_execute.prompts import BLANK


def is_admissible(action: str, admissible: Sequence[str]) -> bool:
    """Whether the action is one of those, or fills in the blank of one, as "search[tea]" does "search[<your query>]".

    Capital letters and blanks at the ends count for nothing.
    """
    action, admissible = action.strip().lower(), [listed.lower() for listed in admissible]
    if action in admissible:
        return BLANK.search(action) is None  # a copy of the template fills in nothing
    for template in admissible:
        if blank := BLANK.search(template):
            start, end = template[: blank.start()], template[blank.end() :]
            if len(action) > len(start) + len(end) and action.startswith(start) and action.endswith(end):
                return True
    return False


def as_listed(action: str, admissible: Sequence[str]) -> str:
    """The admissible action that is `action` but for capital letters and runs of whitespace.

    Any other action is returned as it is. A reply loses runs of whitespace when it is parsed, and a product of WebShop
    may have an option "wine  light blue", with two spaces.
    """
    if action in admissible:
        return action
    plain = action.lower()
    return next((listed for listed in admissible if " ".join(listed.split()).lower() == plain), action)
