# SPDX-License-Identifier: Apache-2.0
"""ALFWorld: published games, or generated ones that are kept in the cache."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field, field_validator, model_validator

from agent_system.environments.alfworld.game_spec import GameSpec
from agent_system.environments.alfworld.games import DATA_FOLDER, alfworld_panel
from agent_system.environments.alfworld.generate import MANIFEST, generate_games
from agent_system.environments.alfworld.rooms import TaskKind
from agent_system.environments.tasks import TaskPanel
from agent_system.errors import ConfigError
from agent_system.processes import usable_cpus
from recipe.hiper.configuration.schema import WarmStartSettings
from recipe.hiper.configuration.section import Section
from recipe.hiper.tasks.family import ColdStartSpec, Family, adapted, cold_start_of, fine_tuned

EVAL_SPLITS = {
    "valid_seen": "valid_seen",
    "valid_unseen": "valid_unseen",
    "eval_in_distribution": "valid_seen",
    "eval_out_of_distribution": "valid_unseen",
}
"""Values of `env.alfworld.eval_dataset`; the long ones are the released code's."""


class GeneratedGames(Section):
    """The section `env.alfworld.generated`: what the generated games are like."""

    dir: str | None = Field(None, min_length=1)
    """folder of the games; null: a folder in the cache that is named after this section"""
    receptacles: list[int] | None = None
    """[fewest, most] receptacles of a room; null: all of the floor plan, as in the published games"""
    same_kind: int = Field(4, ge=1)
    """receptacles of one kind in a room at most, where `receptacles` is a range"""
    objects_per_receptacle: int = Field(4, ge=1)
    """nothing is added to a receptacle that holds so many objects"""
    max_instances: int = Field(3, ge=1)
    """objects of one kind in a room at most"""
    task_types: Annotated[list[str] | None, BeforeValidator(lambda v: [v] if isinstance(v, str) else v)] = None
    """kinds of tasks, dealt out in turn; null: all six"""
    train: int = Field(3000, ge=1)
    """games in the training split"""
    valid_seen: int = Field(140, ge=0)
    """games in the split valid_seen: rooms of the training split"""
    valid_unseen: int = Field(134, ge=0)
    """games in the split valid_unseen: rooms that are not in the training split"""
    seed: int = 0
    """seed of the games"""

    @field_validator("receptacles")
    @classmethod
    def _check_receptacles(cls, ends: list[int] | None) -> list[int] | None:
        if ends is not None and (len(ends) != 2 or not 4 <= ends[0] <= ends[1]):
            raise ValueError(
                "the fewest and the most receptacles of a room are needed, at least 4 because a goal can need 4. Try: "
                "env.alfworld.generated.receptacles=[4,6], or env.alfworld.generated.receptacles=null for all"
            )
        return ends

    @field_validator("task_types")
    @classmethod
    def _check_task_types(cls, names: list[str] | None) -> list[str] | None:
        known = [kind.value for kind in TaskKind]
        if names is not None and (not names or len(set(names)) < len(names) or not set(names) <= set(known)):
            raise ValueError(
                f"at least one of {', '.join(known)} is needed, each at most once. Try: "
                "env.alfworld.generated.task_types=null for all of them"
            )
        return names

    def spec(self) -> GameSpec:
        """What the games are generated from."""
        return GameSpec(
            receptacles=None if self.receptacles is None else (self.receptacles[0], self.receptacles[1]),
            same_kind=self.same_kind,
            objects_per_receptacle=self.objects_per_receptacle,
            max_instances=self.max_instances,
            task_types=tuple(map(TaskKind, self.task_types or TaskKind)),
            train=self.train,
            valid_seen=self.valid_seen,
            valid_unseen=self.valid_unseen,
            seed=self.seed,
        )


class ALFWorldSettings(Section):
    """The section `env.alfworld`."""

    data_dir: str | None = Field(None, min_length=1)
    """folder that holds json_2.1.1, the published games; null: the environment variable ALFWORLD_DATA"""
    games: Literal["auto", "published", "generated"] = "auto"
    """`published` (`data_dir` or `ALFWORLD_DATA`), `generated`, or `auto`: published games where there are some"""
    eval_dataset: Literal["valid_seen", "valid_unseen", "eval_in_distribution", "eval_out_of_distribution"] = (
        "valid_seen"
    )
    """held-out games: `valid_seen` (also called `eval_in_distribution`) or `valid_unseen`
    (`eval_out_of_distribution`)"""
    generated: GeneratedGames = GeneratedGames()
    """generated games ([environments.md](environments.md))"""

    @model_validator(mode="after")
    def _check_data_dir(self) -> ALFWorldSettings:
        if self.games == "generated" and self.data_dir:
            raise ValueError(
                f"env.alfworld.data_dir={self.data_dir} would not be read with env.alfworld.games=generated. Try: "
                "env.alfworld.data_dir=null"
            )
        return self

    @property
    def eval_split(self) -> str:
        """The split of the held-out games."""
        return EVAL_SPLITS[self.eval_dataset]


class ALFWorld(Family[ALFWorldSettings]):
    """Games of ALFWorld. The data folder holds json_2.1.1."""

    Settings = ALFWorldSettings

    def validate(self, needs_model: bool) -> Iterator[str]:
        try:
            published = self._published_folder()
        except ConfigError as error:
            yield str(error)
            return
        if published is not None:
            if needs_model:
                yield self._no_demonstrations()
            return
        key = f"env.alfworld.generated.{self.settings.eval_split}"
        available = getattr(self.settings.generated, self.settings.eval_split)
        if self.env.val_tasks > available:
            fewer = f", or env.val_tasks={available}" if available else ""
            yield (
                f"env.val_tasks={self.env.val_tasks} held-out games are more than {key}={available} generates. Try: "
                f"{key}={self.env.val_tasks}{fewer}"
            )

    def describe(self, cache: Path) -> str:
        held_out = f"{self.env.val_tasks} of {self.settings.eval_split} held out"
        if published := self._published_folder():
            return f"published ALFWorld games in {published}, {held_out}"
        spec, folder = self._generated(cache)
        exist = "in" if (folder / MANIFEST).exists() else "to be generated in"
        return f"{spec.train} generated ALFWorld games for training, {held_out}, {exist} {folder}"

    def prepare(self, cache: Path, progress: bool) -> Path:
        if published := self._published_folder():
            return published
        spec, folder = self._generated(cache)
        generate_games(folder, spec, workers=usable_cpus(), progress=progress)
        return folder

    def _generated(self, cache: Path) -> tuple[GameSpec, Path]:
        """What the games are generated from, and their folder."""
        spec = self.settings.generated.spec()
        folder = Path(self.settings.generated.dir or cache / "games" / f"alfworld-{_digest(spec)[:12]}")
        return spec, folder.absolute()

    def split_panels(self, data_dir: Path | None) -> tuple[TaskPanel, TaskPanel, str]:
        split = self.settings.eval_split
        return alfworld_panel(data_dir, "train"), alfworld_panel(data_dir, split), f"the split {split}"

    def inspect_panels(self, data_dir, panels) -> list[str]:
        unread = os.environ.get("ALFWORLD_DATA")
        if not unread or self.settings.data_dir or self._published_folder():
            return []
        if not _has_games(unread):
            return [f"ALFWORLD_DATA={unread} holds no {DATA_FOLDER} folder: generated games are played"]
        return [
            f"ALFWORLD_DATA={unread} is not read with env.alfworld.games=generated. To play its games with a model "
            "that can read them, try: env.alfworld.games=auto actor_rollout_ref.model.path=<folder or name>"
        ]

    def cold_start_spec(self, data_dir: Path | None, settings: WarmStartSettings) -> ColdStartSpec:
        if settings.base is not None:
            return self._fine_tuned(cast("Path", data_dir), settings)
        if data_dir is None or not (data_dir / MANIFEST).exists():
            raise ConfigError(self._no_demonstrations())
        # loads transformers, which is needed only where the model is made
        from recipe.hiper.cold_start.build import WarmStartSpec, make_warm_start

        games = self.settings.generated.spec()
        spec = adapted(WarmStartSpec(games=games), settings, self.env, self.spec)
        return ColdStartSpec(spec, spec.digest, partial(make_warm_start, games_dir=data_dir, spec=spec))

    def _fine_tuned(self, games: Path, settings: WarmStartSettings) -> ColdStartSpec:
        from recipe.hiper.cold_start.demonstrations import DemonstrationSpec, collect_on_games
        from recipe.hiper.cold_start.pretrained import PretrainedSpec

        # A pretrained model keeps to what it is shown: half the detours of the small model's players.
        default = PretrainedSpec("", DemonstrationSpec(episodes=400, idle=0.2))
        spec = fine_tuned(default, settings, self.env, self.spec, self.template_kwargs)
        panels = {"train": alfworld_panel(games, "train"), "held_out": alfworld_panel(games, "valid_seen")}
        return cold_start_of(spec, partial(collect_on_games, panels), panels["train"].digest)

    def resolved_keys(self, data_dir: Path | None) -> dict[str, Any]:
        return {"env.alfworld.data_dir": str(data_dir)}

    def _published_folder(self) -> Path | None:
        """The folder of the published games; None where games are generated.

        Raises:
            ConfigError: published games are configured and there are none.
        """
        settings = self.settings
        if settings.games == "generated":
            return None
        folder = settings.data_dir or os.environ.get("ALFWORLD_DATA")
        if folder and _has_games(folder):
            return Path(folder).expanduser().absolute()
        if settings.data_dir:
            raise ConfigError(
                f"env.alfworld.data_dir={settings.data_dir} holds no {DATA_FOLDER} folder. Try: "
                f"env.alfworld.data_dir=<folder that holds {DATA_FOLDER}>, or env.alfworld.data_dir=null "
                "env.alfworld.games=generated"
            )
        if settings.games == "published":
            reason = f"ALFWORLD_DATA={folder} holds no {DATA_FOLDER} folder" if folder else "ALFWORLD_DATA is not set"
            raise ConfigError(
                f"env.alfworld.games=published with env.alfworld.data_dir=null: {reason}. Try: "
                f"env.alfworld.data_dir=<folder that holds {DATA_FOLDER}>, or env.alfworld.games=generated"
            )
        return None

    def _no_demonstrations(self) -> str:
        return (
            "actor_rollout_ref.model.path=null: the small model is demonstrated on generated games, but "
            f"env.alfworld.games={self.settings.games} plays published ones. Try: env.alfworld.games=generated, or "
            "actor_rollout_ref.model.path=<folder or name>"
        )


def _has_games(folder: str) -> bool:
    return (Path(folder).expanduser() / DATA_FOLDER).is_dir()


def _digest(spec: GameSpec) -> str:
    return sha256(json.dumps(asdict(spec), sort_keys=True).encode()).hexdigest()
