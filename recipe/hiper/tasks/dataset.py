# SPDX-License-Identifier: Apache-2.0
"""Tasks as a data set for verl's data loader: each row is a task to be played."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from agent_system.environments.base import TaskSpec
from agent_system.environments.tasks import TaskPanel, training_order


def write_task_file(path: Path, panel: TaskPanel, split: str, rows: int, order_seed: int | None) -> None:
    """Write the file that `TaskDataset` reads.

    Args:
        path: a JSON file.
        panel: the tasks.
        split: "train" or "val".
        rows: length of the data set: tasks of the whole run, over as many epochs as that needs.
        order_seed: seed of the training order; None keeps the panel's order (evaluation).
    """
    document = {
        "split": split,
        "rows": rows,
        "order_seed": order_seed,
        "digest": panel.digest,
        "tasks": [asdict(task) for task in panel.tasks],
        "content_hashes": list(panel.content_hashes),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")


class TaskDataset(Dataset):
    """The tasks of a run in the order in which they are played. `data.custom_cls` names this class.

    Which task is played at which step depends on the panel and the seed alone, not on torch's random state. A resumed
    run therefore plays the tasks that an uninterrupted one would have played.

    Args:
        data_files: path of a file written by `write_task_file` (`data.train_files` or `data.val_files`).
        tokenizer, processor, config, max_samples: part of verl's interface; `max_samples` shortens the data set when it
            is positive (`data.train_max_samples`, `data.val_max_samples`).
    """

    def __init__(self, data_files, tokenizer=None, processor=None, config=None, max_samples: int = -1):
        document = json.loads(Path(data_files).read_text(encoding="utf-8"))
        panel = TaskPanel(tuple(TaskSpec(**task) for task in document["tasks"]), tuple(document["content_hashes"]))
        rows = document["rows"] if max_samples <= 0 else min(max_samples, document["rows"])
        seed = document["order_seed"]
        self.split = document["split"]
        self.tasks = panel.tasks[:rows] if seed is None else tuple(islice(training_order(panel, seed), rows))

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, index: int) -> dict[str, Any]:
        task = self.tasks[index]
        return {
            # verl needs a conversation here; the agent loop writes the real prompts turn by turn.
            "raw_prompt": [{"role": "user", "content": task.task_id}],
            "index": index,
            "agent_name": "episode",
            "data_source": task.kind,
            "reward_model": {"style": "environment", "ground_truth": ""},
            "task": {**asdict(task), "options": dict(task.options)},
            "split": self.split,
        }
