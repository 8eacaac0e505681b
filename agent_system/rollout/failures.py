# SPDX-License-Identifier: Apache-2.0
"""Episodes that could not be played, one JSON line each, from any process of the run."""

from __future__ import annotations

import json
import os
import traceback
from pathlib import Path


class FailureLog:
    """Appends to and reads from one file.

    Args:
        path: the file; its folder must exist and be visible to every node that plays episodes.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def clear(self) -> None:
        """Forget the failures of earlier runs."""
        self.path.unlink(missing_ok=True)

    def record(self, task_id: str, error: BaseException) -> None:
        """Add a failure. One write of one line: processes that append at the same time do not mix."""
        entry = {
            "task_id": task_id,
            "error": type(error).__name__,
            "message": str(error),
            "traceback": "".join(traceback.format_exception(error))[-4000:],
        }
        line = (json.dumps(entry) + "\n").encode()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    def first(self) -> str:
        """A sentence with the first failure and the file that holds all of them."""
        if not self.path.exists():
            return "No reason was recorded. Try: search the log of the run for errors of the rollout workers"
        with open(self.path, encoding="utf-8") as file:
            entry = json.loads(file.readline())
        return f"The first: task {entry['task_id']}: {entry['error']}: {entry['message']} (all of them: {self.path})"
