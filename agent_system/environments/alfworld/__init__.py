# SPDX-License-Identifier: Apache-2.0
"""ALFWorld: household tasks in text, over the published `alfworld` and `textworld` packages."""

from __future__ import annotations

import os
import tempfile


def _import_alfworld() -> None:
    """Imports `alfworld` without its side effects.

    On its first import it makes the folder that ALFWORLD_DATA names (or one in the user's home) and sets ALFWORLD_DATA
    where it was not set. A mistyped path would turn into an empty folder, and an absent setting into a wrong one.
    """
    before = os.environ.get("ALFWORLD_DATA")
    os.environ["ALFWORLD_DATA"] = tempfile.gettempdir()
    try:
        import alfworld  # noqa: F401
    finally:
        if before is None:
            del os.environ["ALFWORLD_DATA"]
        else:
            os.environ["ALFWORLD_DATA"] = before


_import_alfworld()
