# SPDX-License-Identifier: Apache-2.0
"""Where generated games and models are kept."""

from __future__ import annotations

import pytest

from recipe.hiper.tasks.preparation import cache_folder


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({}, ".cache/hiper"),
        ({"XDG_CACHE_HOME": "{0}/xdg"}, "xdg/hiper"),
        ({"XDG_CACHE_HOME": "{0}/xdg", "HIPER_CACHE": "{0}/chosen"}, "chosen"),
        ({"HIPER_CACHE": "~/chosen"}, "chosen"),
    ],
)
def test_the_cache_folder_follows_the_environment(tmp_path, monkeypatch, environment, folder):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HIPER_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value.format(tmp_path))
    assert cache_folder() == tmp_path / folder
