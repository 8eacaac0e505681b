# SPDX-License-Identifier: Apache-2.0
"""Facts about a folder that may not exist yet: its owner, whether it can be written, what its disk has free."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FolderState:
    """A folder and its disk.

    Attributes:
        path: absolute.
        nearest: `path`, or the nearest parent that exists.
        is_folder: whether `nearest` is a folder, and not a file in its way or a link to nothing.
        owner: user name of the owner of `nearest`, or the number where it has no name.
        user: name of the user of this process.
        writable: whether this process may create files in `nearest`.
        free: bytes that this user may still write on the disk.
        capacity: bytes of the disk.
        free_files: files that this user may still create; None where the file system has no limit of its own.
    """

    path: Path
    nearest: Path
    is_folder: bool
    owner: str
    user: str
    writable: bool
    free: int
    capacity: int
    free_files: int | None

    @property
    def obstacle(self) -> str:
        """Why a folder that is not writable is not."""
        if not self.is_folder:
            return f"{self.nearest} is not a folder"
        if self.owner != self.user:
            return f"{self.nearest} belongs to user {self.owner}, and this is {self.user}"
        return f"{self.nearest} is read-only"

    @property
    def used_share(self) -> float:
        """Share of the disk that this user cannot write any more, as Ray computes it; 0 to 1."""
        return 1 - self.free / self.capacity if self.capacity else 0.0


def read_folder(path: Path) -> FolderState:
    """Look at a folder, or at the place where it would be created. Creates nothing."""
    path = path.absolute()
    # A link to nothing exists here: a folder cannot be created in its place
    nearest = next(folder for folder in (path, *path.parents) if os.path.lexists(folder))
    disk = os.statvfs(nearest if nearest.exists() else nearest.parent)
    return FolderState(
        path=path,
        nearest=nearest,
        is_folder=nearest.is_dir(),
        owner=_user_name(os.lstat(nearest).st_uid),
        user=_user_name(os.geteuid()),
        writable=nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK),
        free=disk.f_bavail * disk.f_frsize,
        capacity=disk.f_blocks * disk.f_frsize,
        free_files=disk.f_favail if disk.f_files else None,
    )


def _user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:  # usual in containers
        return str(number)


def write_problems(folder: FolderState, name: str, remedy: str) -> Iterator[str]:
    """A message where nothing can be written in a folder.

    Args:
        name: what the folder is for, and what chose it.
        remedy: what to type.
    """
    if not folder.writable:
        what = "written" if folder.nearest == folder.path else "created"
        yield f"{name}: {folder.path} cannot be {what}, because {folder.obstacle}. Try: {remedy}"
