# SPDX-License-Identifier: Apache-2.0
"""The folder in which a Ray that the run starts keeps its sockets, logs and spilled objects."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from recipe.hiper.preflight.folders import FolderState, read_folder, write_problems

LONGEST_SOCKET_PATH = 107
"""Bytes of the path of a Unix socket (`ray._private.utils.validate_socket_filepath`)."""

FULL_SHARE = 0.95
"""Ray creates no object on a disk with a larger used share; `RAY_local_fs_capacity_threshold` replaces the value."""

CONFIGURED = "ray_kwargs.ray_init._temp_dir"


@dataclass(frozen=True)
class RayFolder:
    """Ray's temporary folder.

    Attributes:
        state: the folder and its disk.
        written: its path as Ray gets it.
        chosen_by: `_temp_dir` of the configuration, RAY_TMPDIR, TMPDIR, or empty: Ray's default.
        process: number of the process that calls `ray.init`, which is a part of the path.
        full_share: used share of the disk from which on Ray creates no object there.
    """

    state: FolderState
    written: str
    chosen_by: str
    process: int
    full_share: float = FULL_SHARE

    @property
    def socket_bytes(self) -> int:
        """Length of the path of the longest socket, Ray's object store, whose name has the time of the start."""
        session = f"session_YYYY-MM-DD_HH-MM-SS_ffffff_{self.process}"
        return len(os.fsencode(os.path.join(self.written, session, "sockets", "plasma_store")))

    @property
    def remedy(self) -> str:
        """What to type to choose another folder."""
        if self.chosen_by == CONFIGURED:
            return f"{CONFIGURED}=/tmp/ray-$USER"
        return "export RAY_TMPDIR=/tmp/ray-$USER"


def folder_path(config: DictConfig, environment: Mapping[str, str]) -> tuple[str, str]:
    """Ray's temporary folder and what chose it, see `RayFolder`. Ray puts a folder `ray` into RAY_TMPDIR and TMPDIR."""
    configured = OmegaConf.select(config, CONFIGURED)
    if configured is not None:
        return str(configured), CONFIGURED
    for name in ("RAY_TMPDIR", "TMPDIR"):
        if name in environment:
            return os.path.join(environment[name], "ray"), name
    return "/tmp/ray", ""


def read_ray_folder(config: DictConfig, environment: Mapping[str, str]) -> RayFolder:
    """The folder that `ray.init` of this process would use."""
    path, chosen_by = folder_path(config, environment)
    try:
        full_share = float(environment.get("RAY_local_fs_capacity_threshold", FULL_SHARE))
    except ValueError:  # Ray itself refuses the value
        full_share = FULL_SHARE
    return RayFolder(read_folder(Path(path)), path, chosen_by, os.getpid(), full_share)


def ray_folder_problems(folder: RayFolder) -> Iterator[str]:
    """A message for each reason why Ray could not start, or not store objects, in its temporary folder."""
    name = "Ray's temporary folder" + (f" ({folder.chosen_by})" if folder.chosen_by else "")
    if folder.chosen_by == CONFIGURED and not os.path.isabs(folder.written):
        yield f"{CONFIGURED}={folder.written}: Ray accepts an absolute path only. Try: {folder.remedy}"
        return
    yield from write_problems(folder.state, name, folder.remedy)
    if folder.socket_bytes > LONGEST_SOCKET_PATH:
        yield (
            f"{name}: {folder.written} is too long. With the names that Ray appends, the path of a socket has "
            f"{folder.socket_bytes} bytes, and Linux allows {LONGEST_SOCKET_PATH}. Try: {folder.remedy}"
        )
    if folder.state.used_share > folder.full_share:
        setting = CONFIGURED if folder.chosen_by == CONFIGURED else "export RAY_TMPDIR"
        yield (
            f"{name}: the disk of {folder.state.nearest} is {folder.state.used_share:.1%} full "
            f"({folder.state.free / 1e9:,.1f} GB free), and Ray stores no object on a disk above "
            f"{folder.full_share:.0%}. Try: {setting}=<folder with a short path on another disk>, or export "
            "RAY_local_fs_capacity_threshold=0.99"
        )
