# SPDX-License-Identifier: Apache-2.0
"""The table of estimators: its entries, a user's own, and what holds for the function of every entry."""

from __future__ import annotations

import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_config import check, composed, reference
from omegaconf import OmegaConf
from torch import Tensor

from agent_system.errors import ConfigError
from agent_system.rollout.environment_registry import FAMILY_NAMES
from recipe.hiper.configuration.keys import flat_keys
from recipe.hiper.configuration.settings import HiPERSettings, number_of_heads, verl_config
from recipe.hiper.estimators.config import EstimatorConfig, HAEConfig
from recipe.hiper.estimators.entry import Estimator
from recipe.hiper.estimators.grids import TurnAdvantages, TurnGrids
from recipe.hiper.estimators.registry import (
    ESTIMATORS,
    OF_GROUPS,
    SHARED_KEYS,
    WITH_CRITIC,
    UnknownEstimator,
    estimate_advantages,
    find_estimator,
    register,
    whiten_advantages,
)
from recipe.hiper.estimators.shaping import ShapingConfig
from recipe.hiper.estimators.values import ValueSlot

OWN = [name for name in ESTIMATORS if not find_estimator(name).is_verls_own]
"""Estimators that are run from turns."""
OWN_MODULE = Path(__file__).resolve().parents[1] / "integration" / "own_estimator.py"
DECISIONS = ("switch", "subgoal", "action")


# ---------------------------------------------------------------------------------------------------------------------
# The table


def test_what_the_entries_say():
    table = {name: find_estimator(name) for name in ESTIMATORS}
    assert WITH_CRITIC == ("hae", "turn_gae", "gae") and OF_GROUPS == ("grpo", "rloo", "gigpo")
    assert {name: entry.critic_heads for name, entry in table.items() if entry.has_critic} == {
        "hae": (3, 2),
        "turn_gae": (1,),
        "gae": (1,),
    }
    assert [name for name, entry in table.items() if entry.uses_bootstrap] == ["hae", "turn_gae"]
    assert [name for name, entry in table.items() if entry.is_hierarchical] == ["hae"]
    assert [name for name, entry in table.items() if entry.is_verls_own] == ["gae"]
    assert [name for name, entry in table.items() if entry.rewards_in_float64] == list(OF_GROUPS)
    assert [name for name, entry in table.items() if entry.divides_by_std] == ["grpo", "gigpo"]
    for name, entry in table.items():
        assert entry.name == name


@pytest.mark.parametrize("environment", FAMILY_NAMES)
def test_every_key_of_an_entry_exists(environment):
    known = set(flat_keys(OmegaConf.to_container(reference(environment=environment), resolve=False)))
    for name in ESTIMATORS:
        assert find_estimator(name).keys <= known, name


def test_a_name_is_registered_once():
    entry = find_estimator("rloo")
    assert register(entry) is entry
    with pytest.raises(ValueError, match="another estimator of the name rloo"):
        register(Estimator("rloo", function=None))
    assert find_estimator("rloo") is entry


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"critic_heads": (4,)}, "critic_heads"),
        ({"critic_heads": (2, 2)}, "critic_heads"),
        ({"uses_bootstrap": True, "keys": frozenset({"algorithm.hae.bootstrap_truncated"})}, "needs a critic"),
        ({"uses_bootstrap": True, "critic_heads": (1,)}, "uses_bootstrap=True means"),
        ({"keys": frozenset({"algorithm.hae.bootstrap_truncated"})}, "uses_bootstrap=False means"),
    ],
)
def test_an_entry_that_contradicts_itself_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Estimator("mine", function=None, **changes)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a2c", r"a2c is not one of hae, turn_gae, gae, grpo, rloo, gigpo.*Try: algorithm\.adv_estimator=hae"),
        ("mine:", "not one of"),
        (":MINE", "not one of"),
        ("no_such_module:MINE", "the module no_such_module cannot be imported.*Try: PYTHONPATH"),
        ("sys:path", "the module sys has no Estimator 'path'.*Try: "),
        ("statistics:mean", "the module statistics has no Estimator 'mean'.*Try: "),
    ],
)
def test_a_name_without_an_estimator_is_refused(name, message):
    with pytest.raises(UnknownEstimator, match=message):
        find_estimator(name)


# ---------------------------------------------------------------------------------------------------------------------
# A user's own


@pytest.fixture
def own_module(monkeypatch):
    monkeypatch.syspath_prepend(str(OWN_MODULE.parent))
    yield "own_estimator:RETURN_TO_GO"
    sys.modules.pop("own_estimator", None)


def test_a_users_estimator_is_checked_and_configured_like_the_others(own_module):
    chosen = (f"algorithm.adv_estimator={own_module}", "actor_rollout_ref.model.path=somewhere")
    config = composed(*chosen, "algorithm.hae.bootstrap_truncated=True")
    check(config)
    assert number_of_heads(config) == 1
    settings = HiPERSettings.from_config(config)
    assert settings.estimator.name == own_module and settings.num_heads == 1
    for_verl = verl_config(config)
    assert for_verl.env.bootstrap_row is True and for_verl.critic.enable is True
    assert verl_config(composed(*chosen)).env.bootstrap_row is False
    with pytest.raises(ConfigError, match=f"belongs to hae, and {own_module} reads one value head"):
        check(composed(*chosen, "critic.use_two_heads_critic=True"))


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("bootstraps", [True, False])
def test_states_after_the_step_limit_are_recorded_for_estimators_that_value_them(name, bootstraps):
    """The agent loop reads this value, and knows no estimator."""
    config = composed(
        f"algorithm.adv_estimator={name}",
        f"algorithm.hae.bootstrap_truncated={bootstraps}",
        "actor_rollout_ref.model.path=somewhere",
    )
    assert verl_config(config).env.bootstrap_row is (bootstraps and name in ("hae", "turn_gae"))


def test_a_users_estimator_by_hand(own_module):
    """gamma = 1/2. Won: 8 after 0 and 0, so 2, 4, 8. Cut after two turns with 16 to come: 4, 8. Values are 1."""
    turns = turn_grids(
        rewards=[[0.0, 0.0, 8.0], [0.0, 0.0, 0.0]],
        lengths=[3, 2],
        terminated=[True, False],
        values=torch.ones(2, 3, 3),
        bootstrap=torch.full((2, 3), 16.0),
    )
    result = estimate_advantages(turns, config_of(own_module, gamma=0.5))
    assert result.targets[..., ValueSlot.HIGH].tolist() == [[2.0, 4.0, 8.0], [4.0, 8.0, 0.0]]
    assert result.action.tolist() == [[1.0, 3.0, 7.0], [3.0, 7.0, 0.0]]
    assert result.has_target[..., ValueSlot.HIGH].tolist() == turns.valid.tolist()
    assert not result.has_target[..., ValueSlot.LOW :].any()


# ---------------------------------------------------------------------------------------------------------------------
# What holds for every function of the table


def config_of(name: str, gamma: float = 0.9, **options) -> EstimatorConfig:
    hae = HAEConfig(gamma=gamma, lam_turn=0.8, lam_seg=0.7, lam_boundary=0.5, bootstrap_truncated=True)
    return EstimatorConfig(name, replace(hae, **options), ShapingConfig(), whiten=False)


def turn_grids(
    rewards: list[list[float]],
    lengths: list[int],
    terminated: list[bool],
    values: Tensor | None = None,
    bootstrap: Tensor | None = None,
    boundary: Tensor | None = None,
    group: Tensor | None = None,
) -> TurnGrids:
    """Episodes of these lengths; two of a group, observations alternate between two, every reply is well formed."""
    rewards_ET = torch.tensor(rewards)
    width = rewards_ET.shape[1]
    length_E1 = torch.tensor(lengths)[:, None]
    valid = torch.arange(width) < length_E1
    ends = torch.arange(width) == length_E1 - 1
    boundary = torch.ones_like(valid) if boundary is None else boundary
    return TurnGrids(
        rewards=rewards_ET * valid,
        valid=valid,
        boundary=boundary & valid,
        copied_exactly=valid,
        comparable=valid,
        well_formed=valid,
        admissible=valid,
        terminated=ends & torch.tensor(terminated)[:, None],
        anchor=(torch.arange(width) % 2).expand_as(valid),
        group=torch.arange(len(lengths)) // 2 if group is None else group,
        switch_probability=torch.full(valid.shape, 0.25),
        values=values,
        bootstrap=bootstrap,
    )


@st.composite
def batches(draw) -> TurnGrids:
    """Any few episodes, with values and a bootstrap."""
    episodes, width = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    lengths = draw(st.lists(st.integers(1, width), min_size=episodes, max_size=episodes))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    rewards = torch.randint(-2, 3, (episodes, width), generator=generator).float()
    boundary = torch.rand(episodes, width, generator=generator) < 0.5
    boundary[:, 0] = True
    return turn_grids(
        rewards.tolist(),
        lengths,
        draw(st.lists(st.booleans(), min_size=episodes, max_size=episodes)),
        torch.randn(episodes, width, 3, generator=generator),
        torch.randn(episodes, 3, generator=generator),
        boundary,
    )


def with_grids(turns: TurnGrids, change) -> TurnGrids:
    """The batch with `change(name, grid)` in place of each of its tensors."""
    return TurnGrids(**{field.name: change(field.name, getattr(turns, field.name)) for field in fields(turns)})


def results(turns: TurnGrids, config: EstimatorConfig) -> dict[str, Tensor]:
    advantages = estimate_advantages(turns, config)
    whitened = whiten_advantages(turns, advantages, replace(config, whiten=True))
    return {
        **{name: getattr(advantages, name) for name in (*DECISIONS, "targets", "has_target")},
        **{f"whitened {name}": grid for name, grid in zip(DECISIONS, whitened, strict=True)},
    }


@pytest.mark.parametrize("switch_advantage", ["segment_return", "termination"])
@pytest.mark.parametrize("name", OWN)
@given(turns=batches())
def test_without_rewards_and_values_there_is_nothing_to_learn(name, switch_advantage, turns):
    nothing = replace(
        turns,
        rewards=torch.zeros_like(turns.rewards),
        values=torch.zeros_like(turns.values),
        bootstrap=torch.zeros_like(turns.bootstrap),
    )
    result = results(nothing, config_of(name, switch_advantage=switch_advantage))
    assert not any(grid.any() for key, grid in result.items() if key != "has_target")


@pytest.mark.parametrize("name", OWN)
@given(turns=batches(), columns=st.integers(1, 3))
def test_padding_changes_nothing(name, turns, columns):
    """Columns without a turn, full of what padding may hold."""

    def padded(key: str, grid: Tensor) -> Tensor:
        if key in ("group", "bootstrap"):
            return grid
        fill = {torch.bool: key not in ("valid", "boundary", "terminated"), torch.int64: 0}.get(grid.dtype, 1e6)
        return torch.cat([grid, torch.full((len(grid), columns, *grid.shape[2:]), fill, dtype=grid.dtype)], dim=1)

    width = turns.valid.shape[1]
    wider = results(with_grids(turns, padded), config_of(name))
    for key, grid in results(turns, config_of(name)).items():
        assert torch.equal(wider[key][:, :width], grid), key
        assert not wider[key][:, width:].any(), key


@pytest.mark.parametrize("name", OWN)
@given(turns=batches(), random=st.randoms(use_true_random=False))
def test_the_order_of_episodes_does_not_matter(name, turns, random):
    order = list(range(len(turns.valid)))
    random.shuffle(order)
    permuted = results(with_grids(turns, lambda key, grid: grid[order]), config_of(name))
    for key, grid in results(turns, config_of(name)).items():
        torch.testing.assert_close(permuted[key], grid[order], rtol=1e-5, atol=1e-5, msg=key)


@pytest.mark.parametrize("name", OWN)
@given(turns=batches())
def test_advantages_and_targets_stand_on_the_turns_that_carry_them(name, turns):
    result = results(turns, config_of(name))
    for key in ("switch", "action", "whitened switch", "whitened action"):
        assert not result[key][~turns.valid].any(), key
    for key in ("subgoal", "whitened subgoal"):
        assert not result[key][~turns.opens].any(), key
    entry = find_estimator(name)
    assert result["has_target"].any() == entry.has_critic
    assert not result["has_target"][~turns.valid].any() and not result["targets"][~result["has_target"]].any()
    if not entry.is_hierarchical:
        assert torch.equal(result["switch"], result["action"])


@pytest.mark.parametrize("name", [name for name in OWN if not find_estimator(name).has_critic])
@given(turns=batches())
def test_estimators_without_a_critic_read_no_values(name, turns):
    without = replace(turns, values=None, bootstrap=None)
    for key, grid in results(turns, config_of(name)).items():
        assert torch.equal(results(without, config_of(name))[key], grid), key


def test_one_advantage_for_a_turn_is_shared_by_its_decisions():
    turns = turn_grids([[1.0, 2.0]], [2], [True], boundary=torch.tensor([[True, False]]))
    advantage, targets = torch.tensor([[3.0, 4.0]]), torch.tensor([[5.0, 6.0]])
    made = TurnAdvantages.of_turns(turns, None, advantage, targets)
    assert made.switch.tolist() == made.action.tolist() == [[3.0, 4.0]] and made.subgoal.tolist() == [[3.0, 0.0]]
    assert made.targets.tolist() == [[[5.0, 0.0, 0.0], [6.0, 0.0, 0.0]]]


def test_keys_that_all_estimators_read_are_in_every_entry():
    assert all(find_estimator(name).keys >= SHARED_KEYS for name in OWN)
