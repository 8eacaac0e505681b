# SPDX-License-Identifier: Apache-2.0
"""Recorded episodes, read from the files a run writes (`<run_dir>/episodes/*.jsonl`) and played again in the shop."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent_system.environments.webshop.browser.sessions import MOST_ACTIONS, ShopSetting, Visit
from agent_system.environments.webshop.compact import compact_text, own_action
from agent_system.environments.webshop.env import OBSERVATION_MODES
from agent_system.environments.webshop.site import Page
from agent_system.environments.webshop.tasks import goal_of
from agent_system.errors import ConfigError, HiPERError, TaskError

_SHOWN = 60
"""Characters of a foreign value that an error repeats."""


@dataclass(frozen=True)
class RecordedTurn:
    """What is shown of one turn; see `agent_system.rollout.records.TurnRecord` for the meaning of each value.

    Attributes:
        credit: advantages, values and so on, by name, where the run recorded them.
    """

    prompt: str
    reply: str
    observation: str
    switch: str
    subgoal: str
    action: str
    problems: tuple[str, ...]
    boundary: bool
    subgoal_in_force: str
    admissible: bool
    reward: float
    credit: Mapping[str, float | None]


@dataclass(frozen=True)
class Episode:
    """One recorded episode."""

    task_id: str
    split: str
    stop: str
    won: bool
    score: float
    turns: tuple[RecordedTurn, ...]


@dataclass(frozen=True)
class Entry:
    """One line of an episode file.

    Attributes:
        file, line, offset: where it stands; lines count from 1.
        episode: without its turns, to keep a list of many small; None where the line cannot be read.
        turns: how many there are.
        problem: why it cannot be watched; "" if it can.
    """

    file: Path
    line: int
    offset: int
    episode: Episode | None
    turns: int
    problem: str


class EpisodeList:
    """The episodes of some files, in their order. Turns are read when an episode is asked for.

    Raises:
        ConfigError: a file cannot be opened.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.entries: list[Entry] = []
        for file in files:
            try:
                with file.open("rb") as stream:
                    self._index(file, stream)
            except OSError as error:
                raise ConfigError(
                    f"--episodes {file} cannot be read ({error.strerror}). A run writes <run_dir>/episodes/*.jsonl"
                ) from error

    def __len__(self) -> int:
        return len(self.entries)

    def _index(self, file: Path, stream) -> None:
        offset = 0
        for number, line in enumerate(stream, start=1):
            if line.strip():
                self.entries.append(_entry(file, number, offset, line))
            offset += len(line)

    def read(self, number: int) -> Episode:
        """An episode with its turns.

        Raises:
            TaskError: it cannot be watched; the message says why.
        """
        entry = self.entries[number]
        if entry.problem:
            raise TaskError(f"{entry.file}, line {entry.line}: {entry.problem}")
        try:
            with entry.file.open("rb") as stream:
                stream.seek(entry.offset)
                return read_episode(stream.readline())
        except (OSError, TaskError) as error:
            raise TaskError(f"{entry.file}, line {entry.line}, was changed after the start: {error}") from error


def _entry(file: Path, line: int, offset: int, text: bytes) -> Entry:
    episode, turns, problem = None, 0, ""
    try:
        episode = read_episode(text)
        turns = len(episode.turns)
        episode = replace(episode, turns=())
        goal_of(episode.task_id)
    except TaskError as error:
        problem = str(error)
    return Entry(file, line, offset, episode, turns, problem)


def read_episode(line: bytes) -> Episode:
    """One line of an episode file.

    Raises:
        TaskError: it is no episode as `agent_system.rollout.records.episode_json` writes them.
    """
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TaskError(f"this is no JSON ({error}); the file may have been cut off") from error
    if not isinstance(raw, dict):
        raise TaskError("this is no episode: not a JSON object")
    rows = _value(raw, "trajectory", list)
    if not rows:
        raise TaskError("this is no episode: it has no turns")
    return Episode(
        task_id=_value(raw, "task_id", str),
        split=_value(raw, "split", str),
        stop=_value(raw, "stop", str),
        won=_value(raw, "won", bool),
        score=_number(raw, "score"),
        turns=tuple(_turn(row) for row in rows),
    )


def _turn(row: Any) -> RecordedTurn:
    if not isinstance(row, dict):
        raise TaskError("this is no episode: a turn is not a JSON object")
    texts = ("prompt", "reply", "observation", "switch", "subgoal", "action", "subgoal_in_force")
    return RecordedTurn(
        **{name: _value(row, name, str) for name in texts},
        problems=tuple(str(problem) for problem in _value(row, "problems", list)),
        boundary=_value(row, "boundary", bool),
        admissible=_value(row, "admissible", bool),
        reward=_number(row, "reward"),
        credit=_credit(row),
    )


def _value(row: Mapping[str, Any], name: str, kind: Any) -> Any:
    if name not in row:
        raise TaskError(f'this is no episode: it has no "{name}"')
    value = row[name]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TaskError(f'this is no episode: "{name}" is {repr(value)[:_SHOWN]}')
    return value


def _number(row: Mapping[str, Any], name: str) -> float:
    try:
        return float(_value(row, name, int | float))
    except OverflowError as error:
        raise TaskError(f'this is no episode: "{name}" is no number of ordinary size') from error


def _credit(row: Mapping[str, Any]) -> dict[str, float | None]:
    """The numbers that `recipe.hiper.recorder` adds to a turn, those in groups as "group name"."""
    found: dict[str, float | None] = {}
    for name in ("shaped_reward", "switch_probability", "values", "advantages"):
        if name in row:
            inner = row[name] if isinstance(row[name], dict) else {"": row[name]}
            for key in inner:
                label = f"{name} {key}".strip().replace("_", " ")
                found[label] = None if inner[key] is None else _number(inner, key)
    return found


@dataclass(frozen=True)
class Replay:
    """An episode played again up to some turn.

    Attributes:
        visit: the shop as it was before that turn (after the last one: as it was left); None if it cannot be shown.
        problem: what in the episode does not fit the shop; "" if everything up to here does.
        shown: the shop's observation where the agent read another, else None.
    """

    visit: Visit | None
    problem: str = ""
    shown: str | None = None


def replay(episode: Episode, folder: Path, turns: int) -> Replay:
    """Play the first `turns` turns of an episode in the shop of `folder`.

    What the agent read has to be what the shop shows, turn by turn. Whether items had the page "Attributes" is not
    recorded: the episode is tried without it first.
    """
    goals, split, seed, index = goal_of(episode.task_id)
    without, with_attributes = (ShopSetting(folder, goals, split, seed, show) for show in (False, True))
    played = _replay(episode, without, index, turns)
    if played.problem and not (other := _replay(episode, with_attributes, index, turns)).problem:
        return other
    return played


def _replay(episode: Episode, setting: ShopSetting, index: int, turns: int) -> Replay:
    try:
        visit = Visit(setting, index)
    except HiPERError as error:
        return Replay(None, f"This shop does not have the task {episode.task_id}: {error}")
    for number, turn in enumerate(episode.turns[: turns + 1], start=1):
        shown = visit.site.text()
        if turn.observation not in {observed(visit.site) for observed in OBSERVATION_MODES.values()}:
            return Replay(
                None,
                f"From turn {number} on this shop does not show what the agent read. The episode was played in another "
                "shop (other data, or another version), or its file was changed.",
                shown,
            )
        if visit.over:
            what = "after the purchase" if visit.site.state.page is Page.DONE else f"beyond {MOST_ACTIONS} actions"
            return Replay(None, f"Turn {number} goes on {what}, which no episode does. Its file was changed.")
        if number <= turns:
            visit.act(site_action(turn, visit))
    if turns == len(episode.turns) and (problem := _other_outcome(episode, visit)):
        return Replay(visit, problem)
    return Replay(visit)


def site_action(turn: RecordedTurn, visit: Visit) -> str:
    """What a turn does in the shop: an agent that read compact pages names products by their letter."""
    is_compact = turn.observation == compact_text(visit.site)
    return own_action(visit.site, turn.action) if is_compact else turn.action


def _other_outcome(episode: Episode, visit: Visit) -> str:
    score = visit.score.total if visit.score else 0.0
    if score == episode.score:
        return ""
    return f"The run recorded a score of {episode.score:g}; here the same actions have {score:g}."
