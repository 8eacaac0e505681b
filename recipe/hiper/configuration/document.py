# SPDX-License-Identifier: Apache-2.0
"""The tables of docs/configuration.md, generated from the schema and the shipped configuration.

`python -m recipe.hiper.cli.document_configuration` writes them.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Union, get_args, get_origin

from omegaconf import DictConfig, OmegaConf
from pydantic.fields import FieldInfo

from recipe.hiper.configuration.keys import ENVIRONMENTS, PROFILES, is_in
from recipe.hiper.configuration.schema import RunSettings
from recipe.hiper.configuration.section import Section, section_fields, typed

TABLE = re.compile(r"(<!-- keys: (?P<keys>[^>]*?) -->\n)(?P<table>.*?)(<!-- end -->)", re.DOTALL)
"""A table in the document: the marker names the keys and sections that it lists; `-key` leaves one out."""

Reference = Callable[[str, str], DictConfig]
"""The configuration of a profile and an environment without overrides."""


def with_tables(text: str, families: Mapping[str, type[Section]], reference: Reference) -> str:
    """The document with the tables between its markers written again.

    Args:
        text: the document.
        families: classes of the sections of `env` that belong to a family of environments, by name. A table of another
            family is left as it is.
        reference: composes the shipped configuration.

    Raises:
        ValueError: a marker names a key that does not exist, or a key of ours is in no table.
    """
    configs = {(p, e): reference(p, e) for p in PROFILES for e in ENVIRONMENTS}
    fields = dict(section_fields(RunSettings))
    for name, section in families.items():
        fields |= dict(section_fields(section, f"env.{name}"))
    listed: set[str] = set()

    def table(match: re.Match[str]) -> str:
        names = match["keys"].split()
        included, excluded = [n for n in names if n[0] != "-"], [n[1:] for n in names if n[0] == "-"]
        if all(name.startswith("env.") and name[4:] in set(ENVIRONMENTS) - set(families) for name in included):
            return match[0]
        rows = []
        for name in included:
            keys = [k for k in fields if is_in(k, name) and not any(is_in(k, other) for other in excluded)]
            if not keys:
                raise ValueError(f"<!-- keys: {match['keys']} -->: there is no key {name}")
            rows += [_row(key, fields[key], configs) for key in keys]
            listed.update(keys)
        head = "| key | values | default | meaning |\n|---|---|---|---|\n"
        return f"{match[1]}{head}{''.join(rows)}{match[4]}"

    text = TABLE.sub(table, text)
    if missing := sorted(set(fields) - listed - {"family"}):
        raise ValueError(f"in no table of the document: {', '.join(missing)}")
    return text


def _row(key: str, field: FieldInfo, configs: Mapping[tuple[str, str], DictConfig]) -> str:
    meaning = " ".join((field.description or "").split())
    cells = (f"`{key}`", _values(field), _default(key, configs), meaning)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _values(field: FieldInfo) -> str:
    """Type and range in words."""
    words = _kind(field.annotation)
    lower = next((f"≥ {c.ge:g}" for c in field.metadata if getattr(c, "ge", None) is not None), None)
    lower = lower or next((f"> {c.gt:g}" for c in field.metadata if getattr(c, "gt", None) is not None), None)
    upper = next((f"≤ {c.le:g}" for c in field.metadata if getattr(c, "le", None) is not None), None)
    limits = " and ".join(filter(None, (lower, upper if upper != "≤ 2.14748e+09" else None)))
    if limits:
        words = words.replace("number", f"number {limits}", 1)
    return words


def _kind(annotation: Any) -> str:
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(_kind(inner) for inner in get_args(annotation))
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) in (list, tuple):
        return f"list of {_kind(get_args(annotation)[0])}"
    if get_origin(annotation) is dict:
        return "section"
    names = {int: "whole number", float: "number", bool: "`true`, `false`", str: "text", type(None): "`null`"}
    return names.get(annotation, "value")


def _default(key: str, configs: Mapping[tuple[str, str], DictConfig]) -> str:
    """The value of the shipped configuration; where it depends on profile or environment, each of them."""
    everywhere = {pair: _raw(config, key) for pair, config in configs.items()}
    by_config = {pair: value for pair, value in everywhere.items() if value is not None}
    values = set(by_config.values())
    if len(values) == 1:
        return f"`{values.pop()}`"
    by_profile = list(_grouped(by_config, 0))
    by_environment = list(_grouped(by_config, 1))
    if len(by_profile) == len({name for name, _ in by_profile}):
        return ", ".join(f"{name} `{value}`" for name, value in by_profile)
    if len(by_environment) == len({name for name, _ in by_environment}):
        return ", ".join(f"{name} `{value}`" for name, value in by_environment)
    return ", ".join(f"{profile} {environment} `{value}`" for (profile, environment), value in by_config.items())


def _grouped(by_config: Mapping[tuple[str, str], str], index: int) -> Iterator[tuple[str, str]]:
    """Profile (0) or environment (1) with each of its different values."""
    yield from dict.fromkeys((pair[index], value) for pair, value in by_config.items())


def _raw(config: DictConfig, key: str) -> str | None:
    """The value as it stands in the files; None where the configuration has no such key."""
    section, _, name = key.rpartition(".")
    node = OmegaConf.select(config, section) if section else config
    if not isinstance(node, DictConfig) or name not in node:
        return None
    values: Any = OmegaConf.to_container(node, resolve=False)
    value = values[name]
    if isinstance(value, str) and "oc.select" in value:
        value = OmegaConf.select(config, key)
    return typed(value)
