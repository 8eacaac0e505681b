# SPDX-License-Identifier: Apache-2.0
"""The configuration is read once: typed settings come out, and the sections of families are passed in."""

from __future__ import annotations

from typing import Literal

import pytest
from made_config import composed, reference
from pydantic import Field, model_validator

from agent_system.errors import ConfigError
from recipe.hiper.configuration.section import Section, SharedSection
from recipe.hiper.configuration.validation import read_settings


class Catalogue(Section):
    products: int = Field(ge=100)
    """products of the generated catalogue"""
    seed: int
    """seed of the generated catalogue"""


class Shop(SharedSection):
    split: Literal["fixed", "legacy"]
    """order of the goals"""
    train_goals: int = Field(ge=1)
    """most goals in the training panel"""
    generated: Catalogue
    """generated catalogue"""

    @model_validator(mode="after")
    def _goals_exist(self) -> Shop:
        if self.train_goals > 1000 * self.generated.products:
            raise ValueError(f"env.webshop.train_goals={self.train_goals}: too many. Try: env.webshop.train_goals=9")
        return self


class Games(SharedSection):
    nothing: int
    """a section of another environment is not read"""


def read(*overrides: str, environment: str = "webshop"):
    config = composed(*overrides, environment=environment)
    return read_settings(config, {"webshop": Shop, "alfworld": Games}, reference=reference("cpu", environment))


def test_settings_have_the_shape_of_the_tree():
    settings = read("env.seed=7", "env.webshop.generated.products=200", "algorithm.hae.lam_seg=0.5")
    assert (settings.env.seed, settings.algorithm.hae.lam_seg) == (7, 0.5)
    assert settings.actor_rollout_ref.actor.invalid_action_penalty_coef == 0.1
    assert settings.data.max_prompt_length == 960 and settings.trainer.logger == ["tensorboard"]
    assert settings.family.generated.products == 200
    with pytest.raises(ValueError, match="frozen"):
        settings.env.seed = 8


def test_a_logger_needs_no_brackets():
    assert read("trainer.logger=console").trainer.logger == ["console"]


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("env.webshop.split=random", "env.webshop.split=random: it is not one of fixed, legacy (order of the goals)"),
        ("env.webshop.generated.products=1.5", "env.webshop.generated.products=1.5: a whole number is needed"),
        ("env.webshop.generated.products=5", "at least 100 is needed"),
        ("env.webshop.train_goals=99999999", "too many. Try: env.webshop.train_goals=9"),
        ("env.webshop=null", "a section with keys of its own is needed"),
    ],
)
def test_the_section_of_a_family_is_checked_with_the_rest(typed, line):
    with pytest.raises(ConfigError) as refused:
        read(typed, "env.max_steps=0", "critic.enable=false")
    message = str(refused.value)
    assert "(3 problems)" in message and line in message
    assert "env.max_steps=0" in message and "critic.enable=false" in message


def test_the_section_of_a_family_that_is_right_is_no_problem():
    with pytest.raises(ConfigError, match=r"\(1 problem\)"):
        read("env.val_tasks=1.5")


def test_a_reference_to_nothing_is_one_problem():
    with pytest.raises(ConfigError, match="env.max_steps cannot be resolved: .*nowhere.*Try: leave out"):
        read("env.max_steps=${nowhere}")
