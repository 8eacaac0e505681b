# SPDX-License-Identifier: Apache-2.0
"""Typed sections: exact types, and messages with the remedy."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import Field, model_validator

from agent_system.errors import ConfigError
from recipe.hiper.configuration.section import Section, read_section, require_section


class Inner(Section):
    timeout_s: float = Field(120, gt=0)
    """Seconds."""


class Example(Section):
    steps: int = Field(50, ge=1)
    """Steps."""
    mode: Literal["full", "compact"] = "full"
    """Mode."""
    workers: int | None = Field(None, ge=1)
    """Workers."""
    rooms: list[int] | None = None
    """Rooms."""
    inner: Inner = Inner()
    """Inner."""

    @model_validator(mode="after")
    def _rooms_are_a_pair(self) -> Example:
        if self.rooms is not None and len(self.rooms) != 2:
            raise ValueError("env.rooms: two numbers. Try: env.rooms=[4,6]")
        return self


def test_values_are_read():
    section, problems = read_section(Example, {"steps": 7, "inner": {"timeout_s": 3}, "rooms": [1, 2]}, "env")
    assert problems == [] and (section.steps, section.inner.timeout_s, section.mode) == (7, 3, "full")
    assert require_section(Example, {}, "env").workers is None


@pytest.mark.parametrize(
    ("values", "key", "remedy"),
    [
        ({"steps": 2.5}, "env.steps=2.5", "Try: env.steps=50"),
        ({"steps": True}, "env.steps=true", "Try: env.steps=50"),
        ({"steps": "3"}, "env.steps=3", "Try: env.steps=50"),
        ({"steps": None}, "env.steps=null", "Try: env.steps=50"),
        ({"steps": 0}, "env.steps=0", "Try: env.steps=50"),
        ({"mode": "short"}, "env.mode=short", "Try: env.mode=full"),
        ({"workers": -1}, "env.workers=-1", "Try: env.workers=null"),
        ({"rooms": [1, 2, 3]}, "env.rooms", "Try: env.rooms=[4,6]"),
        ({"rooms": [1, 2.5]}, "env.rooms=2.5", "Try: env.rooms=null"),
        ({"inner": {"timeout_s": 0}}, "env.inner.timeout_s=0", "Try: env.inner.timeout_s=120"),
        ({"inner": {"timeout_s": float("nan")}}, "env.inner.timeout_s=nan", "Try: env.inner.timeout_s=120"),
        ({"stepz": 1}, "env.stepz", "Try: leave it out"),
    ],
)
def test_values_that_do_not_fit_are_named_with_what_to_type(values, key, remedy):
    section, problems = read_section(Example, values, "env")
    assert section is None and len(problems) == 1
    assert problems[0].startswith(key) and remedy in problems[0]
    with pytest.raises(ConfigError, match=key.split("=")[0]):
        require_section(Example, values, "env")


def test_all_problems_at_once():
    assert len(read_section(Example, {"steps": 0, "mode": "x", "inner": {"timeout_s": 0}}, "env")[1]) == 3
