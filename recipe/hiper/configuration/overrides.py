# SPDX-License-Identifier: Apache-2.0
"""The command line: every override must name a key that exists and that something reads."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from recipe.hiper.configuration.hardware import is_override
from recipe.hiper.configuration.keys import (
    ENVIRONMENTS,
    MODELS,
    PROFILES,
    USUAL_MODEL,
    flat_items,
    is_in,
    is_open,
    known_keys,
    similar_keys,
)
from recipe.hiper.configuration.problems import raise_all
from recipe.hiper.configuration.section import typed
from recipe.hiper.estimators.registry import ESTIMATORS, UnknownEstimator, find_estimator

PRESETS = ("custom", "released", "paper", "living")
PRESET_GROUP = "algorithm/hae"
QUOTED = """'run_dir="outputs/a (1)"'"""
"""How a value with a blank, bracket or comma is written for the shell and Hydra."""


def groups(profile: str, environment: str, model: str | None = None) -> list[str]:
    """The overrides that choose a profile, an environment and a model (None: that of the profile)."""
    return [f"profile={profile}", f"env={environment}", f"model={model or USUAL_MODEL[profile]}"]


@cache
def reference_config(profile: str, environment: str = ENVIRONMENTS[0], model: str | None = None) -> DictConfig:
    """The configuration of a profile, an environment and a model without overrides: the set of keys that exist. Not to
    be changed: it is kept.

    Args:
        model: choice of `model=`; None: that of the profile.
    """
    GlobalHydra.instance().clear()
    with initialize_config_module("recipe.hiper.config", version_base=None):
        return compose("hiper_trainer", overrides=groups(profile, environment, model))


def check_overrides(arguments: Sequence[str]) -> None:
    """Check that every override names a key that exists and is read. Hydra stops at the first one, and suggests
    nothing.

    Raises:
        ConfigError: naming every unknown or unread key, with the most similar known ones.
    """
    typed_overrides = [argument for argument in arguments if is_override(argument)]
    profile = _chosen(typed_overrides, "profile", PROFILES)
    environment = _chosen(typed_overrides, "env", ENVIRONMENTS)
    model = _chosen(typed_overrides, "model", tuple(dict.fromkeys((USUAL_MODEL[profile], *MODELS))))
    reference = reference_config(profile, environment, model)
    leaves = known_keys(reference)
    try:
        overrides = OverridesParser.create().parse_overrides(list(typed_overrides))
    except HydraException as error:
        reason = str(error).splitlines()[0]
        raise_all([f"{reason}. A value with a blank, a bracket, a comma or a ~ needs quotes. Try: {QUOTED}"])
    if sweeps := [override.input_line for override in overrides if override.is_sweep_override()]:
        raise_all(
            [
                f"{sweeps[0]}: several values would be several runs. Try: one value; a text with a comma needs quotes, "
                f"as in {QUOTED}"
            ]
        )
    deletions = [override for override in overrides if override.is_delete()]
    overrides = [override for override in overrides if not override.is_delete()]
    problems = [
        f"{override.input_line}: every key must have a value. Try: leave it out"
        for override in deletions
        if not is_open(override.key_or_group, leaves)
    ]
    problems += preset_problems(overrides) + unread_overrides(overrides, reference)
    for override in overrides:
        key = override.key_or_group
        exists = any(is_in(leaf, key) for leaf in leaves)
        if exists and key not in leaves and "." not in key and key != "env" and not isinstance(override.value(), dict):
            problems.append(f"{override.input_line}: {key} is a section with keys of its own. Try: leave it out")
        is_group = key in ("profile", "env", "model") or "/" in key or "@" in key or key.startswith("hydra")
        if not override.is_add() and not override.is_force_add() and not exists and not is_group:
            problems.append(_unknown_key(override, profile, environment, leaves))
    raise_all(problems)


def _unknown_key(override: Override, profile: str, environment: str, leaves: set[str]) -> str:
    key = override.key_or_group
    for other in ENVIRONMENTS:
        if other != environment and any(is_in(leaf, key) for leaf in known_keys(reference_config(profile, other))):
            return f"{override.input_line}: {key} is a key of env={other}, not of env={environment}. Try: leave it out"
    names = similar_keys(key, leaves)
    if not names:
        return f"{override.input_line}: there is no key {key}. Try: leave it out"
    value = str(override.input_line).partition("=")[2]
    return f"{override.input_line}: there is no key {key}. Try: {', or '.join(f'{name}={value}' for name in names)}"


def _chosen(arguments: Sequence[str], group: str, known: Sequence[str]) -> str:
    """The last `group=value` on the command line, or the first known value.

    Raises:
        ConfigError: the value is not known.
    """
    values = [argument.split("=", 1)[1] for argument in arguments if argument.startswith(f"{group}=")]
    value = values[-1] if values else known[0]
    if value not in known:
        raise_all([f"{group}={value} is not one of {', '.join(known)}. Try: {group}={known[0]}"])
    return value


OF_SOME_ESTIMATORS = frozenset().union(*(find_estimator(name).keys for name in ESTIMATORS))
"""Keys that some estimators read and others do not."""


def reads(estimator: str, key: str) -> bool:
    """Whether the estimator reads a key, or a section with such a key. Other keys do not depend on the estimator."""
    keys = {known for known in OF_SOME_ESTIMATORS if is_in(known, key)}
    return not keys or bool(keys & find_estimator(estimator).keys)


def unread_overrides(overrides: Sequence[Override], reference: DictConfig) -> list[str]:
    """A message for every override of a key that nothing reads beside the other overrides.

    An override that repeats the profile's value changes nothing and is accepted.
    """
    leaves = [leaf for override in overrides for leaf in _leaves(override)]
    values = {key: value for _, key, value in leaves}

    def value(key: str) -> object:
        return values[key] if key in values else OmegaConf.select(reference, key)

    problems: dict[str, None] = {}  # a set in order: several keys of one override may have the same problem
    has_preset = values.get(PRESET_GROUP, PRESETS[0]) != PRESETS[0]
    estimator = "hae" if has_preset else value("algorithm.adv_estimator")  # every preset is one of hae's
    is_known = True
    try:
        find_estimator(str(estimator))
    except UnknownEstimator:  # reported with the other problems of the configuration
        is_known = False
    for override, key, new_value in leaves:
        if not _is_plain(key) or new_value == OmegaConf.select(reference, key):
            continue
        if is_known and not reads(str(estimator), key):
            readers = [name for name in ESTIMATORS if reads(name, key)]
            other = "" if has_preset else f", or algorithm.adv_estimator={readers[0]}"
            problems[f"{override.input_line}: {estimator} does not read it. Try: leave it out{other}"] = None
        for section, switch, needed in CONDITIONS:
            if is_in(key, section) and key != switch and value(switch) != needed:
                message = f"{override.input_line}: nothing reads it with {switch}={typed(value(switch))}"
                problems[f"{message}. Try: leave it out, or {switch}={typed(needed)}"] = None
    return list(problems)


def _leaves(override: Override) -> list[tuple[Override, str, object]]:
    """The keys that an override sets, with their values: several where the value is a mapping."""
    return [(override, key, value) for key, value in flat_items(override.value(), override.key_or_group)]


CONDITIONS = (
    ("algorithm.filter_groups", "algorithm.filter_groups.enable", True),
    ("actor_rollout_ref.actor.invalid_action_penalty_coef", "actor_rollout_ref.actor.use_invalid_action_penalty", True),
    *(
        (f"warm_start.{name}", "actor_rollout_ref.model.path", None)
        for name in ("base", "seed", "episodes", "steps", "lr", "batch", "lora_rank", "model")
    ),
    ("warm_start.model", "warm_start.base", None),
    ("critic.replay_steps", "critic.backbone", "policy"),
    *(
        (f"critic.{name}", "critic.backbone", "own")
        for name in ("model", "fsdp", "cliprange_value", "ppo_max_token_len_per_gpu", "use_dynamic_bsz")
    ),
)
"""Sections that are read only while another key has this value: section, key, value."""


def _is_plain(key: str) -> bool:
    return "/" not in key and "@" not in key


def preset_problems(overrides: Sequence[Override]) -> list[str]:
    """A message for a preset that does not exist, and for every override that contradicts the chosen one.

    Numbers of a preset may be changed; true, false and words are what the preset consists of.
    """
    chosen = [override.value() for override in overrides if override.key_or_group == PRESET_GROUP]
    if not chosen:
        return []
    preset = chosen[-1]
    if preset not in PRESETS:
        return [f"{PRESET_GROUP}={preset} is not one of {', '.join(PRESETS)}. Try: {PRESET_GROUP}={PRESETS[0]}"]
    text = (files("recipe.hiper.config") / PRESET_GROUP / f"{preset}.yaml").read_text("utf-8")
    fixed = dict(flat_items(OmegaConf.to_container(OmegaConf.create(text))))
    problems = []
    for override in overrides:
        key = override.key_or_group
        is_fixed = isinstance(fixed.get(key), bool | str) and key != "trainer.experiment_name"
        if is_fixed and override.value() != fixed[key]:
            problems.append(
                f"{override.input_line} contradicts {PRESET_GROUP}={preset}, which sets {key}={typed(fixed[key])}. "
                f"Try: leave one of them out; {PRESET_GROUP}={PRESETS[0]} lets every key of a preset be set by itself"
            )
    return problems
