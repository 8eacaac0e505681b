# SPDX-License-Identifier: Apache-2.0
"""The configuration is read here, once: everything that can be known to be wrong is reported together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from recipe.hiper.configuration.keys import environment_of, flat_items, missing_keys, unknown_keys
from recipe.hiper.configuration.lora import lora_problems
from recipe.hiper.configuration.model import model_problems
from recipe.hiper.configuration.problems import raise_all
from recipe.hiper.configuration.rules import rule_problems
from recipe.hiper.configuration.sampling import sampling_problems
from recipe.hiper.configuration.schema import RunSettings
from recipe.hiper.configuration.section import Problem, Section, section_fields, section_problems
from recipe.hiper.configuration.verl_keys import verl_problems, wrong_types

Check = Callable[[RunSettings], Iterable[str]]
"""Yields a message for every problem with the settings."""


def read_settings(
    config: DictConfig,
    sections: Mapping[str, type[Section]],
    *,
    reference: DictConfig,
    checks: Iterable[Check] = (),
) -> RunSettings:
    """Check the whole configuration and return it as typed settings.

    Values that do not fit their type or range are replaced by the usual ones before the rules that concern several
    keys are checked, so that all problems are reported at once.

    Args:
        config: what is to be run.
        sections: classes of the sections of `env` that belong to a family of environments, by name.
        reference: the same profile and environment without the user's overrides: the keys that exist, and the values
            that the messages suggest.
        checks: rules that other packages have for their own keys.

    Raises:
        ConfigError: one message with every problem, each with what to type.
    """
    families = {name: section for name, section in sections.items() if name in reference.env}
    declared = _declared(families)
    needed = declared | _changed(config, reference)
    values, usual = _plain(config, needed), _plain(reference, needed)
    added, gone = unknown_keys(config, reference), missing_keys(config, reference)
    settings, problems = _typed_settings(families, values, usual)
    problems += [problem for problem in wrong_types(values, usual) if problem.key not in declared]
    problems = _without_followers(config, [p for p in problems if p.key not in added and p.key not in gone])
    wrong = [problem.key for problem in problems if not problem.is_rule] + list(gone)
    repaired = config
    if wrong or added:
        repaired = _repaired(config, wrong, added, usual)
        settings, rest = _typed_settings(families, _plain(repaired, needed), usual)
        problems = problems or rest
    if settings is None:
        raise_all([*added.values(), *gone.values(), *(problem.text for problem in problems)])
    assert settings is not None  # without settings there is a problem
    messages = [*rule_problems(settings, environment_of(config)), *model_problems(settings), *verl_problems(repaired)]
    messages += [*sampling_problems(repaired), *lora_problems(repaired)]
    for check in checks:
        messages += check(settings)
    messages = [message for message in messages if not any(key in message for key in wrong)]
    raise_all([*added.values(), *gone.values(), *(problem.text for problem in problems), *messages])
    return settings


def _typed_settings(
    families: Mapping[str, type[Section]], values: Mapping[str, Any], usual: Mapping[str, Any]
) -> tuple[RunSettings | None, list[Problem]]:
    """The settings with the section of the family, and every value that does not fit its type or range.

    The settings are None where one of theirs does not fit, the section of the family where one of its own does not.
    """
    settings, problems = section_problems(RunSettings, values, "", usual)
    for name, section in families.items():
        family, more = section_problems(section, values["env"].get(name), f"env.{name}", usual["env"][name])
        problems += more
        if settings is not None:
            settings = settings.model_copy(update={"family": family})
    return settings, problems


def _plain(config: DictConfig, needed: Iterable[str]) -> dict[str, Any]:
    """The tree as plain values. References to other keys are resolved for the needed keys only: verl's tree has
    hundreds, and resolving them all takes most of the time of a check.

    Raises:
        ConfigError: a value refers to a key that does not exist.
    """
    values = cast("dict[str, Any]", OmegaConf.to_container(config, resolve=False))
    for key in needed:
        *sections, name = key.split(".")
        section: Any = values
        for part in sections:
            section = section.get(part) if isinstance(section, dict) else None
        if not isinstance(section, dict) or "${" not in str(section.get(name)):
            continue
        try:
            value = OmegaConf.select(config, key)
        except OmegaConfBaseException as error:
            reason = str(error).splitlines()[0]
            raise_all([f"{key} cannot be resolved: {reason}. Try: leave out the override that refers to it"])
        section[name] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    return values


def _changed(config: DictConfig, reference: DictConfig) -> set[str]:
    """The keys that differ from those without the user's overrides, before references are resolved."""
    usual = dict(flat_items(OmegaConf.to_container(reference, resolve=False)))
    now = flat_items(OmegaConf.to_container(config, resolve=False))
    return {key for key, value in now if key not in usual or usual[key] != value}


def _declared(families: Mapping[str, type[Section]]) -> set[str]:
    """The keys whose type is declared."""
    keys = {key for key, _ in section_fields(RunSettings)}
    return keys | {key for name, section in families.items() for key, _ in section_fields(section, f"env.{name}")}


def _without_followers(config: DictConfig, problems: list[Problem]) -> list[Problem]:
    """Leave out keys that take their value from another key, where that one is reported."""

    def follows(problem: Problem) -> bool:
        section, _, name = problem.key.rpartition(".")
        node = OmegaConf.select(config, section) if section else config
        return isinstance(node, DictConfig) and name in node and OmegaConf.is_interpolation(node, name)

    leaders = [problem for problem in problems if not follows(problem)]
    return leaders or problems


def _repaired(config: DictConfig, wrong: Iterable[str], added: Iterable[str], usual: Mapping[str, Any]) -> DictConfig:
    """A copy of the configuration in which wrong keys have their usual values and added ones are gone."""
    repaired = deepcopy(config)
    with open_dict(repaired):
        for key in added:
            section, _, name = key.rpartition(".")
            (OmegaConf.select(repaired, section) if section else repaired).pop(name)
        for key in wrong:
            value: Any = usual
            for part in key.split("."):
                value = value[part]
            OmegaConf.update(repaired, key, value, merge=False, force_add=True)
    return repaired
