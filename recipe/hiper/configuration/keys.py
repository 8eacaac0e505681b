# SPDX-License-Identifier: Apache-2.0
"""Keys of the configuration as dotted names: which exist, and which one a misspelt key may mean."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from agent_system.rollout.environment_registry import FAMILY_NAMES

OPEN_SECTIONS = (
    "ray_kwargs.ray_init",
    "override_config",
    "engine_kwargs",
    "apply_chat_template_kwargs",
    "mm_processor_kwargs",
    "mixed_precision",
    "override_optimizer_config",
    "wrap_policy",
    "sampler_kwargs",
    "runtime_env",
)
"""Ends of the names of sections that take any key, because a library behind verl reads them."""

PROFILES = ("cpu", "gpu")
MODELS = ("tiny", "smollm2", "qwen2.5-1.5b")
USUAL_MODEL = {"cpu": "tiny", "gpu": "qwen2.5-1.5b"}
"""What `model=` is where the command line does not say, by profile."""
ENVIRONMENTS = FAMILY_NAMES


def environment_of(config: DictConfig) -> str:
    """What was chosen with `env=`: its section is the one that `env` has."""
    return next(name for name in ENVIRONMENTS if name in config.env)


def model_of(config: DictConfig) -> str | None:
    """What was chosen with `model=`; None where `model_name` was overridden with something else."""
    return config.model_name if config.model_name in MODELS else None


def flat_items(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of a configuration as a dotted key and its value."""
    if isinstance(config, dict) and config:
        for name, value in config.items():
            yield from flat_items(value, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, config


def flat_keys(config: Any) -> Iterator[str]:
    """Every leaf of a configuration as a dotted key."""
    return (key for key, _ in flat_items(config))


def known_keys(reference: DictConfig) -> set[str]:
    """Every leaf of the configuration without overrides."""
    return set(flat_keys(OmegaConf.to_container(reference, resolve=False)))


def is_in(key: str, section: str) -> bool:
    """Whether a dotted key is the section or lies in it."""
    return key == section or key.startswith(f"{section}.")


def is_open(key: str, known: Iterable[str]) -> bool:
    """Whether the key lies in one of `OPEN_SECTIONS` that exists."""
    ends = tuple(f".{section}" for section in OPEN_SECTIONS)
    sections = {prefix for other in known for prefix in _prefixes(other)}
    return any(f".{parent}".endswith(ends) for parent in _prefixes(key)[:-1] if parent in sections)


def _prefixes(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]


def unknown_keys(config: DictConfig, reference: DictConfig) -> dict[str, str]:
    """Every key that was added with `+` although nothing reads it, and a message."""
    known = known_keys(reference)
    problems = {}
    for key in known_keys(config) - known:
        is_filled = any(other.startswith(key + ".") for other in known) or any(key.startswith(o + ".") for o in known)
        if not is_filled and not is_open(key, known):
            names = similar_keys(key, known)
            meant = f" Did you mean {' or '.join(names)}?" if names else ""
            problems[key] = f"{key}: no such key, nothing would read it.{meant} Try: leave it out"
    return dict(sorted(problems.items()))


def missing_keys(config: DictConfig, reference: DictConfig) -> dict[str, str]:
    """Every key of the configuration without overrides that is gone, and a message."""
    known, present = known_keys(reference), known_keys(config)
    problems = {}
    for key in known - present:
        is_replaced = any(is_in(other, key) or is_in(key, other) for other in present)
        if not is_replaced and not is_open(key, known):
            problems[key] = f"{key} is missing: every key must have a value. Try: leave ~{key} out"
    return dict(sorted(problems.items()))


def similar_keys(key: str, known: Iterable[str]) -> list[str]:
    """The known keys that a misspelt one may mean, three at most."""
    known = list(known)
    close = difflib.get_close_matches(key, known, n=2, cutoff=0.75)
    close += [other for other in known if other.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]][:2]
    return list(dict.fromkeys(close))[:3]
