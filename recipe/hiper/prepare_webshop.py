# SPDX-License-Identifier: Apache-2.0
"""WebShop's part of the preparation: the shop, its tasks, and what the environments are told."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from agent_system.environments.tasks import HELD_OUT_SEED, TaskPanel, held_out_subset
from agent_system.environments.webshop.generator.catalogue import GENERATOR, CatalogueSpec
from agent_system.environments.webshop.goals import Goals, Split
from agent_system.environments.webshop.prepare import ShopSpec, prepare_shop
from agent_system.environments.webshop.shop import MANIFEST, open_shop
from agent_system.environments.webshop.tasks import HELD_OUT_LIMIT, PARTS, shop_panel
from agent_system.errors import ConfigError

TAGGERS = ("lexicon", "spacy")


def webshop_problems(config: DictConfig) -> list[str]:
    """A message for every value of `env.webshop` that cannot be used."""
    webshop = config.env.webshop
    problems = []
    splits = [split.value for split in Split]
    if webshop.split not in splits:
        problems.append(f"env.webshop.split={webshop.split} is not one of {', '.join(splits)}. env.webshop.split=fixed")
    held_out = [part for part in PARTS if part != "train"]
    if webshop.eval_dataset not in held_out:
        problems.append(
            f"env.webshop.eval_dataset={webshop.eval_dataset} is not one of {', '.join(held_out)}. "
            "env.webshop.eval_dataset=eval"
        )
    if webshop.train_goals < 1:
        problems.append(
            f"env.webshop.train_goals={webshop.train_goals}: at least one is needed. env.webshop.train_goals=20000"
        )
    if webshop.early_terminate_penalty > 0:
        problems.append(
            f"env.webshop.early_terminate_penalty={webshop.early_terminate_penalty} would reward a wrong purchase. "
            "env.webshop.early_terminate_penalty=0"
        )
    if webshop.tagger not in TAGGERS:
        problems.append(
            f"env.webshop.tagger={webshop.tagger} is not one of {', '.join(TAGGERS)}. env.webshop.tagger={TAGGERS[0]}"
        )
    if webshop.generated.products < 100:
        problems.append(
            f"env.webshop.generated.products={webshop.generated.products}: a search must have something to find. "
            "env.webshop.generated.products=1000"
        )
    return problems


def prepare_shop_folder(config: DictConfig, cache: Path, progress: bool) -> Path:
    """The folder of the shop; made here when it is missing.

    Args:
        cache: takes the shop where `env.webshop.data_dir` is null.

    Raises:
        ConfigError, TaskError: as `prepare_shop`.
    """
    webshop = config.env.webshop
    catalogue = CatalogueSpec(products=webshop.generated.products, seed=webshop.generated.seed)
    spec = ShopSpec(source=webshop.source, catalogue=catalogue, small=webshop.use_small, tagger=webshop.tagger)
    if webshop.data_dir is None:
        folder = cache / "shops" / sha256(f"{GENERATOR} {spec}".encode()).hexdigest()[:12]
    else:
        folder = Path(webshop.data_dir).expanduser().absolute()
        if (folder / MANIFEST).exists():
            spec = replace(spec, tagger=None)  # as it was made
            if webshop.source is None:
                open_shop(folder)
                return folder
    prepare_shop(folder, spec, progress=progress)
    return folder


def shop_panels(config: DictConfig, folder: Path) -> dict[str, TaskPanel]:
    """The training and the held-out goals.

    Raises:
        ConfigError: fewer held-out goals than asked for, or too few goals in all.
    """
    webshop, shop = config.env.webshop, open_shop(folder)
    goals, split = _goals(config), Split(webshop.split)
    train = shop_panel(shop, goals, split, "train", config.env.seed, webshop.train_goals)
    held_out = shop_panel(shop, goals, split, webshop.eval_dataset, config.env.seed, HELD_OUT_LIMIT)
    wanted = config.env.val_tasks
    if wanted > len(held_out):
        raise ConfigError(
            f"env.val_tasks={wanted}, but {webshop.eval_dataset} has {len(held_out)} goals. "
            f"env.val_tasks={len(held_out)}"
        )
    return {"train": train, "val": held_out_subset(held_out, wanted, HELD_OUT_SEED)}


def shop_arguments(config: DictConfig, folder: Path) -> dict[str, Any]:
    """What the environments are made with (`WebShopEnv`)."""
    webshop = config.env.webshop
    return {
        "data_dir": str(folder),
        "goals": _goals(config).value,
        "split": webshop.split,
        "seed": config.env.seed,
        "observation_mode": "compact" if config.env.prompt_style == "compact" else "page",
        "early_terminate_penalty": webshop.early_terminate_penalty,
    }


def overlap(config: DictConfig, folder: Path, panels: dict[str, TaskPanel]) -> float:
    """Share of the held-out goals (product and options) that are among the training goals as well. 0 under `fixed`."""
    shop, goals, split = open_shop(folder), _goals(config), Split(config.env.webshop.split)

    def wishes(panel: TaskPanel) -> set[tuple[int, int]]:
        found = set()
        for task in panel.tasks:
            table, index = shop.goals(goals, split, task.seed), task.options["goal_index"]
            found.add((int(table.product[index]), int(table.choice[index])))
        return found

    held_out = wishes(panels["val"])
    return len(held_out & wishes(panels["train"])) / len(held_out)


def _goals(config: DictConfig) -> Goals:
    return Goals.HUMAN if config.env.webshop.human_goals else Goals.SYNTHETIC
