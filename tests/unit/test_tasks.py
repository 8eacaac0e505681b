# SPDX-License-Identifier: Apache-2.0
"""Panels of tasks: the same on every machine, drawn and ordered by the seed alone."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_system.environments.base import TaskSpec
from agent_system.environments.tasks import TaskPanel, epoch_order, held_out_subset, training_order
from agent_system.errors import ConfigError

KINDS = ("look", "pick", "heat")


def make_panel(sizes: dict[str, int], folder: str = "/here") -> TaskPanel:
    ids = [(f"train/{kind}/{number:03d}", kind) for kind, size in sizes.items() for number in range(size)]
    tasks = tuple(TaskSpec("env-v0", name, kind, 0, {"game_file": f"{folder}/{name}"}) for name, kind in sorted(ids))
    return TaskPanel(tasks, tuple(f"hash of {task.task_id}" for task in tasks))


panels = st.dictionaries(st.sampled_from(KINDS), st.integers(1, 12), min_size=1).map(make_panel)


def test_digest_ignores_where_the_files_lie():
    assert make_panel({"pick": 3}, "/here").digest == make_panel({"pick": 3}, "/elsewhere").digest


def test_digest_is_the_documented_hash():
    panel = TaskPanel((TaskSpec("e-v0", "a", "pick", 7),), ("c0ffee",))
    # printf 'e-v0\ta\tpick\t7\tc0ffee\n' | sha256sum
    assert panel.digest == "7b0a694f5ee23c96cf22dcadd21303691aac381cdc9c13337056fec45a917357"


def test_digest_sees_content_order_and_membership():
    panel = make_panel({"pick": 3})
    changed = TaskPanel(panel.tasks, ("other", *panel.content_hashes[1:]))
    digests = {p.digest for p in (panel, changed, panel.select([0, 2, 1]), panel.select([0, 1]))}
    assert len(digests) == 4


def test_a_panel_refuses_duplicates_and_missing_hashes():
    task = TaskSpec("e-v0", "a", "pick", 0)
    with pytest.raises(ValueError, match="same task_id"):
        TaskPanel((task, task), ("x", "y"))
    with pytest.raises(ValueError, match="1 tasks, but 2"):
        TaskPanel((task,), ("x", "y"))


@given(panels, st.data(), st.integers(0, 5))
def test_held_out_subset_keeps_size_order_and_proportions(panel, data, seed):
    size = data.draw(st.integers(1, len(panel)))
    subset = held_out_subset(panel, size, seed)
    assert len(subset) == size
    places = [panel.tasks.index(task) for task in subset.tasks]
    assert places == sorted(set(places))
    everything, drawn = Counter(t.kind for t in panel.tasks), Counter(t.kind for t in subset.tasks)
    for kind, count in everything.items():
        assert abs(drawn[kind] - size * count / len(panel)) < 1
    assert subset.content_hashes == tuple(f"hash of {task.task_id}" for task in subset.tasks)


def test_held_out_subset_depends_on_the_seed_alone():
    panel = make_panel({"pick": 40, "look": 20})
    assert held_out_subset(panel, 12, 1).digest == held_out_subset(panel, 12, 1).digest
    assert held_out_subset(panel, 12, 1).digest != held_out_subset(panel, 12, 2).digest
    shuffled = panel.select(list(reversed(range(len(panel)))))
    same = {task.task_id for task in held_out_subset(panel, 12, 1).tasks}
    assert {task.task_id for task in held_out_subset(shuffled, 12, 1).tasks} == same


@pytest.mark.parametrize("size", [0, -1, 4])
def test_held_out_subset_refuses_impossible_sizes(size):
    with pytest.raises(ConfigError, match="the panel has 3"):
        held_out_subset(make_panel({"pick": 3}), size, 0)


@given(panels, st.integers(0, 3), st.integers(0, 40))
def test_training_order_can_be_entered_anywhere(panel, seed, start):
    stream = list(islice(training_order(panel, seed), start + 5))
    assert list(islice(training_order(panel, seed, start), 5)) == stream[start:]


def test_every_epoch_holds_every_task_in_an_order_of_its_own():
    panel = make_panel({"pick": 30})
    epochs = [epoch_order(panel, 0, epoch) for epoch in range(3)]
    assert all(sorted(t.task_id for t in epoch) == [t.task_id for t in panel.tasks] for epoch in epochs)
    orders = {tuple(t.task_id for t in order) for order in [*epochs, epoch_order(panel, 1, 0)]}
    assert len(orders) == 4
