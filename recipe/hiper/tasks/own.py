# SPDX-License-Identifier: Apache-2.0
"""An environment of the user's own, which brings its tasks (`env.env_name=module:NAME`)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from agent_system.environments.contract import SPLITS, panel_findings, reset_findings
from agent_system.environments.tasks import TaskPanel
from agent_system.errors import ConfigError
from recipe.hiper.configuration.schema import WarmStartSettings
from recipe.hiper.tasks.family import ColdStartSpec, Family, cold_start_of, fine_tuned


class OwnEnvironment(Family[None]):
    """Tasks of an `EnvironmentSpec` in a module of the user's. It has no section in `env` and no data folder."""

    def validate(self, needs_model: bool) -> Iterator[str]:
        if needs_model:
            yield self._no_demonstrations()

    def describe(self, cache: Path) -> str:
        return f"{self.env.env_name}, {self.env.val_tasks} tasks held out"

    def prepare(self, cache: Path, progress: bool) -> None:
        return None

    def split_panels(self, data_dir: Path | None) -> tuple[TaskPanel, TaskPanel, str]:
        train, held_out = (self._panel(split) for split in SPLITS)
        return train, held_out, f"the panel val of env.env_name={self.env.env_name}"

    def inspect_panels(self, data_dir: Path | None, panels: Mapping[str, TaskPanel]) -> list[str]:
        check_first_resets(self.env.env_name, panels, self.env.max_steps, self.env.kwargs)
        return []

    def cold_start_spec(self, data_dir: Path | None, settings: WarmStartSettings) -> ColdStartSpec:
        if settings.base is None:
            raise ConfigError(self._no_demonstrations())
        if self.spec.player is None:
            raise ConfigError(
                f"warm_start.base={settings.base}: env.env_name={self.env.env_name} has no scripted player to learn "
                "from (EnvironmentSpec.player, docs/extending.md). Try: warm_start.enable=false "
                "actor_rollout_ref.model.path=<folder or name>"
            )
        from recipe.hiper.cold_start.own_demonstrations import OwnDemonstrationSpec, collect_with_player
        from recipe.hiper.cold_start.pretrained import PretrainedSpec

        default = PretrainedSpec("", OwnDemonstrationSpec())
        spec = fine_tuned(default, settings, self.env, self.spec, self.template_kwargs)
        train, held_out = (self._panel(split) for split in SPLITS)
        env_name, env_kwargs = self.env.env_name, self.env.kwargs
        play = partial(collect_with_player, env_name, env_kwargs, {"train": train, "held_out": held_out})
        return cold_start_of(spec, play, f"{env_name}/{json.dumps(env_kwargs, sort_keys=True)}/{train.digest}")

    def _panel(self, split: str) -> TaskPanel:
        assert self.spec.tasks is not None  # a spec without a family has tasks
        panel, findings = panel_findings(self.spec.tasks, split)
        if panel is None:
            raise ConfigError("\n".join(findings))
        return panel

    def _no_demonstrations(self) -> str:
        return (
            f"env.env_name={self.env.env_name} with actor_rollout_ref.model.path=null: the small model is demonstrated "
            "in the environments of this project only. Try: actor_rollout_ref.model.path=<folder or name>"
        )


def check_first_resets(env_name: str, panels: Mapping[str, TaskPanel], max_steps: int, env_kwargs: Mapping) -> None:
    """Reset the first task of each panel and check what it returns, before a model is loaded.

    Raises:
        ConfigError: the environment does not keep to the interface that the rollout relies on; one line per problem.
    """
    if findings := reset_findings([panel[0] for panel in panels.values()], max_steps, env_kwargs):
        command = f"python -m agent_system.environments.check_env {env_name}"
        raise ConfigError("\n".join([*findings, f"To check the whole interface, try: {command}"]))
