# SPDX-License-Identifier: Apache-2.0
"""The base of every typed section of the configuration, and messages for values that do not fit it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from agent_system.errors import ConfigError


class Section(BaseModel):
    """A section of the configuration: immutable, every key known, every type exact (1.5 and true are no integers).

    A subclass declares one field per key, with its type, range and default, and a docstring below it from which
    docs/configuration.md is generated. Enumerations are `Literal`. A rule that concerns several keys is a
    `model_validator(mode="after")` that raises ValueError with a message that ends in `Try: key=value`.
    """

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=True,
    )


S = TypeVar("S", bound=Section)


def read_section(section: type[S], values: Mapping[str, Any], prefix: str) -> tuple[S | None, list[str]]:
    """Read a section of the configuration.

    Args:
        section: what the section holds.
        values: plain values, as `OmegaConf.to_container(..., resolve=True)` returns them.
        prefix: dotted key of the section, for the messages.

    Returns:
        The section, or None with one message for each problem.
    """
    try:
        return section.model_validate(dict(values)), []
    except ValidationError as error:
        return None, [_message(section, problem, prefix) for problem in error.errors()]


def require_section(section: type[S], values: Mapping[str, Any], prefix: str) -> S:
    """`read_section` of a configuration that was checked before.

    Raises:
        ConfigError: it does not fit after all.
    """
    result, problems = read_section(section, values, prefix)
    if result is None:
        raise ConfigError("\n".join(problems))
    return result


def _message(section: type[Section], problem: Mapping[str, Any], prefix: str) -> str:
    path = [part for part in problem["loc"] if isinstance(part, str)]
    key = ".".join([prefix, *path] if prefix else path)
    reason = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":  # a rule of ours, which says what to type
        return f"{key}: {reason}" if path else reason
    if problem["type"] == "extra_forbidden":
        return f"{key}: no such key, nothing would read it. Try: leave it out"
    if problem["type"] == "missing":
        return f"{key} is missing. Try: {key}=<value>"
    default = _default(section, problem["loc"])
    remedy = f"Try: {key}={_typed(default)}" if default is not _NO_DEFAULT else "Try: another value"
    return f"{key}={_typed(problem['input'])}: {reason[:1].lower()}{reason[1:]}. {remedy}"


_NO_DEFAULT = object()


def _default(section: type[BaseModel], path: tuple[Any, ...]) -> Any:
    """The default of the field that `path` leads to."""
    field = section.model_fields.get(path[0]) if path else None
    if field is None or field.is_required():
        return _NO_DEFAULT
    default = field.get_default(call_default_factory=True)
    for part in path[1:]:
        if not isinstance(part, str) or not hasattr(default, part):
            break
        default = getattr(default, part)
    return default


def _typed(value: Any) -> str:
    """A value as Hydra's command line reads it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_typed, value)) + "]"
    return str(value)
