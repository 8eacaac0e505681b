# SPDX-License-Identifier: Apache-2.0
"""The command line: every override must name a key that exists and that something reads."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from recipe.hiper.configuration.validation import flat_items, flat_keys, raise_all, suggestion
from recipe.hiper.estimators.registry import OF_GROUPS

PROFILES = ("cpu", "gpu")
ENVIRONMENTS = ("alfworld", "webshop")
PRESETS = ("custom", "released", "paper", "living")
PRESET_GROUP = "algorithm/hae"
QUOTED = """'run_dir="outputs/a (1)"'"""
"""How a value with a blank, bracket or comma is written for the shell and Hydra."""


def reference_config(profile: str, environment: str = "alfworld") -> DictConfig:
    """The configuration of a profile and an environment without overrides: the set of keys that exist."""
    GlobalHydra.instance().clear()
    with initialize_config_module("recipe.hiper.config", version_base=None):
        return compose("hiper_trainer", overrides=[f"profile={profile}", f"env={environment}"])


def check_overrides(arguments: list[str]) -> None:
    """Check that every override names a key that exists. Hydra stops at the first one, and suggests nothing.

    Raises:
        ConfigError: naming every unknown key, with the most similar known ones.
    """
    given = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    profile = next(argument for argument in reversed(given) if argument.startswith("profile=")).split("=", 1)[1]
    if profile not in PROFILES:
        raise_all([f"profile={profile} is not one of {', '.join(PROFILES)}. profile=cpu"])
    chosen = [argument.split("=", 1)[1] for argument in given if argument.startswith("env=")]
    environment = chosen[-1] if chosen else ENVIRONMENTS[0]
    if environment not in ENVIRONMENTS:
        raise_all([f"env={environment} is not one of {', '.join(ENVIRONMENTS)}. env={ENVIRONMENTS[0]}"])
    leaves = set(flat_keys(OmegaConf.to_container(reference_config(profile, environment), resolve=False)))
    try:
        overrides = OverridesParser.create().parse_overrides(given)
    except HydraException as error:
        raise_all([f"{error}. A value with a blank, a bracket or a comma needs quotes, for example {QUOTED}"])
    if sweeps := [override.input_line for override in overrides if override.is_sweep_override()]:
        raise_all([f"{sweeps[0]}: several values would be several runs. Name one; one text needs quotes: {QUOTED}"])
    problems = preset_problems(overrides) + unread_overrides(overrides)
    for override in overrides:
        key = override.key_or_group
        exists = key in leaves or any(leaf.startswith(key + ".") for leaf in leaves)
        is_group = key in ("profile", "env") or "/" in key or "@" in key or key.startswith("hydra")
        if not override.is_add() and not override.is_force_add() and not exists and not is_group:
            problems.append(f"{override.input_line}: there is no key {key}.{suggestion(key, leaves)}")
    raise_all(problems)


def unread_overrides(overrides: Sequence[Override]) -> list[str]:
    """A message for every override of a key of hae's that the chosen estimator does not read."""
    read: dict[Any, set[str]] = {"turn_gae": {"norm_adv", "bootstrap_truncated", "random_signs"}, "gae": set()}
    read |= {estimator: {"random_signs"} for estimator in OF_GROUPS}
    chosen = [override.value() for override in overrides if override.key_or_group == "algorithm.adv_estimator"]
    if not chosen or chosen[-1] not in read:
        return []
    section = "algorithm.hae."
    return [
        f"{override.input_line}: {chosen[-1]} does not read it. Leave it out, or algorithm.adv_estimator=hae"
        for override in overrides
        if override.key_or_group.startswith(section)
        and override.key_or_group.removeprefix(section) not in read[chosen[-1]]
    ]


def preset_problems(overrides: Sequence[Override]) -> list[str]:
    """A message for a preset that does not exist, and for every override that contradicts the chosen one.

    Numbers are dials and may be turned; true, false and words are what a preset consists of.
    """
    chosen = [override.value() for override in overrides if override.key_or_group == PRESET_GROUP]
    if not chosen:
        return []
    preset = chosen[-1]
    if preset not in PRESETS:
        return [f"{PRESET_GROUP}={preset} is not one of {', '.join(PRESETS)}. {PRESET_GROUP}={PRESETS[0]}"]
    text = (files("recipe.hiper.config") / PRESET_GROUP / f"{preset}.yaml").read_text("utf-8")
    fixed = dict(flat_items(OmegaConf.to_container(OmegaConf.create(text))))
    problems = []
    for override in overrides:
        key = override.key_or_group
        is_what_it_is = isinstance(fixed.get(key), bool | str) and key != "trainer.experiment_name"
        if is_what_it_is and override.value() != fixed[key]:
            problems.append(
                f"{override.input_line} contradicts {PRESET_GROUP}={preset}, which sets {key}={fixed[key]}. Leave one "
                f"of them out; every key of a preset can be set without it ({PRESET_GROUP}={PRESETS[0]})"
            )
    return problems
