# SPDX-License-Identifier: Apache-2.0
"""Two processes that save their parts of a model, as verl's checkpoint manager does. Imports torch alone."""

from __future__ import annotations

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


def save_part(rank: int, folder: str) -> None:
    """Rank `rank` of two: its part of a layer whose five rows are not divisible by two."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 5)
    torch.save(module.state_dict(), f"{folder}/whole_{rank}.pt")
    fully_shard(module, mesh=init_device_mesh("cpu", (2,), mesh_dim_names=("fsdp",)))
    torch.save(module.state_dict(), f"{folder}/model_world_size_2_rank_{rank}.pt")
    torch.distributed.destroy_process_group()


def save_parts(folder: str) -> None:
    """Both parts."""
    torch.multiprocessing.spawn(save_part, args=(folder,), nprocs=2)
