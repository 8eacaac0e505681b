# SPDX-License-Identifier: Apache-2.0
"""Settings of the golden tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest
from golden_scripts import STARTED, start_script

# verl settles its platform when it is first imported.
os.environ.setdefault("VERL_PLATFORM", "cpu")


@pytest.fixture(scope="session")
def started_script(tmp_path_factory) -> Iterator[subprocess.Popen]:
    """`golden_scripts.STARTED` on the CPU profile, run for real with `--cfg job`."""
    process = start_script(STARTED, "profile=cpu", "--cfg", "job", folder=tmp_path_factory.mktemp("started"))
    yield process
    process.kill()  # no effect once it has ended


@pytest.fixture(scope="session", autouse=True)
def _start_early(request) -> None:
    """Start the script before the first golden test, so that it runs beside them: it takes eight seconds."""
    has_worker = "PYTEST_XDIST_WORKER" in os.environ  # every worker would start one
    if not has_worker and any("started_script" in item.fixturenames for item in request.session.items):
        request.getfixturevalue("started_script")
