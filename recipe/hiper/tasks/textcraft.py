# SPDX-License-Identifier: Apache-2.0
"""TextCraft: goals of the recipes in the package `textcraft`. Nothing is downloaded or generated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from agent_system.environments.tasks import TaskPanel
from agent_system.environments.textcraft.recipes import recipe_book
from agent_system.environments.textcraft.tasks import (
    DEPTHS,
    DISTRACTORS,
    HELD_OUT_TASKS,
    TRAIN_TASKS,
    textcraft_panel,
)
from recipe.hiper.configuration.schema import WarmStartSettings
from recipe.hiper.configuration.section import Section
from recipe.hiper.tasks.family import ColdStartSpec, Family, adapted, cold_start_of, fine_tuned


class TextCraftSettings(Section):
    """The section `env.textcraft`."""

    depths: list[int] = list(DEPTHS)
    """depths of the recipe trees of the goals, each of 1, 2, 3, 4. Success is reported for each"""
    distractors: int = Field(DISTRACTORS, ge=0)
    """commands in a task that the goal does not need"""
    train_tasks: int = Field(TRAIN_TASKS, ge=1)
    """training tasks of each depth; there are fewer where they would repeat"""
    held_out_tasks: int = Field(HELD_OUT_TASKS, ge=1)
    """held-out tasks of each depth, of which `env.val_tasks` are drawn; there are fewer where they would repeat"""
    eval_dataset: Literal["eval", "test"] = "eval"
    """held-out goals: `eval` while settings are chosen, then `test`"""
    show_inventory: bool = True
    """every observation ends with what is carried; `false`: only the action `inventory` shows it, as in the published
    environment"""

    @field_validator("depths")
    @classmethod
    def _check_depths(cls, depths: list[int]) -> list[int]:
        if not depths or len(set(depths)) < len(depths) or not set(depths) <= set(DEPTHS):
            raise ValueError(
                f"at least one of {', '.join(map(str, DEPTHS))} is needed, each at most once. Try: "
                "env.textcraft.depths=[1,2,3,4]"
            )
        return depths


class TextCraft(Family[TextCraftSettings]):
    """Goals of TextCraft. There is no data folder."""

    Settings = TextCraftSettings

    def validate(self, needs_model: bool) -> Iterator[str]:
        each, depths = self.settings.held_out_tasks, self.settings.depths
        available = each * len(depths)
        if self.env.val_tasks > available:
            yield (
                f"env.val_tasks={self.env.val_tasks} held-out tasks are more than the {available} of "
                f"env.textcraft.held_out_tasks={each} for each of env.textcraft.depths={depths}. Try: "
                f"env.textcraft.held_out_tasks={-(-self.env.val_tasks // len(depths))}, or env.val_tasks={available}"
            )

    def describe(self, cache: Path) -> str:
        settings = self.settings
        return (
            f"TextCraft, recipe trees of depth {', '.join(map(str, settings.depths))}, {settings.distractors} "
            f"distractors, {self.env.val_tasks} of {settings.eval_dataset} held out"
        )

    def prepare(self, cache: Path, progress: bool) -> None:
        recipe_book()  # before a model is made, an error if its package is missing

    def split_panels(self, data_dir: Path | None) -> tuple[TaskPanel, TaskPanel, str]:
        part = self.settings.eval_dataset
        return self._panel("train"), self._panel(part), f"env.textcraft.eval_dataset={part}"

    def cold_start_spec(self, data_dir: Path | None, settings: WarmStartSettings) -> ColdStartSpec:
        # loads transformers, which is needed only where the model is made
        from recipe.hiper.cold_start.craft_build import CraftWarmStartSpec, make_craft_warm_start
        from recipe.hiper.cold_start.craft_demonstrations import collect_crafting, pretrained_demonstrations
        from recipe.hiper.cold_start.pretrained import PretrainedSpec

        panels = {"train": self._panel("train"), "held_out": self._panel("eval")}
        kwargs = self.environment_arguments(data_dir)
        play = partial(collect_crafting, panels, kwargs)
        content = [*(panel.digest for panel in panels.values()), kwargs]
        data_digest = sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        if settings.base is not None:
            default = PretrainedSpec("", pretrained_demonstrations())
            spec = fine_tuned(default, settings, self.env, self.spec, self.template_kwargs)
            return cold_start_of(spec, play, data_digest)
        small = adapted(CraftWarmStartSpec(), settings, self.env, self.spec)
        digest = sha256(f"{small.digest}/{data_digest}".encode()).hexdigest()
        make = partial(make_craft_warm_start, play=play, data_digest=data_digest, spec=small)
        return ColdStartSpec(small, digest, make)

    def environment_arguments(self, data_dir: Path | None) -> dict[str, Any]:
        return {"show_inventory": self.settings.show_inventory}

    def _panel(self, part: str) -> TaskPanel:
        settings = self.settings
        return textcraft_panel(
            part,
            depths=settings.depths,
            tasks=settings.train_tasks if part == "train" else settings.held_out_tasks,
            distractors=settings.distractors,
        )
