# SPDX-License-Identifier: Apache-2.0
"""The command that prints the structure of the code, on a small tree with a circle in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, str(Path(__file__).resolve().parents[2] / "benchmarks" / "structure.py"), "--root"]


@pytest.fixture
def tree(tmp_path):
    files = {
        "agent_system/__init__.py": '"""Only a docstring."""\n',
        "agent_system/errors.py": "class Error(Exception):\n    pass\n",
        "agent_system/rooms/__init__.py": "",
        "agent_system/rooms/one.py": "from agent_system.errors import Error\nfrom recipe.two import g\n",
        "recipe/__init__.py": "",
        "recipe/two.py": "def g():\n    from agent_system.rooms import one\n    return one\n",
        "verl_plugins/__init__.py": "VERSION = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_modules_lines_arrows_and_circles(tree):
    """The tree is read, not the installed packages of the same names; an import in a function counts."""
    printed = subprocess.run([*COMMAND, str(tree)], capture_output=True, text=True, check=True).stdout.splitlines()
    assert "| agent_system | 1 | 2 | 2 |" in printed  # without the empty __init__.py
    assert "| agent_system/rooms | 1 | 2 | 2 |" in printed
    assert "| all | 4 | 8 | 3 |" in printed
    assert "| agent_system/rooms | agent_system (1), recipe (1) |" in printed
    assert "| recipe | agent_system/rooms (1) |" in printed
    assert "3 arrows between folders." in printed
    assert "- agent_system.rooms.one, recipe.two" in printed
    assert "- agent_system/rooms, recipe" in printed


def test_a_folder_without_the_packages_is_refused(tmp_path):
    done = subprocess.run([*COMMAND, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "there is no package agent_system" in done.stderr
