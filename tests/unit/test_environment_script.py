# SPDX-License-Identifier: Apache-2.0
"""`example_scripts/environment.sh` checks for the compilers before it installs anything."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("make", "gcc", "cc", "g++", "ar")


def install(folder: Path, tools: tuple[str, ...], **variables: str) -> subprocess.CompletedProcess[str]:
    """Start an installation where only these tools exist, and no Python: it stops there at the latest."""
    commands = folder / "bin"
    commands.mkdir()
    for name in ("bash", "dirname", *tools):
        target = shutil.which(name) or shutil.which("true")  # only whether the name exists matters
        (commands / name).symlink_to(target)
    script = f"source {ROOT}/example_scripts/environment.sh && set -e && _install cpu {folder}/venv"
    return subprocess.run(
        [str(commands / "bash"), "-c", script],
        capture_output=True,
        text=True,
        env={"PATH": str(commands), "HOME": os.environ.get("HOME", "/"), **variables},
        check=False,
    )


@pytest.mark.parametrize("tool", TOOLS)
def test_a_missing_tool_is_one_line_with_the_package(tool, tmp_path):
    result = install(tmp_path, tuple(name for name in TOOLS if name != tool))
    assert result.returncode != 0
    assert result.stderr == (
        f"Missing: {tool}. Two packages without wheels are compiled. Try: sudo apt-get install build-essential\n"
    )
    assert not (tmp_path / "venv").exists()


def test_with_all_tools_it_looks_for_python(tmp_path):
    result = install(tmp_path, TOOLS)
    assert result.returncode != 0 and "No Python 3.11 or 3.12 was found" in result.stderr
    assert "Missing:" not in result.stderr


def test_the_compilers_of_the_user_count(tmp_path):
    result = install(tmp_path, ("make", "ar", "clang", "clang++"), CC="clang -O2", CXX="clang++")
    assert "Missing:" not in result.stderr and "No Python" in result.stderr
