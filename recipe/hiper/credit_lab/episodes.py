# SPDX-License-Identifier: Apache-2.0
"""Recorded episodes, read back into the grids that the estimators take. For the credit lab.

The files are those of `run_dir.recorder`: a JSON line for each episode. Anything that does not fit that format is an
error that names file, line and field. What a run could not record (values without a critic, credit in validation) is
no error but a reason to skip some estimators.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from agent_system.errors import ConfigError
from agent_system.rollout.records import TurnRecord
from recipe.hiper.estimators.registry import TurnGrids
from recipe.hiper.estimators.values import ValueSlot

ONCE = {"task_id", "kind", "split", "stop", "won", "score", "bootstrap"}
"""Attributes of a record that an episode file has once for the episode, or not at all."""
TURN_FIELDS = {field.name for field in fields(TurnRecord)} - ONCE
NEW_FIELDS = {"cut"}
"""Of these, files of earlier versions have none, and the lab reads none."""
CREDIT_FIELDS = {"shaped_reward", "values", "advantages", "switch_probability"}
VALUES = tuple(head.name.lower() for head in ValueSlot)
ADVANTAGES = ("switch", "subgoal", "action")
FORMAT_HINT = (
    "It was written by another version of HiPER, or is no episode file. Try: that version's lab, or episodes recorded "
    "with this version (<run_dir>/episodes/train_*.jsonl)"
)
LARGEST_NUMBER = 1e100
"""Larger numbers are no rewards or values, and their squares are not finite."""
PROGRESS_BAR_FROM = 4
"""Number of files from which a progress bar is shown."""


@dataclass(frozen=True)
class Episodes:
    """Recorded episodes.

    Attributes:
        turns: the grids, float64. Its rewards are the recorded shaped ones, or the environment's where there are none.
        environment_rewards: `[episodes, turns]`.
        recorded: advantages that the run recorded, `[episodes, turns, 3]` in the order of `ADVANTAGES`; None without.
        won: `[episodes]`.
        is_hierarchical: whether the agent plans; a flat one decides on actions only.
        is_shaped: whether `turns.rewards` are shaped.
        has_one_head: whether the values come from a critic with a single head.
        without_values, without_probability: why there are no values, or no P(SWITCH); "" where there are.
        files: how many files.
    """

    turns: TurnGrids
    environment_rewards: Tensor
    recorded: Tensor | None
    won: Tensor
    is_hierarchical: bool
    is_shaped: bool
    has_one_head: bool
    without_values: str
    without_probability: str
    files: int

    @property
    def group_sizes(self) -> list[int]:
        """Episodes of each group."""
        return list(Counter(self.turns.group.tolist()).values())

    @property
    def cut(self) -> int:
        """Episodes that the step limit cut."""
        return len(self.won) - int((self.turns.terminated & self.turns.valid).any(dim=1).sum())


@dataclass(frozen=True)
class _Episode:
    """One line of a file.

    Attributes:
        place: file and line, for error messages.
        name: the same without the folders of this machine, for what is written.
        group: equal for episodes of one task and seed.
        won: whether it was won.
        turns: as in the file.
    """

    place: str
    name: str
    group: tuple[int, Any, str]
    won: bool
    turns: list[dict[str, Any]]

    @property
    def has_credit(self) -> bool:
        return "values" in self.turns[0]

    @property
    def is_planned(self) -> bool:
        return any(turn["switch"] for turn in self.turns)

    def column(self, *path: str) -> Tensor:
        """One field of every turn, `[turns]`, float64; NaN where it is null."""
        values = []
        for turn in self.turns:
            value: Any = turn
            for name in path:
                value = value[name]
            values.append(math.nan if value is None else value)
        return torch.tensor(values, dtype=torch.float64)


def read_episodes(paths: Sequence[Path]) -> Episodes:
    """Read episode files.

    Raises:
        ConfigError: a file is missing, empty, twice there or not in the format, or the files do not go together.
    """
    known: dict[Path, Path] = {}
    for path in paths:
        if path.resolve() in known:
            raise ConfigError(f"{path} is named twice, and would count twice. Try: name it once")
        known[path.resolve()] = path
    bar = tqdm(paths, "reading", unit="file", disable=None if len(paths) >= PROGRESS_BAR_FROM else True)
    episodes = [episode for number, path in enumerate(bar) for episode in _read_file(number, path)]
    for what, trait in (
        ("credit (training episodes, and not validation)", "has_credit"),
        ("a plan-execute agent", "is_planned"),
    ):
        having, lacking = ([e for e in episodes if getattr(e, trait) == value] for value in (True, False))
        if having and lacking:
            raise ConfigError(
                f"{having[0].place} has {what}, {lacking[0].place} has not. They cannot be compared in one table. "
                "Try: two calls"
            )
    return _grids(episodes, len(paths))


def _read_file(number: int, path: Path) -> Iterator[_Episode]:
    example = "Try: episode files of a run, <run_dir>/episodes/train_000001.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder. Try: the files in it, {path}/train_*.jsonl") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}. {example}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} cannot be read: it is no UTF-8 text ({error.reason}). {example}") from None
    seen: set[tuple[Any, str]] = set()
    for index, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{path}, line {index}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigError(f"{place} is not JSON ({error}). {example}") from None
        episode = _episode(number, place, f"{_short_name(path)}, line {index}", row)
        name = (row.get("step"), row["session"])
        if name in seen:
            raise ConfigError(
                f"{place}: the episode {row['session']} is in the file twice. Try: remove one of the lines"
            )
        seen.add(name)
        yield episode
    if not seen:
        raise ConfigError(f"{path} holds no episode. {example}")


def _short_name(path: Path) -> str:
    """ "<run>/episodes/<file>" for a file of a run, else the name of the file: nothing of this machine's folders."""
    path = path.resolve()
    return "/".join(path.parts[1:][-3:]) if path.parent.name == "episodes" else path.name


def _episode(number: int, place: str, name: str, row: Any) -> _Episode:
    _check(place, row, "session", str)
    _check(place, row, "won", bool)
    _check(place, row, "trajectory", list)
    if not row["trajectory"]:
        raise ConfigError(f"{place}: the episode has no turns. {FORMAT_HINT}")
    has_credit = any(isinstance(turn, dict) and CREDIT_FIELDS & turn.keys() for turn in row["trajectory"])
    for index, turn in enumerate(row["trajectory"]):
        _check_turn(f"{place}, turn {index}", turn, has_credit)
        if turn["turn"] != index:
            raise ConfigError(
                f'{place}: turn {index} has "turn": {turn["turn"]}; one is missing or repeated. {FORMAT_HINT}'
            )
    uid = row["session"].rsplit("_", 1)[0]
    return _Episode(place, name, (number, row.get("step"), uid), row["won"], row["trajectory"])


def _check_turn(place: str, turn: Any, has_credit: bool) -> None:
    expected = TURN_FIELDS | (CREDIT_FIELDS if has_credit else set())
    for name in sorted(expected - NEW_FIELDS):
        _check(place, turn, name, object)
    for name in sorted(turn.keys() - expected):
        raise ConfigError(f'{place} has the field "{name}", which this version does not know. {FORMAT_HINT}')
    for name in ("observation", "switch"):
        _check(place, turn, name, str)
    for name in ("boundary", "copied_exactly", "comparable", "admissible", "terminated"):
        _check(place, turn, name, bool)
    _check(place, turn, "problems", list)
    _check(place, turn, "reward", float)
    if not has_credit:
        return
    _check(place, turn, "shaped_reward", float)
    for name, inner in (("values", VALUES), ("advantages", ADVANTAGES)):
        _check(place, turn, name, dict)
        for key in inner:
            _check(f'{place}, "{name}"', turn[name], key, float, may_be_null=True)
    _check(place, turn, "switch_probability", float, may_be_null=True)


def _check(place: str, row: Any, name: str, kind: type, *, may_be_null: bool = False) -> None:
    """Refuse a row without the field, or with something else in it; float is any number of ordinary size."""
    if not isinstance(row, dict):
        raise ConfigError(f"{place} is no JSON object. {FORMAT_HINT}")
    if name not in row:
        raise ConfigError(f'{place} has no field "{name}". {FORMAT_HINT}')
    value = row[name]
    if value is None and may_be_null:
        return
    if kind is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST_NUMBER
    else:
        fits = isinstance(value, kind)
    if not fits:
        expected = {float: "a number", bool: "true or false", str: "text", list: "a list", dict: "an object"}
        raise ConfigError(f'{place}: "{name}" is {json.dumps(value)[:60]} and not {expected.get(kind)}. {FORMAT_HINT}')


def _grids(episodes: list[_Episode], files: int) -> Episodes:
    def grid(*path: str) -> Tensor:
        return pad_sequence([episode.column(*path) for episode in episodes], batch_first=True)

    def marks(name: str) -> Tensor:
        return grid(name).bool()

    lengths = torch.tensor([len(episode.turns) for episode in episodes])
    valid = torch.arange(int(lengths.max()))[None, :] < lengths[:, None]
    texts = [[turn["observation"] for turn in episode.turns] for episode in episodes]
    number = {text: index for index, text in enumerate(dict.fromkeys(text for row in texts for text in row))}
    group = {name: index for index, name in enumerate(dict.fromkeys(episode.group for episode in episodes))}
    well_formed = [torch.tensor([not turn["problems"] for turn in episode.turns]) for episode in episodes]

    has_credit = episodes[0].has_credit
    probability, values, recorded = torch.zeros(valid.shape, dtype=torch.float64), None, None
    without_values = without_probability = (
        f"{episodes[0].name} records no credit: validation episodes have none, nor have those of a run with "
        "algorithm.adv_estimator=gae. Try: <run_dir>/episodes/train_*.jsonl of another run"
    )
    if has_credit:
        probability = grid("switch_probability")
        values = torch.stack([grid("values", name) for name in VALUES], dim=-1)
        recorded = torch.stack([grid("advantages", name) for name in ADVANTAGES], dim=-1)
        without_values = _nulls(
            episodes, values, "values", "the run had no critic (grpo, rloo, gigpo), or its critic broke"
        )
        without_probability = _nulls(episodes, probability, "switch_probability", "log-probabilities were not finite")
        values = None if without_values else values
        recorded = None if recorded.isnan().any() else recorded
    turns = TurnGrids(
        rewards=grid("shaped_reward") if has_credit else grid("reward"),
        valid=valid,
        boundary=marks("boundary"),
        copied_exactly=marks("copied_exactly"),
        comparable=marks("comparable"),
        well_formed=pad_sequence(well_formed, batch_first=True),
        admissible=marks("admissible"),
        terminated=marks("terminated"),
        anchor=pad_sequence([torch.tensor([number[text] for text in row]) for row in texts], batch_first=True),
        group=torch.tensor([group[episode.group] for episode in episodes]),
        switch_probability=probability.nan_to_num(),
        values=values,
    )
    return Episodes(
        turns=turns,
        environment_rewards=grid("reward"),
        recorded=recorded,
        won=torch.tensor([episode.won for episode in episodes]),
        is_hierarchical=episodes[0].is_planned,
        is_shaped=has_credit,
        has_one_head=values is not None and _is_one_head(values),
        without_values=without_values,
        without_probability=without_probability,
        files=files,
    )


def _nulls(episodes: list[_Episode], grid: Tensor, name: str, cause: str) -> str:
    """Why a field cannot be used; "" if it is nowhere null."""
    bad = grid.isnan().flatten(1).any(dim=1)
    return f'"{name}" are null in {episodes[int(bad.nonzero()[0])].name}: {cause}' if bad.any() else ""


def _is_one_head(values: Tensor) -> bool:
    """High and term are read at the same token: equal everywhere, they come from one head. Low is read at another."""
    high, low, term = values.unbind(dim=-1)
    return bool((high == term).all()) and bool((high != low).any())
