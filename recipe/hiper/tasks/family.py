# SPDX-License-Identifier: Apache-2.0
"""A family of environments: its settings, its tasks, and the small model that is demonstrated in it.

A family is a class with one instance per run. `families.FAMILIES` lists them; `preparation` calls the methods in the
order in which they are defined here and knows no family by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from agent_system.environments.tasks import HELD_OUT_SEED, TaskPanel, held_out_subset
from agent_system.errors import ConfigError
from agent_system.rollout.environment_registry import EnvironmentSpec
from recipe.hiper.configuration.schema import WarmStartSettings
from recipe.hiper.configuration.schema_environment import EnvironmentSettings
from recipe.hiper.configuration.section import Section

if TYPE_CHECKING:
    from recipe.hiper.cold_start.build import CloningSpec
    from recipe.hiper.cold_start.demonstrations import Demonstration
    from recipe.hiper.cold_start.pretrained import PretrainedSpec

S = TypeVar("S", bound=Section | None)
C = TypeVar("C", bound="CloningSpec")
P = TypeVar("P", bound="PretrainedSpec")


@dataclass(frozen=True)
class ColdStartSpec:
    """How the small demonstrated model of a run is made.

    Attributes:
        spec: demonstrations, sizes of the model, training.
        digest: SHA-256, in hexadecimal, over everything that the model depends on. Names its folder.
        make: called as `make(folder, workers=..., progress=...)`; makes the model, or reuses a finished one.
    """

    spec: CloningSpec | PretrainedSpec
    digest: str
    make: Callable[..., object]


class Family(ABC, Generic[S]):
    """The tasks of one family for one run.

    Args:
        spec: the environment that `env.env_name` names.
        env: the section `env`, without the sections of families.
        settings: the section of `env` that belongs to this family; None where it has none.
        template_kwargs: `data.apply_chat_template_kwargs`.
    """

    Settings: ClassVar[type[Section] | None] = None
    """The section `env.<family>`."""

    def __init__(
        self,
        spec: EnvironmentSpec,
        env: EnvironmentSettings,
        settings: S,
        template_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.spec = spec
        self.env = env
        self.settings = settings
        self.template_kwargs = template_kwargs or None

    @abstractmethod
    def validate(self, needs_model: bool) -> Iterator[str]:
        """A message for every problem that concerns more than `Settings` alone. Creates nothing.

        Args:
            needs_model: whether no model is configured, so that the small one will be demonstrated.
        """

    @abstractmethod
    def describe(self, cache: Path) -> str:
        """What the tasks are, where they are or will be made, and how many there are: one line, nothing is created.

        Only for settings without problems (`validate`).
        """

    @abstractmethod
    def prepare(self, cache: Path, progress: bool) -> Path | None:
        """The folder of the data that the tasks are made of, created here where it is missing; None if there is none.

        Args:
            cache: folder for generated data.
            progress: whether progress bars are drawn on standard error.

        Raises:
            ConfigError, TaskError: the data cannot be used, or cannot be created.
        """

    @abstractmethod
    def split_panels(self, data_dir: Path | None) -> tuple[TaskPanel, TaskPanel, str]:
        """All training tasks, all tasks that may be held out, and the name of the latter in messages.

        Args:
            data_dir: what `prepare` returned.

        Raises:
            ConfigError: there are no tasks.
        """

    def panels(self, data_dir: Path | None) -> dict[str, TaskPanel]:
        """The training tasks ("train") and the `env.val_tasks` held-out tasks ("val") of the run.

        The held-out tasks do not depend on `env.seed`, so that runs with different seeds can be compared.

        Raises:
            ConfigError: as `split_panels`, or fewer tasks can be held out than `env.val_tasks`.
        """
        train, held_out, name = self.split_panels(data_dir)
        size = self.env.val_tasks
        if size > len(held_out):
            raise ConfigError(
                f"env.val_tasks={size}, but {name} has {len(held_out)} tasks. Try: env.val_tasks={len(held_out)}"
            )
        return {"train": train, "val": held_out_subset(held_out, size, HELD_OUT_SEED)}

    def inspect_panels(self, data_dir: Path | None, panels: Mapping[str, TaskPanel]) -> list[str]:
        """Check the tasks before a model is made. Returns what the user should know about them.

        Raises:
            ConfigError: they cannot be played.
        """
        return []

    @abstractmethod
    def cold_start_spec(self, data_dir: Path | None, settings: WarmStartSettings) -> ColdStartSpec:
        """How the small demonstrated model is made.

        Raises:
            ConfigError: nothing can be demonstrated on these tasks.
        """

    def environment_arguments(self, data_dir: Path | None) -> dict[str, Any]:
        """Arguments of `gymnasium.make` for every environment, besides `max_steps` and the user's `env.kwargs`."""
        return {}

    def resolved_keys(self, data_dir: Path | None) -> dict[str, Any]:
        """Dotted keys of the configuration that are filled in, with their values."""
        return {}


def adapted(default: C, settings: WarmStartSettings, env: EnvironmentSettings, spec: EnvironmentSpec) -> C:
    """The default specification of a demonstrated model with the values of a run."""
    return replace(
        default,
        demonstrations=_with(
            default.demonstrations,
            episodes=settings.episodes,
            seed=settings.seed,
            history_length=env.history_length,
            history_observations=env.history_observations,
            style=spec.style("compact", env.prompt_layout, env.short_keep),
        ),
        train=_with(default.train, steps=settings.steps, lr=settings.lr, batch=settings.batch, seed=settings.seed),
        model=_with(default.model, **settings.model.model_dump()),
    )


def fine_tuned(
    default: P,
    settings: WarmStartSettings,
    env: EnvironmentSettings,
    spec: EnvironmentSpec,
    template_kwargs: dict[str, Any] | None = None,
) -> P:
    """The default specification of a fine-tuned model with the values of a run."""
    return replace(
        default,
        base=settings.base or default.base,
        system_prompt=env.system_prompt,
        template_kwargs=template_kwargs,
        demonstrations=_with(
            default.demonstrations,
            episodes=settings.episodes,
            seed=settings.seed,
            max_turns=env.max_steps,
            history_length=env.history_length,
            history_observations=env.history_observations,
            style=spec.style(env.prompt_style, env.prompt_layout, env.short_keep),
        ),
        fine_tune=_with(
            default.fine_tune,
            steps=settings.steps,
            lr=settings.lr,
            batch=settings.batch,
            lora_rank=settings.lora_rank,
            seed=settings.seed,
        ),
    )


def cold_start_of(spec: PretrainedSpec, play: Callable[..., list[Demonstration]], data_digest: str) -> ColdStartSpec:
    """How a fine-tuned model is made; see `pretrained.make_fine_tuned`."""
    from recipe.hiper.cold_start.pretrained import make_fine_tuned

    digest = sha256(f"{spec.digest}/{data_digest}".encode()).hexdigest()
    return ColdStartSpec(spec, digest, partial(make_fine_tuned, spec=spec, play=play, data_digest=data_digest))


def _with(spec, **values):
    """A copy of a dataclass with the values that are not None."""
    return replace(spec, **{name: value for name, value in values.items() if value is not None})
