# SPDX-License-Identifier: Apache-2.0
"""What must exist before training: the games, the task files, the model. Made once, kept in the cache.

`python -m recipe.hiper.prepare [hydra overrides]` does only this, for a machine that trains later.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, replace
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from uuid import uuid4

from omegaconf import DictConfig, OmegaConf, open_dict
from platformdirs import user_cache_path

from agent_system.environments.alfworld.game_spec import GameSpec
from agent_system.environments.alfworld.games import DATA_FOLDER, alfworld_panel
from agent_system.environments.alfworld.generate import MANIFEST, generate_games
from agent_system.environments.alfworld.rooms import TaskKind
from agent_system.environments.tasks import HELD_OUT_SEED, TaskPanel, held_out_subset
from agent_system.environments.webshop.shop import open_shop
from agent_system.errors import ConfigError
from agent_system.processes import usable_cpus
from agent_system.rollout.environment_registry import World, agent_kind
from recipe.hiper.tasks.dataset import write_task_file
from recipe.hiper.tasks.webshop import overlap, prepare_shop_folder, shop_arguments, shop_panels

EVAL_SPLITS = {
    "valid_seen": "valid_seen",
    "valid_unseen": "valid_unseen",
    "eval_in_distribution": "valid_seen",
    "eval_out_of_distribution": "valid_unseen",
}
"""Values of `env.alfworld.eval_dataset`; the long ones are the released code's."""


def _tell(line: str) -> None:
    """Something the user should know. Printed: Hydra turns the loggers of this process off."""
    print(line, file=sys.stderr, flush=True)


def cache_folder() -> Path:
    """Where generated games and models are kept: `HIPER_CACHE`, or hiper in the user's cache folder."""
    if chosen := os.environ.get("HIPER_CACHE"):
        return Path(chosen).expanduser().absolute()
    return user_cache_path("hiper").absolute()


def game_spec(config: DictConfig) -> GameSpec:
    """The generated games that `env.alfworld.generated` describes.

    Raises:
        ConfigError: a value is out of range.
    """
    knobs = config.env.alfworld.generated
    known = [kind.value for kind in TaskKind]
    wanted = [knobs.task_types] if isinstance(knobs.task_types, str) else knobs.task_types
    if unknown := [str(name) for name in wanted or () if name not in known]:
        raise ConfigError(
            f"env.alfworld.generated.task_types: {', '.join(unknown)} not among {', '.join(known)}. "
            "env.alfworld.generated.task_types=null for all of them"
        )
    kinds = tuple(TaskKind) if wanted is None else tuple(TaskKind(name) for name in wanted)
    rooms = knobs.receptacles
    is_pair = OmegaConf.is_list(rooms) and len(rooms) == 2 and all(isinstance(end, int) for end in rooms)
    if rooms is not None and not is_pair:
        raise ConfigError(
            f"env.alfworld.generated.receptacles={rooms}: the fewest and the most in a room, for example "
            "env.alfworld.generated.receptacles=[4,6]; or env.alfworld.generated.receptacles=null for all there are"
        )
    return GameSpec(
        receptacles=None if rooms is None else tuple(rooms),
        same_kind=knobs.same_kind,
        objects_per_receptacle=knobs.objects_per_receptacle,
        max_instances=knobs.max_instances,
        task_types=kinds,
        train=knobs.train,
        valid_seen=knobs.valid_seen,
        valid_unseen=knobs.valid_unseen,
        seed=knobs.seed,
    )


def _short_digest(spec: GameSpec) -> str:
    return sha256(json.dumps(asdict(spec), sort_keys=True).encode()).hexdigest()[:12]


def prepare_games(config: DictConfig, progress: bool) -> Path:
    """The folder that holds json_2.1.1: the published games, or generated ones (made here when they are missing).

    Raises:
        ConfigError: `env.alfworld.games=published` and there are none.
    """
    alfworld = config.env.alfworld
    published = alfworld.data_dir or os.environ.get("ALFWORLD_DATA")
    has_published = bool(published) and (Path(published).expanduser() / DATA_FOLDER).is_dir()
    if alfworld.games == "published" or (alfworld.games == "auto" and has_published):
        if not has_published:
            looked = published or "nowhere: neither env.alfworld.data_dir nor ALFWORLD_DATA is set"
            raise ConfigError(
                f"env.alfworld.games=published, but no {DATA_FOLDER} folder was found (looked in {looked}). "
                "env.alfworld.data_dir=<folder that holds json_2.1.1>, or env.alfworld.games=generated"
            )
        return Path(published).expanduser().absolute()
    if alfworld.data_dir and alfworld.games == "auto":
        raise ConfigError(
            f"env.alfworld.data_dir={alfworld.data_dir} holds no {DATA_FOLDER} folder. Correct the path, or "
            "env.alfworld.data_dir=null for generated games"
        )
    if published and not has_published:
        _tell(f"ALFWORLD_DATA={published} holds no {DATA_FOLDER} folder: games are generated")
    elif published:
        _tell(
            f"ALFWORLD_DATA={published} is not read, because env.alfworld.games=generated. Its games are played with "
            "env.alfworld.games=auto and a model that can read them (actor_rollout_ref.model.path=...)"
        )
    spec = game_spec(config)
    chosen = alfworld.generated.dir
    folder = Path(chosen).absolute() if chosen else cache_folder() / "games" / f"alfworld-{_short_digest(spec)}"
    generate_games(folder, spec, workers=usable_cpus(), progress=progress)
    return folder


def prepare_data(config: DictConfig, world: World, progress: bool) -> Path | None:
    """The games or the shop; None for an environment that brings its own tasks."""
    if world is World.WEBSHOP:
        return prepare_shop_folder(config, cache_folder(), progress)
    return prepare_games(config, progress) if world is World.ALFWORLD else None


def prepare_panels(config: DictConfig, data_dir: Path | None) -> dict[str, TaskPanel]:
    """The training and held-out tasks.

    Args:
        data_dir: the games, or the shop; None for an environment that brings its own tasks.

    Raises:
        ConfigError: unknown split, no games, or fewer held-out games than asked for.
    """
    kind = agent_kind(config.env.env_name)
    if kind.world is World.WEBSHOP:
        return shop_panels(config, data_dir)
    if tasks := kind.tasks:
        train, held_out, where = tasks("train"), tasks("val"), f"the panel val of {config.env.env_name}"
    else:
        name = config.env.alfworld.eval_dataset
        if name not in EVAL_SPLITS:
            raise ConfigError(
                f"env.alfworld.eval_dataset={name} is not one of {', '.join(EVAL_SPLITS)}. "
                "env.alfworld.eval_dataset=valid_unseen"
            )
        where = EVAL_SPLITS[name]
        train, held_out = alfworld_panel(data_dir, "train"), alfworld_panel(data_dir, where)
    wanted = config.env.val_tasks
    if wanted > len(held_out):
        raise ConfigError(
            f"env.val_tasks={wanted}, but {where} has {len(held_out)} games. env.val_tasks={len(held_out)}"
        )
    return {"train": train, "val": held_out_subset(held_out, wanted, HELD_OUT_SEED)}


def prepare_model(config: DictConfig, data_dir: Path | None, progress: bool) -> str:
    """The model to train: the configured one, or the warm-started small model (made here when it is missing).

    Args:
        data_dir: as for `prepare_panels`.

    Raises:
        ConfigError: no model is configured, or the small model is asked for on games it cannot be taught on.
    """
    if config.actor_rollout_ref.model.path:
        return config.actor_rollout_ref.model.path
    settings = config.warm_start
    if not settings.enable:
        raise ConfigError(
            "actor_rollout_ref.model.path=null and warm_start.enable=False: there is no model to train. "
            "actor_rollout_ref.model.path=<folder or name>, or warm_start.enable=True"
        )
    world = agent_kind(config.env.env_name).world
    if world is World.OWN:
        raise ConfigError(
            f"the warm-started model is taught on ALFWorld and in the shop only, not on {config.env.env_name}. "
            "actor_rollout_ref.model.path=<folder or name>"
        )
    if world is World.ALFWORLD and not (data_dir / MANIFEST).exists():
        raise ConfigError(
            "the warm-started model is taught on generated games, but the games are published ones. "
            "env.alfworld.games=generated, or actor_rollout_ref.model.path=<folder or name>"
        )
    # torch and transformers are only needed to make or load the model
    from recipe.hiper.cold_start import build

    default = build.WarmStartSpec() if world is World.ALFWORLD else build.ShopWarmStartSpec()
    spec = replace(
        default,
        demonstrations=_with(
            default.demonstrations,
            episodes=settings.episodes,
            seed=settings.seed,
            history_length=config.env.history_length,
            style=agent_kind(config.env.env_name).style("compact", config.env.short_keep),
        ),
        train=_with(default.train, steps=settings.steps, seed=settings.seed),
        model=_with(default.model, **settings.model),
    )
    workers = usable_cpus()
    if world is World.ALFWORLD:
        spec = replace(spec, games=game_spec(config))
        folder = cache_folder() / "models" / f"warm-start-{spec.digest[:12]}"
        build.make_warm_start(folder, data_dir, spec, workers=workers, progress=progress)
    else:
        made_from = sha256(f"{spec.digest}/{open_shop(data_dir).manifest.sources}".encode()).hexdigest()
        folder = cache_folder() / "models" / f"warm-start-{made_from[:12]}"
        build.make_shop_warm_start(folder, data_dir, spec, workers=workers, progress=progress)
    return str(folder)


def _with(spec, **values):
    """A copy of a dataclass with the values that are not None."""
    return replace(spec, **{name: value for name, value in values.items() if value is not None})


def prepare(config: DictConfig, progress: bool) -> DictConfig:
    """Make what is missing and fill in what depends on it. Changes `config` in place and returns it."""
    world = agent_kind(config.env.env_name).world
    data_dir = prepare_data(config, world, progress)
    panels = prepare_panels(config, data_dir)
    if world is World.WEBSHOP and (shared := overlap(config, data_dir, panels)):
        _tell(
            f"{shared:.0%} of the held-out goals are training goals too (as in the peers' code). Disjoint ones: "
            "env.webshop.split=fixed"
        )
    groups = config.algorithm.filter_groups
    batches = config.trainer.total_training_steps * (1 + groups.max_num_gen_batches if groups.enable else 1)
    write_task_file(
        Path(config.data.train_files),
        panels["train"],
        "train",
        rows=config.data.train_batch_size * batches,
        order_seed=config.env.seed,
    )
    write_task_file(Path(config.data.val_files), panels["val"], "val", rows=len(panels["val"]), order_seed=None)
    model = prepare_model(config, data_dir, progress)
    with open_dict(config):
        config.actor_rollout_ref.model.path = model
        if world is World.ALFWORLD:
            config.env.alfworld.data_dir = str(data_dir)
        elif world is World.WEBSHOP:
            config.env.kwargs = {**shop_arguments(config, data_dir), **config.env.kwargs}
        config.env.pool_name = f"hiper-env-{uuid4().hex[:8]}"
        rollout = config.actor_rollout_ref.rollout
        if rollout.max_model_len is None:
            rollout.max_model_len = config.data.max_prompt_length + config.data.max_response_length
        if rollout.agent.agent_loop_config_path is None:
            rollout.agent.agent_loop_config_path = str(files("agent_system.rollout") / "agent_loops.yaml")
    OmegaConf.resolve(config)
    return config
