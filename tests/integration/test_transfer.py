# SPDX-License-Identifier: Apache-2.0
"""The queue of a run in a real Ray cluster: a second run is refused, and the next one is not."""

from __future__ import annotations

import pytest
import ray
from omegaconf import OmegaConf

from recipe.hiper.trainer.transfer import ClusterInUse, connect, disconnect

pytestmark = pytest.mark.engine


def test_a_second_run_in_the_same_ray_cluster_is_refused():
    """verl would let it join the queue of the first: it would train on the episodes of the other run."""
    backend = {
        "storage_backend": "SimpleStorage",
        "SimpleStorage": {"total_storage_size": 100, "num_data_storage_units": 1},
    }
    config = OmegaConf.create({"backend": backend})
    ray.init(num_cpus=4, include_dashboard=False)
    try:
        connect(config)
        with pytest.raises(ClusterInUse, match=r"(?s)another run uses the Ray cluster at .*Try: unset RAY_ADDRESS"):
            connect(config)
        disconnect()
        connect(config)  # the first run has ended
        disconnect()
    finally:
        ray.shutdown()
