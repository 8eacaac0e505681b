# SPDX-License-Identifier: Apache-2.0
"""The lists of pinned packages agree: what is asked for is in the locks, and a lock has nothing but exact pins."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements"
PIN = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]+\])?==(?P<version>[A-Za-z0-9.!+]+)")


def normalized(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(path: Path) -> list[tuple[str, str]]:
    """Names and versions of a file and of those it includes, in its order. Anything else than a pin is an error."""
    result: list[tuple[str, str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if text.startswith("-r "):
            result += pins(path.parent / text.removeprefix("-r "))
        elif text:
            match = PIN.fullmatch(text)
            assert match, f"{path.name}: {line!r} is not an exact pin"
            result.append((normalized(match["name"]), match["version"]))
    return result


@pytest.mark.parametrize(("asked", "lock"), [("../requirements.txt", "cpu.txt"), ("gpu.in", "gpu.txt")])
def test_the_lock_has_every_pin_that_is_asked_for(asked, lock):
    locked = dict(pins(REQUIREMENTS / lock))
    wanted = dict(pins(REQUIREMENTS / asked))
    assert len(wanted) > 20
    assert {name: locked.get(name) for name in wanted} == wanted


@pytest.mark.parametrize("lock", ["cpu.txt", "gpu.txt"])
def test_a_lock_names_each_package_once(lock):
    names = [name for name, _ in pins(REQUIREMENTS / lock)]
    assert len(names) == len(set(names)) > 250


def test_the_gpu_lock_leaves_the_versions_of_the_cpu_lock_alone():
    """What CI tests is what a GPU user gets, but for what the other torch and vLLM ask for."""
    cpu, gpu = (dict(pins(REQUIREMENTS / name)) for name in ("cpu.txt", "gpu.txt"))
    other = {name for name in cpu.keys() & gpu.keys() if cpu[name] != gpu[name]}
    assert other == {"torch", "transformers", "apache-tvm-ffi", "xgrammar"}
    assert "flash-attn" not in gpu, "it has no wheels: installing it would compile it"
