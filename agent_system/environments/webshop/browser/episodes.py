# SPDX-License-Identifier: Apache-2.0
"""Recorded episodes, read from the files of a run (`<run_dir>/episodes/*.jsonl`) and replayed in the shop."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent_system.environments.webshop.browser.sessions import MAX_ACTIONS, ShopSession, ShopSetting
from agent_system.environments.webshop.compact import compact_text, to_site_action
from agent_system.environments.webshop.env import OBSERVATION_MODES
from agent_system.environments.webshop.site import Page
from agent_system.environments.webshop.tasks import parse_task_id
from agent_system.errors import ConfigError, HiPERError, TaskError

_MAX_VALUE_CHARACTERS = 60
"""Characters of an invalid value that an error message repeats."""


@dataclass(frozen=True)
class RecordedTurn:
    """One turn as the pages show it; `agent_system.rollout.records.TurnRecord` describes the fields.

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
class RecordedEpisode:
    """One recorded episode."""

    task_id: str
    split: str
    stop: str
    won: bool
    score: float
    turns: tuple[RecordedTurn, ...]


@dataclass(frozen=True)
class EpisodeEntry:
    """One line of an episode file.

    Attributes:
        file, line, offset: the position of the line; lines count from 1, the offset is in bytes.
        episode: without its turns, to keep a long list small; None where the line cannot be read.
        turns: number of turns.
        problem: why the episode cannot be shown; "" if it can.
    """

    file: Path
    line: int
    offset: int
    episode: RecordedEpisode | None
    turns: int
    problem: str


class EpisodeList:
    """The episodes of some files, in their order. Turns are read when an episode is opened.

    Raises:
        ConfigError: a file cannot be opened.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.entries: list[EpisodeEntry] = []
        for file in files:
            try:
                with file.open("rb") as stream:
                    self._index(file, stream)
            except OSError as error:
                raise ConfigError(
                    f"--episodes {file} cannot be read ({error.strerror}). Try: --episodes RUN_DIR/episodes/*.jsonl"
                ) from error

    def __len__(self) -> int:
        return len(self.entries)

    def _index(self, file: Path, stream) -> None:
        offset = 0
        for number, line in enumerate(stream, start=1):
            if line.strip():
                self.entries.append(_entry(file, number, offset, line))
            offset += len(line)

    def read(self, number: int) -> RecordedEpisode:
        """An episode with its turns.

        Raises:
            TaskError: it cannot be shown; the message has the reason.
        """
        entry = self.entries[number]
        if entry.problem:
            raise TaskError(f"{entry.file}, line {entry.line}: {entry.problem}")
        try:
            with entry.file.open("rb") as stream:
                stream.seek(entry.offset)
                return read_episode(stream.readline())
        except (OSError, TaskError) as error:
            raise TaskError(f"{entry.file}, line {entry.line} was changed after the server started: {error}") from error


def _entry(file: Path, line: int, offset: int, text: bytes) -> EpisodeEntry:
    episode, turns, problem = None, 0, ""
    try:
        episode = read_episode(text)
        turns = len(episode.turns)
        episode = replace(episode, turns=())
        parse_task_id(episode.task_id)
    except TaskError as error:
        problem = str(error)
    return EpisodeEntry(file, line, offset, episode, turns, problem)


def read_episode(line: bytes) -> RecordedEpisode:
    """Parse one line of an episode file.

    Raises:
        TaskError: it is not in the format that `agent_system.rollout.records.episode_json` writes.
    """
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TaskError(f"the line is not JSON ({error}); the file may be incomplete") from error
    if not isinstance(raw, dict):
        raise TaskError("not an episode: the line is not a JSON object")
    rows = _value(raw, "trajectory", list)
    if not rows:
        raise TaskError("not an episode: it has no turns")
    return RecordedEpisode(
        task_id=_value(raw, "task_id", str),
        split=_value(raw, "split", str),
        stop=_value(raw, "stop", str),
        won=_value(raw, "won", bool),
        score=_number(raw, "score"),
        turns=tuple(_turn(row) for row in rows),
    )


def _turn(row: Any) -> RecordedTurn:
    if not isinstance(row, dict):
        raise TaskError("not an episode: a turn is not a JSON object")
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
        raise TaskError(f'not an episode: it has no "{name}"')
    value = row[name]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TaskError(f'not an episode: "{name}" is {repr(value)[:_MAX_VALUE_CHARACTERS]}')
    return value


def _number(row: Mapping[str, Any], name: str) -> float:
    try:
        return float(_value(row, name, int | float))
    except OverflowError as error:
        raise TaskError(f'not an episode: "{name}" is too large for a float') from error


def _credit(row: Mapping[str, Any]) -> dict[str, float | None]:
    """The numbers that a trainer adds to a turn; those of a group are named "group name"."""
    credit: dict[str, float | None] = {}
    for name in ("shaped_reward", "switch_probability", "values", "advantages"):
        if name in row:
            inner = row[name] if isinstance(row[name], dict) else {"": row[name]}
            for key in inner:
                label = f"{name} {key}".strip().replace("_", " ")
                credit[label] = None if inner[key] is None else _number(inner, key)
    return credit


@dataclass(frozen=True)
class Replay:
    """An episode replayed up to some turn.

    Attributes:
        session: the shop before that turn (after the last turn: its final state); None if it cannot be shown.
        problem: what in the episode does not match the shop; "" if everything up to here matches.
        observation: the shop's observation where the agent read a different one, else None.
    """

    session: ShopSession | None
    problem: str = ""
    observation: str | None = None


def replay(episode: RecordedEpisode, folder: Path, turns: int) -> Replay:
    """Replay the first `turns` turns of an episode in the shop of `folder`.

    The observation that the agent read must be the one that the shop shows, turn by turn. The record does not say
    whether items had the page "Attributes": the episode is replayed without it first.
    """
    goals, split, seed, index = parse_task_id(episode.task_id)
    without, with_attributes = (ShopSetting(folder, goals, split, seed, show) for show in (False, True))
    result = _replay(episode, without, index, turns)
    if result.problem and not (other := _replay(episode, with_attributes, index, turns)).problem:
        return other
    return result


def _replay(episode: RecordedEpisode, setting: ShopSetting, index: int, turns: int) -> Replay:
    try:
        session = ShopSession(setting, index)
    except HiPERError as error:
        return Replay(None, f"This shop does not have the task {episode.task_id}: {error}")
    for number, turn in enumerate(episode.turns[: turns + 1], start=1):
        observation = session.site.text()
        if turn.observation not in {observe(session.site) for observe in OBSERVATION_MODES.values()}:
            return Replay(
                None,
                f"From turn {number} on this shop does not show what the agent read. The episode was played in a "
                "different shop (other data, or another version), or its file was changed.",
                observation,
            )
        if session.is_over:
            limit = "after the purchase" if session.site.state.page is Page.DONE else f"beyond {MAX_ACTIONS} actions"
            return Replay(None, f"Turn {number} continues {limit}, which no episode does. The file was changed.")
        if number <= turns:
            session.act(turn_action(turn, session))
    if turns == len(episode.turns) and (problem := _score_difference(episode, session)):
        return Replay(session, problem)
    return Replay(session)


def turn_action(turn: RecordedTurn, session: ShopSession) -> str:
    """The site's action for a turn: an agent that read compact pages names products by their letter."""
    is_compact = turn.observation == compact_text(session.site)
    return to_site_action(session.site, turn.action) if is_compact else turn.action


def _score_difference(episode: RecordedEpisode, session: ShopSession) -> str:
    score = session.score.total if session.score else 0.0
    if score == episode.score:
        return ""
    return f"The run recorded a score of {episode.score:g}; here the same actions have {score:g}."
