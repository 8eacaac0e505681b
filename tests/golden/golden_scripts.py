# SPDX-License-Identifier: Apache-2.0
"""The training scripts: which there are, what they pass to Python, and a real start of one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "example_scripts"
STARTED = "gigpo_trainer/run_webshop.sh"
"""The script that a test runs for real: it has the most overrides, some of them worked out in bash."""

_EXPANDED = """
set -euo pipefail
source example_scripts/environment.sh
ensure_environment() { PYTHON=echo; }
source() { :; }
script="$1"; shift
. "$script"
"""
"""Runs a script up to its last line, which becomes `echo -m recipe.hiper.main override ...`. No override of the scripts
holds a blank."""


def scripts() -> list[str]:
    """The training scripts, relative to `SCRIPTS`."""
    return sorted(str(path.relative_to(SCRIPTS)) for path in SCRIPTS.glob("*/run_*.sh"))


def script_overrides(script: str, profile: str) -> list[str]:
    """The overrides with which a script in `example_scripts` starts Python, as bash expands them."""
    command = ["bash", "-c", _EXPANDED, "bash", str(SCRIPTS / script), f"profile={profile}"]
    line = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    option, module, *overrides = line.split()
    if (option, module) != ("-m", "recipe.hiper.main"):
        raise ValueError(f"{script} starts Python with {line!r}, not with -m recipe.hiper.main")
    return overrides


def start_script(script: str, *arguments: str, folder: Path) -> subprocess.Popen:
    """A script that is run for real in `folder`. The interpreter of this process is its active one."""
    environment = {
        **os.environ,
        "HIPER_VENV": str(folder / "venv"),  # not used, for the active interpreter is suitable
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    return subprocess.Popen(
        ["bash", str(SCRIPTS / script), *arguments],
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
