# SPDX-License-Identifier: Apache-2.0
"""Which action chooses an option, where its text is not the only one of its kind on the page (`split="fixed"`).

An action names a text, `click[black]`, and texts of a catalogue may be equal. Two rules make every option of every
product selectable and keep every button:

- A button keeps its name. An option that is named as a button is clicked with a prefix: `click[option: buy now]`.
- A value of several groups is set where it is still missing: `click[black]` chooses black in the first group of the
  page that has this value and in which nothing is chosen; if there is none, in the first one in which another value is
  chosen.

So one click for each group, in the order of the page, reaches every combination. If something is chosen already, so
does setting the groups from the last to the first, each by repeated clicks: a click never changes a group behind the
one that is being set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent_system.environments.webshop.state import Detail

PREFIX = "option: "
BUTTONS = frozenset({"search", "back to search", "< prev", "next >", "buy now"} | {d.value.lower() for d in Detail})
"""The buttons of all pages, in lower case."""


def option_text(value: str) -> str:
    """The clickable text of a value: itself, or with `PREFIX` if it is named as a button.

    Prefixed names are prefixed again, so that different values have different texts. Letter case and runs of whitespace
    count for nothing: they do not survive the parsing of a reply.

    >>> option_text("buy now"), option_text("option: buy now"), option_text("black")
    ('option: buy now', 'option: option: buy now', 'black')
    """
    name = " ".join(value.lower().split())
    while name.startswith(PREFIX):
        name = name.removeprefix(PREFIX)
    return PREFIX + value if name in BUTTONS else value


def group_to_set(groups: Mapping[str, Sequence[str]], chosen: Mapping[str, str], value: str) -> str | None:
    """The group in which a click on a value chooses it.

    Args:
        groups: the values of each group, in the order of the page.
        chosen: the value that is chosen in each group, for those where one is.
        value: the value that is clicked.

    Returns:
        The name of the group, or None if the value is chosen in every group that has it.
    """
    candidates = [name for name, values in groups.items() if value in values and chosen.get(name) != value]
    return next((name for name in candidates if name not in chosen), candidates[0] if candidates else None)
