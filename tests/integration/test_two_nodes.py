# SPDX-License-Identifier: Apache-2.0
"""Two nodes of a Ray cluster, which are two raylets on this machine: training, weight synchronisation, checkpoints, and
the loss of a node. One training process and one vLLM replica on each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster
from trainer_runs import assert_policies_agree, module_command, train

pytestmark = [pytest.mark.engine, pytest.mark.nightly]

SETTINGS = {
    "profile": "cpu",
    "env.max_steps": 4,
    "env.val_tasks": 4,
    "data.train_batch_size": 4,
    "data.max_prompt_length": 1200,
    "data.max_response_length": 16,
    "algorithm.updates_per_step": 1,
    "trainer.critic_warmup": 0,
    "actor_rollout_ref.actor.optim.lr_warmup_steps": 0,
    "trainer.total_training_steps": 3,
    "trainer.save_freq": 1,
    "trainer.test_freq": -1,
    "trainer.val_before_train": False,
}
TWO_NODES = {"trainer.nnodes": 2, "trainer.n_gpus_per_node": 1}
NODE = {"num_cpus": 8, "num_gpus": 1}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Head and one more node, each with a logical GPU, which is a training process here."""
    made = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    made.add_node(**NODE)
    yield made
    made.shutdown()


@pytest.fixture
def start(tmp_path, hiper_cache, games_in_a_run, tiny_model):
    """Starts a training: `start(name, settings, environment={...}, ...)`."""

    def start(name: str, settings: dict, environment: dict[str, str] | None = None, **how):
        return train(
            module_command("recipe.hiper.main"),
            tmp_path / name,
            SETTINGS | games_in_a_run | {"actor_rollout_ref.model.path": tiny_model} | settings,
            environment={"HIPER_CACHE": str(hiper_cache), **(environment or {})},
            **how,
        )

    return start


def test_a_run_on_two_nodes_is_the_run_on_one(cluster, start):
    two = start("two", TWO_NODES, {"RAY_ADDRESS": cluster.address})
    assert "Ray: the run uses the cluster at" in two.printed
    assert sorted(two.metrics) == [1, 2, 3]
    names = set(json.loads((two.folder / "checkpoints/global_step_3/manifest.json").read_text())["files"])
    assert {f"actor/model_world_size_2_rank_{rank}.pt" for rank in (0, 1)} <= names
    cluster.shutdown()
    one = start("one", {})
    for step in (1, 2, 3):
        assert_policies_agree(two.metrics[step])

    def turns(run) -> list:
        # verl distributes the rows of two processes by length, so episodes come in another order
        episodes = sorted(run.episodes("train", 1), key=lambda episode: episode["task_id"])
        return [turn for episode in episodes for turn in episode["trajectory"]]

    for ours, theirs in zip(turns(two), turns(one), strict=True):
        assert (ours["prompt"], ours["reply"]) == (theirs["prompt"], theirs["reply"])
        assert ours["advantages"] == pytest.approx(theirs["advantages"], abs=1e-5)
    for name in ("actor/grad_norm", "critic/grad_norm", "actor/pg_loss"):
        assert two.metrics[1][name] == pytest.approx(one.metrics[1][name], rel=1e-5, abs=1e-6)


def test_a_node_that_disappears_is_named_and_the_run_resumes(cluster, start, tmp_path):
    address = {"RAY_ADDRESS": cluster.address}
    (node,) = cluster.worker_nodes

    def is_in_step_2() -> bool:
        try:
            return json.loads((tmp_path / "run" / "status.json").read_text())["stage"].startswith("step 2/")
        except (OSError, ValueError):
            return False

    lost = start("run", TWO_NODES, address, interrupt_when=is_in_step_2, accident=lambda _: cluster.remove_node(node))
    assert f"(node {node.node_id[:12]}) left the Ray cluster" in lost.printed
    assert "The same command resumes from the latest checkpoint (step 1)" in lost.printed
    cluster.add_node(**NODE)
    resumed = start("run", TWO_NODES, address)
    assert sorted(resumed.metrics) == [1, 2, 3] and Path(resumed.folder / "checkpoints" / "global_step_3").is_dir()
