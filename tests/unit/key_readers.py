# SPDX-License-Identifier: Apache-2.0
"""Which configuration keys the source code reads, found in its syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOTS = ("config", "settings")
"""Names of variables and attributes that hold the whole configuration, as a tree or as `RunSettings`."""

SECTIONS = {"WarmStartSettings": "warm_start", "EnvironmentSettings": "env"}
"""Sections that functions take as arguments, by the name of their class."""


def keys_read(source: str) -> set[str]:
    """Dotted keys that `source` reads from `config` or `settings`, directly or through local names.

    `env = config.env; env.seed` reads `env.seed`, and so does `env.seed` of an argument `env: EnvironmentSettings`.

    A section that is passed on as a whole (`**config.warm_start.model`, also with `.model_dump()`) is returned as
    `warm_start.model.*`.
    """
    found: set[str] = set()
    for scope in _scopes(ast.parse(source)):
        aliases = dict.fromkeys(ROOTS, "") | dict(_section_arguments(scope))
        for node in _in_order(scope):
            if isinstance(node, ast.Assign):
                for target, value in _pairs(node.targets[0], node.value):
                    if isinstance(target, ast.Name) and (path := _path(value, aliases)) is not None:
                        aliases[target.id] = path
            found |= set(_read(node, aliases))
    return found


def _scopes(tree: ast.AST) -> Iterator[ast.AST]:
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _section_arguments(scope: ast.AST) -> Iterator[tuple[str, str]]:
    assert isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef)
    for argument in (*scope.args.posonlyargs, *scope.args.args, *scope.args.kwonlyargs):
        if isinstance(argument.annotation, ast.Name) and argument.annotation.id in SECTIONS:
            yield argument.arg, SECTIONS[argument.annotation.id]


def _in_order(scope: ast.AST) -> Iterable[ast.AST]:
    return sorted((node for node in ast.walk(scope) if hasattr(node, "lineno")), key=lambda node: node.lineno)


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[ast.expr, ast.expr]]:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        if len(target.elts) == len(value.elts):  # they differ where one of them is starred
            yield from zip(target.elts, value.elts, strict=True)
    else:
        yield target, value


def _path(node: ast.expr, aliases: dict[str, str]) -> str | None:
    if isinstance(node, ast.Name):
        return aliases.get(node.id)
    if isinstance(node, ast.Attribute):
        base = _path(node.value, aliases)
        if base is None:
            return "" if node.attr in ROOTS else None  # self.config, trainer.config
        return f"{base}.{node.attr}" if base else node.attr
    return None


def _read(node: ast.AST, aliases: dict[str, str]) -> Iterator[str]:
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and (path := _path(node, aliases)):
        yield path
    elif isinstance(node, ast.Call):
        for keyword in node.keywords:
            if keyword.arg is None and (path := _path(_undumped(keyword.value), aliases)):
                yield f"{path}.*"


def _undumped(node: ast.expr) -> ast.expr:
    """`section` where `node` is `section.model_dump()`."""
    is_dump = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "model_dump"
    return node.func.value if is_dump else node


def unread(keys: Iterable[str], read: set[str]) -> list[str]:
    """The keys that nothing reads."""
    return sorted(
        key for key in keys if key not in read and not any(r.endswith(".*") and key.startswith(r[:-1]) for r in read)
    )


def keys_read_in(folders: Iterable[Path]) -> set[str]:
    """Keys that any Python file below the folders reads."""
    files = [file for folder in folders for file in sorted(folder.rglob("*.py"))]
    return set().union(*(keys_read(file.read_text(encoding="utf-8")) for file in files))
