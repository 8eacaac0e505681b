# SPDX-License-Identifier: Apache-2.0
"""The tasks of a run, in the order in which they are played."""

from __future__ import annotations

import json

import pytest
import torch

from agent_system.environments.base import TaskSpec
from agent_system.environments.tasks import TaskPanel
from recipe.hiper.tasks.dataset import TaskDataset, write_task_file


def panel(size: int) -> TaskPanel:
    tasks = (
        TaskSpec("hiper/ALFWorld-v0", f"task-{i}", f"kind-{i % 3}", i, {"game_file": f"{i}.tw"}) for i in range(size)
    )
    return TaskPanel(tuple(tasks), tuple(f"hash-{i}" for i in range(size)))


def dataset(folder, size: int = 7, rows: int = 20, seed: int | None = 0, split="train", **options) -> TaskDataset:
    path = folder / "tasks" / f"{split}.json"
    write_task_file(path, panel(size), split, rows, seed)
    return TaskDataset(str(path), **options)


def ids(data: TaskDataset) -> list[str]:
    return [data[index]["task"]["task_id"] for index in range(len(data))]


def test_the_order_depends_on_the_seed_alone(tmp_path):
    torch.manual_seed(1)
    first = ids(dataset(tmp_path))
    torch.manual_seed(2)
    assert ids(dataset(tmp_path)) == first
    assert ids(dataset(tmp_path, seed=1)) != first


def test_every_epoch_plays_every_task_in_an_order_of_its_own(tmp_path):
    played = ids(dataset(tmp_path, size=7, rows=20))
    assert len(played) == 20
    assert set(played[:7]) == set(played[7:14]) == {f"task-{i}" for i in range(7)}
    assert played[:7] != played[7:14]


def test_a_longer_run_begins_with_the_tasks_of_a_shorter_one(tmp_path):
    """A run that is resumed with more steps plays the tasks that it would have played."""
    assert ids(dataset(tmp_path, rows=30))[:12] == ids(dataset(tmp_path, rows=12))


def test_held_out_tasks_keep_the_order_of_the_panel(tmp_path):
    assert ids(dataset(tmp_path, rows=7, seed=None, split="val")) == [f"task-{i}" for i in range(7)]


@pytest.mark.parametrize(("max_samples", "length"), [(-1, 20), (5, 5), (100, 20)])
def test_verls_max_samples_shortens(tmp_path, max_samples, length):
    assert len(dataset(tmp_path, max_samples=max_samples)) == length


def test_a_row_holds_the_whole_task(tmp_path):
    data = dataset(tmp_path, split="val", seed=None)
    row = data[3]
    assert TaskSpec(**row["task"]) == TaskSpec("hiper/ALFWorld-v0", "task-3", "kind-0", 3, {"game_file": "3.tw"})
    assert (row["split"], row["agent_name"], row["data_source"], row["index"]) == ("val", "episode", "kind-0", 3)


def test_the_file_says_which_tasks_were_played(tmp_path):
    dataset(tmp_path, size=4)
    document = json.loads((tmp_path / "tasks" / "train.json").read_text())
    assert document["digest"] == panel(4).digest
    assert document["content_hashes"] == [f"hash-{i}" for i in range(4)]
