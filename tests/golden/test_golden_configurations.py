# SPDX-License-Identifier: Apache-2.0
"""`--cfg job` of every training script, on both profiles: the same keys with the same values.

Compared are keys and values as Hydra prints them, interpolations unresolved. The order of keys is not compared.
"""

from __future__ import annotations

from functools import cache

import golden_files as files
import golden_values as values
import pytest
from golden_scripts import STARTED, scripts
from omegaconf import DictConfig, OmegaConf


@cache
def recorded_file(name: str) -> DictConfig:
    return OmegaConf.load(files.CONFIGURATIONS / f"{name}.yaml")


def recorded_leaves(script: str, profile: str) -> dict:
    reference = values.leaves(recorded_file(f"{values.environment_of(script)}.{profile}"))
    return reference | OmegaConf.to_container(recorded_file("scripts")[script][profile], resolve=False)


def test_every_script_is_recorded():
    recorded = recorded_file("scripts")
    assert list(recorded) == scripts()
    assert all(list(profiles) == list(values.PROFILES) for profiles in recorded.values())


@pytest.mark.parametrize("profile", values.PROFILES)
@pytest.mark.parametrize("script", scripts())
def test_configurations(script, profile):
    lines = values.changed_keys(recorded_leaves(script, profile), values.leaves(values.script_config(script, profile)))
    if lines:
        pytest.fail(
            f"{script} profile={profile}: {len(lines)} keys differ from what was recorded\n" + "\n".join(lines),
            pytrace=False,
        )


def test_a_real_start_prints_what_is_composed_here(started_script):
    printed, errors = started_script.communicate(timeout=300)
    assert started_script.returncode == 0, errors[-2000:]
    composed = values.script_config(STARTED, "cpu")
    lines = values.changed_keys(values.leaves(composed), values.leaves(OmegaConf.create(printed)))
    assert not lines, "\n".join(lines)
    assert printed.strip() == OmegaConf.to_yaml(composed).strip()


def test_changed_keys_are_listed():
    before, after = {"a.b": 1, "a.c": "${x}", "d": None}, {"a.b": 1.0, "d": None, "e": [1]}
    assert values.changed_keys(before, after) == ["added    e: [1]", "removed  a.c: '${x}'", "changed  a.b: 1 -> 1.0"]
