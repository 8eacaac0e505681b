# SPDX-License-Identifier: Apache-2.0
"""Adapters need a larger learning rate than all weights."""

from __future__ import annotations

import pytest
from made_config import composed, reference

from recipe.hiper.configuration.lora import lora_notices

RANK = "actor_rollout_ref.model.lora_rank=32"


def notices(*overrides, **groups):
    return list(lora_notices(composed(*overrides, **groups), reference(**groups)))


def test_the_profiles_rate_for_all_weights_is_named():
    (line,) = notices(RANK, profile="gpu")
    assert "actor_rollout_ref.actor.optim.lr=1e-06" in line and "Try: actor_rollout_ref.actor.optim.lr=1e-05" in line
    assert len(notices(RANK, "critic.model.lora_rank=8", profile="gpu")) == 2


@pytest.mark.parametrize("overrides", [(), (RANK, "actor_rollout_ref.actor.optim.lr=2e-5")])
def test_a_rate_that_was_chosen_or_is_for_all_weights_is_not(overrides):
    assert notices(*overrides, profile="gpu") == []


def test_a_rate_that_suits_adapters_is_not():
    assert notices(RANK, profile="cpu", model="tiny") == []
