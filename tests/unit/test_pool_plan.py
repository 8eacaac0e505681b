# SPDX-License-Identifier: Apache-2.0
"""The layout of an environment pool, worked out before anything is started."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_config import composed

from agent_system.environments.pool import ENVS_PER_WORKER, PoolSizes, plan_pool
from agent_system.errors import ConfigError


@pytest.mark.parametrize(
    ("episodes", "cpus", "per_worker", "expected"),
    [
        (128, 16, 0.1, PoolSizes(8, 16)),
        (128, 2, 0.1, PoolSizes(2, 64)),
        (128, 2, 1, PoolSizes(2, 64)),
        (128, 64, 0, PoolSizes(8, 16)),
        (5, 16, 0.1, PoolSizes(1, 5)),
        (128, 0.5, 0.1, PoolSizes(1, 128)),
        (100, 3, 1, PoolSizes(3, 34)),
    ],
)
def test_layouts(episodes, cpus, per_worker, expected):
    assert plan_pool(episodes, cpus, per_worker) == expected


@given(st.integers(1, 2000), st.floats(0.1, 200), st.floats(0, 1))
def test_a_layout_fits_and_has_a_slot_for_every_episode(episodes, cpus, per_worker):
    if per_worker > cpus:
        with pytest.raises(ConfigError):
            plan_pool(episodes, cpus, per_worker)
        return
    sizes = plan_pool(episodes, cpus, per_worker)
    assert sizes.num_workers * per_worker <= cpus * (1 + 1e-6)
    assert sizes.num_workers * sizes.envs_per_worker >= episodes
    assert sizes.num_workers <= max(1, math.ceil(episodes / ENVS_PER_WORKER))


def test_cores_that_only_ray_believes_in_do_not_count():
    assert plan_pool(128, 16, 0.5, cores=2) == PoolSizes(2, 64)


def test_cores_that_training_processes_have_reserved_count():
    """16 cores and 4 GPUs: verl reserves 12, which wait while episodes are played; the trainer's process has one."""
    profile = composed(profile="gpu")
    per_worker = profile.env.resources_per_worker.num_cpus
    assert plan_pool(profile.data.train_batch_size, 16 - 1 - 4 * 3, per_worker, cores=16) == PoolSizes(8, 16)


def test_given_numbers_are_kept():
    assert plan_pool(128, 16, 0.5, num_workers=3) == PoolSizes(3, 43)
    assert plan_pool(128, 16, 0.5, envs_per_worker=4) == PoolSizes(16, 4)
    assert plan_pool(128, 16, 0.5, num_workers=2, envs_per_worker=4) == PoolSizes(2, 4)


@pytest.mark.parametrize(
    ("cpus", "per_worker", "workers", "override"),
    [(2, 4, None, "num_cpus=2"), (0, 0.1, None, "num_cpus=0"), (2, 0.5, 8, "num_cpus=0.25")],
)
def test_too_few_cpus_is_refused_with_an_override_that_works(cpus, per_worker, workers, override):
    with pytest.raises(ConfigError, match=rf"env\.resources_per_worker\.{override}(\.0)?$") as refusal:
        plan_pool(128, cpus, per_worker, num_workers=workers)
    assert f"{cpus} free" in str(refusal.value)
    suggested = float(str(refusal.value).rsplit("=", 1)[1])
    assert plan_pool(128, cpus, suggested, num_workers=workers).num_workers >= 1


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"episodes_in_flight": 0}, "episodes in flight"),
        ({"num_cpus_per_worker": -1}, "env.resources_per_worker.num_cpus=-1"),
        ({"num_cpus_per_worker": math.nan}, "env.resources_per_worker.num_cpus=nan"),
        ({"num_workers": 0}, "env.pool.num_workers=0"),
        ({"envs_per_worker": -3}, "env.pool.envs_per_worker=-3"),
    ],
)
def test_values_out_of_range_are_named(arguments, key):
    with pytest.raises(ConfigError, match=key):
        plan_pool(**{"episodes_in_flight": 8, "available_cpus": 4.0, "num_cpus_per_worker": 0.1, **arguments})
