# SPDX-License-Identifier: Apache-2.0
"""The structure of the code: modules and lines of each folder, imports between folders, and import circles.

    python benchmarks/structure.py                    # this checkout
    python benchmarks/structure.py --root OTHER       # another one, for example an older version

Nothing of the code is executed: the import graph is read from the source by grimp, which import-linter uses as well.
Imports inside functions count.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grimp
import networkx

PACKAGES = ("agent_system", "recipe", "verl_plugins")


@dataclass(frozen=True)
class Folder:
    """Modules of one folder, without those of its subfolders. Empty `__init__.py` files do not count as modules."""

    name: str
    modules: int
    lines: int
    longest: int


@dataclass(frozen=True)
class Structure:
    """Folders and the imports between them.

    Attributes:
        folders: in alphabetical order.
        arrows: number of imports from a folder into another one, by (importing, imported).
        module_circles: groups of modules that import each other, directly or through others.
        folder_circles: the same for folders.
    """

    folders: list[Folder]
    arrows: Counter[tuple[str, str]]
    module_circles: list[list[str]]
    folder_circles: list[list[str]]


def _line_count(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def _is_empty_init(path: Path) -> bool:
    lines = path.read_text(encoding="utf-8").splitlines()
    return path.name == "__init__.py" and all(not line or line.startswith(("#", '"""')) for line in lines)


def _circles(edges: Sequence[tuple[str, str]]) -> list[list[str]]:
    components = networkx.strongly_connected_components(networkx.DiGraph(edges))
    return sorted(sorted(component) for component in components if len(component) > 1)


def read_structure(root: Path) -> Structure:
    """Read the packages in the folder `root`.

    Raises:
        FileNotFoundError: a package is not there.
    """
    for package in PACKAGES:
        if not (root / package / "__init__.py").is_file():
            raise FileNotFoundError(f"--root {root}: there is no package {package} in it")
    files = {package: sorted((root / package).rglob("*.py")) for package in PACKAGES}
    by_folder: dict[str, list[Path]] = {}
    for path in (path for paths in files.values() for path in paths):
        if not _is_empty_init(path):
            by_folder.setdefault(path.parent.relative_to(root).as_posix(), []).append(path)
    folders = [
        Folder(name, len(paths), sum(map(_line_count, paths)), max(map(_line_count, paths)))
        for name, paths in sorted(by_folder.items())
    ]

    sys.path.insert(0, str(root.resolve()))  # before an installed version
    try:
        graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    finally:
        sys.path.pop(0)
    packages = {
        path.parent.relative_to(root).as_posix().replace("/", ".") for paths in files.values() for path in paths
    }

    def folder_of(module: str) -> str:
        return (module if module in packages else module.rpartition(".")[0]).replace(".", "/")

    edges = [
        (importer, imported)
        for importer in sorted(graph.modules)
        for imported in sorted(graph.find_modules_directly_imported_by(importer))
    ]
    arrows = Counter((folder_of(importer), folder_of(imported)) for importer, imported in edges)
    for name in list(arrows):
        if name[0] == name[1]:
            del arrows[name]
    return Structure(folders, arrows, _circles(edges), _circles(list(arrows)))


def report(structure: Structure) -> str:
    """The structure as Markdown."""
    lines = ["| folder | modules | lines | longest module |", "|---|---:|---:|---:|"]
    lines += [f"| {f.name} | {f.modules} | {f.lines:,} | {f.longest} |" for f in structure.folders]
    modules, total = sum(f.modules for f in structure.folders), sum(f.lines for f in structure.folders)
    lines += [f"| all | {modules} | {total:,} | {max(f.longest for f in structure.folders)} |", ""]
    targets: dict[str, list[str]] = {}
    for (importer, imported), count in sorted(structure.arrows.items()):
        targets.setdefault(importer, []).append(f"{imported} ({count})")
    lines += ["| folder | imports from (number of imports between modules) |", "|---|---|"]
    lines += [f"| {importer} | {', '.join(imported)} |" for importer, imported in targets.items()]
    lines += ["", f"{len(structure.arrows)} arrows between folders."]
    for kind, circles in (("modules", structure.module_circles), ("folders", structure.folder_circles)):
        lines += [f"Circles of {kind}: {len(circles)}"] + [f"- {', '.join(circle)}" for circle in circles]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Print the structure of the code.")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1], help="a checkout")
    options = parser.parse_args(arguments)
    try:
        print(report(read_structure(options.root)))
    except FileNotFoundError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
