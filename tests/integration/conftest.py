# SPDX-License-Identifier: Apache-2.0
"""Optional data for the integration tests: published games, where they are available."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of optional test data; skips the test where it is absent."""
    folder = Path(os.environ.get("HIPER_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"optional test data: no folder {folder} (HIPER_SHARED_DATA names another)")
    return folder


@pytest.fixture(scope="session")
def published_games(shared_data, tmp_path_factory) -> Path:
    """A data folder with published ALFWorld games."""
    archive = shared_data / "alfworld" / "json_2.1.1.tar.xz"
    if not archive.exists():
        pytest.skip(f"optional test data: no {archive}")
    folder = tmp_path_factory.mktemp("published")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder
