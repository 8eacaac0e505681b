# SPDX-License-Identifier: Apache-2.0
"""The base of every typed section of the configuration, and messages for values that do not fit it."""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from agent_system.errors import ConfigError


class Section(BaseModel):
    """A section of the configuration: immutable, every key known, every type exact (1.5 and true are no integers).

    A subclass declares one field per key, with its type and range, and a docstring below it from which
    docs/configuration.md is generated. Enumerations are `Literal`. A rule that concerns several keys is a
    `model_validator(mode="after")` that raises ValueError with a message that ends in `Try: key=value`.

    A default is only needed where a section is built outside a run: in a run every key has a value in
    `recipe/hiper/config`, and messages suggest that one.
    """

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=True,
    )


class SharedSection(Section):
    """A section of verl's in which some keys are declared here; the other keys of the section are verl's own."""

    model_config = ConfigDict(extra="ignore")


S = TypeVar("S", bound=Section)


@dataclass(frozen=True)
class Problem:
    """What is wrong with one key.

    Attributes:
        key: dotted key; of a rule that concerns several keys, the section.
        text: the message: what is wrong, why, and what to type.
        is_rule: whether it is a rule that concerns several keys, so that no value of a single key is wrong.
    """

    key: str
    text: str
    is_rule: bool = False


def section_problems(
    section: type[S], values: Any, prefix: str, usual: Mapping[str, Any] | None = None
) -> tuple[S | None, list[Problem]]:
    """Read a section of the configuration.

    Args:
        section: what the section holds.
        values: plain values, as `OmegaConf.to_container(..., resolve=True)` returns them.
        prefix: dotted key of the section, for the messages; "" for the whole configuration.
        usual: values without the user's overrides, which the messages suggest; None: the defaults of the section.

    Returns:
        The section, or None with every problem.
    """
    try:
        return section.model_validate(dict(values) if isinstance(values, Mapping) else values), []
    except ValidationError as error:
        return None, [_problem(section, detail, prefix, usual) for detail in error.errors()]


def read_section(section: type[S], values: Mapping[str, Any], prefix: str) -> tuple[S | None, list[str]]:
    """`section_problems` with the messages alone: the section, or None with one message for each problem."""
    result, problems = section_problems(section, values, prefix)
    return result, [problem.text for problem in problems]


def require_section(section: type[S], values: Mapping[str, Any], prefix: str) -> S:
    """`read_section` of a configuration that was checked before.

    Raises:
        ConfigError: it does not fit after all.
    """
    result, problems = read_section(section, values, prefix)
    if result is None:
        raise ConfigError("\n".join(problems))
    return result


def _problem(
    section: type[Section], detail: Mapping[str, Any], prefix: str, usual: Mapping[str, Any] | None
) -> Problem:
    path = [part for part in detail["loc"] if isinstance(part, str)]
    key = ".".join([prefix, *path] if prefix else path)
    if detail["type"] == "value_error":  # a rule of ours, which says what to type
        reason = detail["msg"].removeprefix("Value error, ")
        is_value = bool(path) and not isinstance(detail["input"], Mapping)
        names_the_value = not is_value or reason.startswith(f"{key}=")
        text = reason if names_the_value else f"{key}={typed(detail['input'])}: {reason}"
        return Problem(key, text, is_rule=not is_value)
    if detail["type"] == "extra_forbidden":
        return Problem(key, f"{key}: no such key, nothing would read it. Try: leave it out")
    value = _lookup(usual, path) if usual is not None else _MISSING
    if value is _MISSING:
        value = _default(section, path)
    remedy = "another value" if value is _MISSING else f"{key}={typed(value)}"
    if detail["type"] == "missing":
        return Problem(key, f"{key} is missing. Try: {remedy if value is not _MISSING else f'{key}=<value>'}")
    if detail["type"] in ("model_type", "dict_type") and isinstance(value, Mapping) and value:
        remedy = f"leave it out, and set its keys: {', '.join(f'{key}.{name}' for name in value)}"
    reason = _reason(detail)
    if field := _field(section, path):
        reason += ", or null" if _is_optional(field) else ""
        reason += f" ({_purpose(field)})" if _purpose(field) else ""
    return Problem(key, f"{key}={typed(detail['input'])}: {reason}. Try: {remedy}")


_REASONS = {
    "int_type": "a whole number is needed",
    "int_from_float": "a whole number is needed",
    "float_type": "a number is needed",
    "finite_number": "a finite number is needed",
    "bool_type": "true or false is needed",
    "string_type": "text is needed",
    "string_too_short": "text is needed",
    "list_type": "a list is needed, for example [a,b]",
    "dict_type": "a section with keys of its own is needed",
    "model_type": "a section with keys of its own is needed",
    "greater_than": "more than {gt} is needed",
    "greater_than_equal": "at least {ge} is needed",
    "less_than": "less than {lt} is needed",
    "less_than_equal": "at most {le} is needed",
    "literal_error": "it is not one of {expected}",
    "too_short": "at least {min_length} entries are needed",
    "too_long": "at most {max_length} entries are possible",
}


def _reason(detail: Mapping[str, Any]) -> str:
    context = {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in _context(detail)}
    if detail["type"] == "literal_error":
        context["expected"] = context["expected"].replace("'", "").replace(" or ", ", ")
        if "," not in context["expected"]:
            return f"it can only be {context['expected']}"
    if detail["type"] in _REASONS:
        return _REASONS[detail["type"]].format(**context)
    message = str(detail["msg"])
    return message[:1].lower() + message[1:]


def _context(detail: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    context: Mapping[str, Any] = detail.get("ctx", {})
    return context.items()


_MISSING = object()


def _lookup(values: Any, path: list[str]) -> Any:
    for part in path:
        if not isinstance(values, Mapping) or part not in values:
            return _MISSING
        values = values[part]
    return values


def _field_section(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds; None where it holds values."""
    kinds = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _field(section: type[BaseModel], path: list[str]) -> FieldInfo | None:
    """The field that a path of names leads to."""
    inner: type[BaseModel] | None = section
    field = None
    for part in path:
        field = inner.model_fields.get(part) if inner else None
        inner = _field_section(field.annotation) if field else None
    return field


def _is_optional(field: FieldInfo) -> bool:
    """Whether null is allowed."""
    return type(None) in get_args(field.annotation)


def _purpose(field: FieldInfo) -> str:
    """The first clause of a field's docstring."""
    return " ".join(re.split(r"[.;:(]", field.description or "", maxsplit=1)[0].replace("`", "").split())


def section_fields(section: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key of a section and of the sections in it, with its field."""
    for name, field in section.model_fields.items():
        key = f"{prefix}.{name}" if prefix else name
        inner = _field_section(field.annotation)
        if inner is None:
            yield key, field
        elif issubclass(inner, Section):
            yield from section_fields(inner, key)


def _default(section: type[BaseModel], path: list[str]) -> Any:
    """The default of the field that `path` leads to."""
    field = section.model_fields.get(path[0]) if path else None
    if field is None or field.is_required():
        return _MISSING
    default = field.get_default(call_default_factory=True)
    for part in path[1:]:
        if not hasattr(default, part):
            break
        default = getattr(default, part)
    return default


def typed(value: Any) -> str:
    """A value as Hydra's command line reads it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(typed, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{typed(inner)}" for name, inner in value.items()) + "}"
    if value == "":
        return '""'
    return str(value)


def choices(annotation: Any) -> tuple[str, ...]:
    """The values of a `Literal`, also of one that may be null."""
    if get_origin(annotation) is Literal:
        return tuple(map(str, get_args(annotation)))
    return tuple(value for inner in get_args(annotation) for value in choices(inner))
