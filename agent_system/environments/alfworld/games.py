# SPDX-License-Identifier: Apache-2.0
"""ALFWorld game files: reading one, and finding all of a data folder's split.

<data>/json_2.1.1/<split>/<task>-<object>-.../trial_.../game.tw-pddl      and beside it: traj_data.json
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from agent_system.environments.alfworld.rooms import TaskKind
from agent_system.environments.base import TaskSpec
from agent_system.environments.tasks import TaskPanel
from agent_system.errors import ConfigError, TaskError

ENV_ID = "hiper/ALFWorld-v0"
DATA_FOLDER = "json_2.1.1"
GAME_NAME = "game.tw-pddl"
TRAJECTORY_NAME = "traj_data.json"
TRAIN = "train"
"""The split that is not held out."""
_TEXTS = ("pddl_domain", "grammar", "pddl_problem")
_UNSUPPORTED = ("movable", "Sliced")
"""The original leaves out every game with one of these in its path: their goals cannot be reached in TextWorld."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GameFile:
    """One playable game.

    Args:
        path: of ``game.tw-pddl``, absolute.
        task_id: the game's folder relative to ``json_2.1.1``, with forward slashes: the same on every machine.
        kind: one of the six task types.
        content_hash: SHA-256 of the file, in hexadecimal.
    """

    path: Path
    task_id: str
    kind: TaskKind
    content_hash: str


def read_game(path: Path) -> dict[str, Any]:
    """The contents of a game file, checked for everything the engine relies on.

    Raises:
        TaskError: the file is missing, not JSON, incomplete, or marked as unsolvable.
    """
    return _check_game(_parse_json(_read_bytes(path), path), path)


def task_kind(path: Path) -> TaskKind | None:
    """The task type of a game: from ``traj_data.json`` beside it, else from the folder's name; None if neither has it.

    Raises:
        TaskError: ``traj_data.json`` is there but cannot be read.
    """
    trajectory = path.parent / TRAJECTORY_NAME
    if trajectory.exists():
        data = _parse_json(_read_bytes(trajectory), trajectory)
        name = data.get("task_type") if isinstance(data, dict) else None
        if not isinstance(name, str):
            raise TaskError(f"{trajectory}: it has no 'task_type'. Try: download or generate the game again")
    else:
        name = path.parent.parent.name.split("-")[0]
    return TaskKind(name) if name in {kind.value for kind in TaskKind} else None


def find_games(data_dir: str | os.PathLike[str] | None, split: str) -> tuple[GameFile, ...]:
    """The playable games of a split, sorted by `task_id`.

    Like the original, leaves out games with ``movable`` or ``Sliced`` in their path, other task types, and games that
    are not marked as solvable.

    Args:
        data_dir: the folder that holds ``json_2.1.1``; None for the one that ALFWORLD_DATA names.
        split: ``train``, ``valid_seen`` or ``valid_unseen``.

    Raises:
        ConfigError: no folder is configured, or it holds no playable game.
        TaskError: a game file is corrupt. It is not skipped, because that would change the panel of tasks silently.
    """
    root = _data_root(data_dir)
    folder = root / split
    games, left_out = [], 0
    for path in sorted(folder.rglob(GAME_NAME), key=lambda path: path.relative_to(root).as_posix()):
        task_id = path.parent.relative_to(root).as_posix()
        if any(word in task_id for word in _UNSUPPORTED):
            left_out += 1
            continue
        kind = task_kind(path)
        content = _read_bytes(path)
        # The original's rule. `read_game`, which reads a game that the caller selected, raises instead.
        data = _parse_json(content, path)
        if kind is None or (isinstance(data, dict) and not data.get("solvable")):
            left_out += 1
            continue
        _check_game(data, path)
        games.append(GameFile(path.resolve(), task_id, kind, sha256(content).hexdigest()))
    if not games and split != TRAIN and not folder.is_dir() and (others := _held_out_splits(root)):
        raise ConfigError(
            f"{root} has no split {split}, but it has {', '.join(others)}. Try: env.alfworld.eval_dataset={others[0]}"
        )
    if not games:
        reason = f"{left_out} unsupported or not solvable" if folder.is_dir() else "no such folder"
        raise ConfigError(
            f"0 playable ALFWorld games in {folder} ({reason}). Try: env.alfworld.data_dir=<folder that holds "
            f"{DATA_FOLDER}>, or ALFWORLD_DATA=<this folder> in the environment, or `alfworld-download` for the "
            "published games"
        )
    logger.info("%d games in %s (%d left out: unsupported or not solvable)", len(games), folder, left_out)
    return tuple(games)


def _held_out_splits(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir() and path.name != TRAIN) if root.is_dir() else []


def alfworld_panel(data_dir: str | os.PathLike[str] | None, split: str) -> TaskPanel:
    """The games of a split as tasks. Raises what `find_games` raises."""
    games = find_games(data_dir, split)
    return TaskPanel(
        tasks=tuple(
            TaskSpec(ENV_ID, game.task_id, game.kind.value, seed=0, options={"game_file": str(game.path)})
            for game in games
        ),
        content_hashes=tuple(game.content_hash for game in games),
    )


def _data_root(data_dir: str | os.PathLike[str] | None) -> Path:
    configured = data_dir or os.environ.get("ALFWORLD_DATA")
    if not configured:
        raise ConfigError(
            "no ALFWorld data folder is configured. Try: env.alfworld.data_dir=<folder that holds "
            f"{DATA_FOLDER}>, or ALFWORLD_DATA=<this folder> in the environment"
        )
    return Path(configured).expanduser() / DATA_FOLDER


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TaskError(f"{path}: cannot be read ({error.strerror or error})") from error


def _parse_json(content: bytes, path: Path) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise TaskError(
            f"{path}: not valid JSON, perhaps cut short ({error}). Try: download or generate it again"
        ) from error


def _check_game(data: Any, path: Path) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise TaskError(
            f"{path}: a JSON object is needed, not a {type(data).__name__}. Try: download or generate the game again"
        )
    wrong = [key for key in _TEXTS if not isinstance(data.get(key), str) or not data[key].strip()]
    if wrong:
        raise TaskError(
            f"{path}: no text under {', '.join(map(repr, wrong))}. Try: download or generate the game again"
        )
    if data.get("solvable") is not True:
        raise TaskError(
            f"{path}: 'solvable' is {data.get('solvable')!r}: the game cannot be won. Try: a game with 'solvable' true"
        )
    return data
