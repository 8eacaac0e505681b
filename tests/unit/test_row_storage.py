# SPDX-License-Identifier: Apache-2.0
"""The rows of a step fit into TransferQueue, however many there are."""

from __future__ import annotations

import pytest
from made_config import composed, verls_own
from transfer_queue.storage.simple_storage import StorageUnitData

TASKS, EPISODES, TURNS = 128, 16, 50
ROWS = TASKS * EPISODES * TURNS
"""A step of groups with profile=gpu: data.train_batch_size times env.rollout.n times env.max_steps."""


def store_all(config) -> StorageUnitData:
    storage = StorageUnitData(config.transfer_queue.backend.SimpleStorage.total_storage_size)
    storage.put_data({"reward": list(range(ROWS))}, list(range(ROWS)))
    return storage


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_a_large_step_is_stored(profile):
    assert store_all(composed(profile=profile)).get_data(["reward"], [ROWS - 1]) == {"reward": [ROWS - 1]}


def test_verls_own_limit_would_end_it_after_all_was_played():
    with pytest.raises(ValueError, match="Storage capacity exceeded"):
        store_all(verls_own())
