# SPDX-License-Identifier: Apache-2.0
"""Makes a shop ready to be played in: once, from the published files or from a generated catalogue.

    python -m agent_system.environments.webshop.prepare --data-dir shop                        # a generated catalogue
    python -m agent_system.environments.webshop.prepare --data-dir shop --source ~/WebShop/data
    python -m agent_system.environments.webshop.prepare --data-dir shop --source https://.../data

`--source` is a folder, or an address, with WebShop's `items_shuffle.json`, `items_ins_v2.json` and
`items_human_ins.json` (or the small `*_1000.json`), gzipped or not. What is written to --data-dir is read-only
afterwards and mapped into memory: one copy per node, however many environments run. A run that was stopped resumes
where it stopped; two on one folder wait for each other.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from agent_system.environments.webshop.generator.catalogue import GENERATOR, CatalogueSpec, write_catalogue
from agent_system.environments.webshop.goals import FIXED_SEED, Goals, count_combinations, goal_table
from agent_system.environments.webshop.nouns import NounTagger, best_tagger, tagger_by_name
from agent_system.environments.webshop.products import Product, read_human_instructions, read_products
from agent_system.environments.webshop.search.engine import SearchIndex
from agent_system.environments.webshop.shop import (
    ASIN_NUMBERS,
    ASINS,
    FORMAT,
    GOAL_COLUMNS,
    GOAL_COUNTS,
    HUMAN,
    INDEX,
    MANIFEST,
    NOUNS,
    PREPARE_COMMAND,
    PRICES,
    PRODUCTS,
    ShopManifest,
    goal_column,
    read_prices,
)
from agent_system.environments.webshop.sources import FULL, HUMAN_FILE, SourceFiles, find_sources
from agent_system.environments.webshop.store import LineStore, complete_lines, offsets_file, open_array, write_lines
from agent_system.errors import ConfigError, HiPERError
from agent_system.locks import LOCK, locked

PROGRESS = "preparing.json"
"""What a run that was stopped had finished."""
CLEARING = '{"clearing": true}'
"""The content of that file while a shop is deleted."""
GENERATED, DOWNLOADED = "generated", "source"
SPEC_FILE = "spec.json"
"""What the catalogue beside it was generated from."""
_RECORDS = (PRODUCTS, NOUNS, HUMAN)
_SHOP_FILES = (
    *_RECORDS,
    *(offsets_file(Path(name)).name for name in _RECORDS),
    *(PRICES, ASINS, ASIN_NUMBERS, *GOAL_COUNTS.values()),
    *(goal_column(Path(), goals, name).name for goals in Goals for name in GOAL_COLUMNS),
)
"""What the stages write, beside the index. Any other file in the folder is the user's."""
_TITLES_AT_ONCE = 256


@dataclass(frozen=True)
class ShopSpec:
    """What a shop is made from.

    Args:
        source: folder or address of the published files; None for a generated catalogue.
        catalogue: the generated one.
        small: take the small published catalogue (`*_1000.json`) where both are there.
        tagger: name of the tagger for the nouns of titles; None for the best one there is.
    """

    source: str | None = None
    catalogue: CatalogueSpec = CatalogueSpec()
    small: bool = False
    tagger: str | None = None


def prepare_shop(data_dir: Path, spec: ShopSpec, *, rebuild: bool = False, progress: bool = False) -> ShopManifest:
    """Make the shop in `data_dir`, or reuse it where it is finished and made from the same files.

    Args:
        rebuild: delete a shop in the folder and make it again.
        progress: whether progress bars are drawn on standard error.

    Raises:
        ConfigError: the folder holds a shop made from other files or by another version, or something else altogether.
        TaskError: a source file is missing, broken or not of this format.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    with locked(data_dir):
        _refuse_strangers(data_dir)
        if rebuild or _half_cleared(data_dir):
            _clear(data_dir)
        sources = _sources(data_dir, spec, progress)
        digests = sources.digests(progress)
        tagger = tagger_by_name(spec.tagger) if spec.tagger else best_tagger()
        if (data_dir / MANIFEST).exists():
            return _reused(data_dir, digests, tagger.name if spec.tagger else None)
        maker = _Maker(data_dir, sources, tagger, progress)
        maker.start({**digests, "tagger": tagger.name})
        for stage in (maker.products, maker.nouns, maker.index, maker.goals):
            maker.run(stage)
        manifest = ShopManifest(
            format=FORMAT,
            sources=digests,
            tagger=tagger.name,
            products=len(LineStore(data_dir / PRODUCTS)),
            goals={goals.value: len(open_array(goal_column(data_dir, goals, "product"))) for goals in Goals},
            files=_files(data_dir),
        )
        manifest.write(data_dir)
        (data_dir / PROGRESS).unlink()
        return manifest


class _Maker:
    """The stages. Each reads what the ones before it wrote, and is done again from its start if it was cut off (the
    nouns, which may take hours with spaCy, continue where they stopped)."""

    def __init__(self, folder: Path, sources: SourceFiles, tagger: NounTagger, progress: bool) -> None:
        self.folder = folder
        self.sources = sources
        self.tagger = tagger
        self.progress = progress
        self.done: list[str] = []

    def start(self, made_from: dict[str, str]) -> None:
        """Take up an earlier run, if it was made from the same files."""
        self.made_from = made_from
        file = self.folder / PROGRESS
        if file.exists():
            before = json.loads(file.read_text(encoding="utf-8"))
            if before["made_from"] != made_from:
                raise ConfigError(
                    f"{self.folder} holds an unfinished shop made from other files. "
                    f"Try: {PREPARE_COMMAND} {self.folder} --rebuild"
                )
            self.done = before["done"]
        else:
            self._record()

    def run(self, stage) -> None:
        """Do a stage, unless it is done."""
        if stage.__name__ not in self.done:
            stage()
            self.done.append(stage.__name__)
            self._record()

    def _record(self) -> None:
        partial = self.folder / f"{PROGRESS}.partial"
        partial.write_text(json.dumps({"made_from": self.made_from, "done": self.done}), encoding="utf-8")
        partial.rename(self.folder / PROGRESS)

    def products(self) -> None:
        """Products, their prices, and their numbers by id."""
        prices: list[tuple[float, float]] = []
        asins: list[bytes] = []
        wishes: list[tuple[int, int]] = []

        def lines() -> Iterator[str]:
            stream = read_products(self.sources.items, self.sources.attributes)
            for number, product in enumerate(tqdm(stream, "products", unit="product", disable=not self.progress)):
                prices.append((product.prices[0], product.prices[1] if len(product.prices) > 1 else np.nan))
                asins.append(product.asin.encode("utf-8"))
                if product.instruction is not None:
                    wishes.append((number, count_combinations(product)))
                yield product.to_json()

        write_lines(self.folder / PRODUCTS, lines())
        names = np.array(asins, dtype=np.bytes_)
        order = np.argsort(names, kind="stable")
        np.save(self.folder / ASINS, names[order])
        np.save(self.folder / ASIN_NUMBERS, order.astype(np.int32))
        np.save(self.folder / PRICES, np.array(prices, dtype=np.float64).reshape(-1, 2))
        np.save(self.folder / GOAL_COUNTS[Goals.SYNTHETIC], np.array(wishes, dtype=np.int64).reshape(-1, 2))

    def nouns(self) -> None:
        """Nouns of every title."""
        file = self.folder / NOUNS
        products = LineStore(self.folder / PRODUCTS)
        ready = min(complete_lines(file), len(products))

        def lines() -> Iterator[str]:
            bar = tqdm(total=len(products), initial=ready, desc="nouns", unit="title", disable=not self.progress)
            numbers = iter(range(ready, len(products)))
            with bar:
                while chunk := list(islice(numbers, _TITLES_AT_ONCE)):
                    for nouns in self.tagger.nouns([Product.from_json(products[number]).title for number in chunk]):
                        yield json.dumps(nouns, ensure_ascii=False)
                    bar.update(len(chunk))

        write_lines(file, lines(), append_after=ready)

    def index(self) -> None:
        """The search index."""
        products = LineStore(self.folder / PRODUCTS)

        def documents() -> Iterator[tuple[str, str]]:
            for number in range(len(products)):
                product = Product.from_json(products[number])
                yield product.asin, product.searched_text

        SearchIndex.build(documents(), self.folder / INDEX, total=len(products), progress=self.progress)

    def goals(self) -> None:
        """Human instructions, and the goals of both kinds in the order of `fixed`."""
        written = read_human_instructions(self.sources.human)
        asins, numbers = open_array(self.folder / ASINS), open_array(self.folder / ASIN_NUMBERS)
        by_number = {}
        for asin, instructions in written.items():
            place = int(np.searchsorted(asins, asin.encode("utf-8")))
            with_attributes = [instruction for instruction in instructions if instruction.attributes]
            if with_attributes and place < len(asins) and asins[place] == asin.encode("utf-8"):
                by_number[int(numbers[place])] = with_attributes
        by_number = dict(sorted(by_number.items()))
        write_lines(
            self.folder / HUMAN,
            (
                json.dumps([(i.instruction, i.attributes, i.options) for i in instructions], ensure_ascii=False)
                for instructions in by_number.values()
            ),
        )
        wishes = np.array([(number, len(instructions)) for number, instructions in by_number.items()], dtype=np.int64)
        np.save(self.folder / GOAL_COUNTS[Goals.HUMAN], wishes.reshape(-1, 2))
        prices = read_prices(self.folder)
        for goals in Goals:
            table = goal_table(prices, open_array(self.folder / GOAL_COUNTS[goals]).tolist(), goals, FIXED_SEED)
            for name in GOAL_COLUMNS:
                np.save(goal_column(self.folder, goals, name), getattr(table, name))


def _sources(data_dir: Path, spec: ShopSpec, progress: bool) -> SourceFiles:
    if spec.source is not None:
        return find_sources(spec.source, data_dir / DOWNLOADED, small=spec.small, progress=progress)
    folder = data_dir / GENERATED
    marker = folder / SPEC_FILE
    expected = f"generator {GENERATOR}: {spec.catalogue}"
    if not marker.exists() or marker.read_text(encoding="utf-8") != expected:
        if (data_dir / MANIFEST).exists() or (data_dir / PROGRESS).exists():
            raise ConfigError(
                f"{data_dir} was made from other data than {expected}. "
                f"Try: {PREPARE_COMMAND} {data_dir} --rebuild, or another folder"
            )
        write_catalogue(folder, spec.catalogue, progress=progress)
        marker.write_text(expected, encoding="utf-8")
    return find_sources(str(folder), folder, small=False, progress=progress)


def _reused(data_dir: Path, digests: dict[str, str], tagger: str | None) -> ShopManifest:
    manifest = ShopManifest.read(data_dir)
    names = sorted({*digests, *manifest.sources})
    if changed := [name for name in names if digests.get(name) != manifest.sources.get(name)]:
        raise ConfigError(
            f"{data_dir} was prepared from other data ({', '.join(changed)} differ). "
            f"Try: {PREPARE_COMMAND} {data_dir} --rebuild, or another folder"
        )
    if tagger is not None and tagger != manifest.tagger:
        raise ConfigError(
            f"{data_dir} has nouns from {manifest.tagger}, not from {tagger}. Try: "
            f"{PREPARE_COMMAND} {data_dir} --rebuild --tagger {tagger}"
        )
    return manifest


def _refuse_strangers(data_dir: Path) -> None:
    present = {path.name for path in data_dir.iterdir()}
    strangers = present - {LOCK, GENERATED, DOWNLOADED, f"{PROGRESS}.partial"}
    if strangers and not present & {MANIFEST, PROGRESS}:
        raise ConfigError(
            f"{data_dir} holds {sorted(strangers)[:5]} and no shop. Try: --data-dir <empty folder> (the "
            "folder of the published files is --source)"
        )


def _clear(data_dir: Path) -> None:
    """Delete what was made here, by name: downloads stay, and so does what is not ours. Killed on the way, the next
    start resumes it."""
    (data_dir / PROGRESS).write_text(CLEARING, encoding="utf-8")
    for name in (MANIFEST, *_SHOP_FILES, f"{MANIFEST}.partial", f"{PROGRESS}.partial"):
        (data_dir / name).unlink(missing_ok=True)
    for name in (SPEC_FILE, *FULL, HUMAN_FILE):
        (data_dir / GENERATED / name).unlink(missing_ok=True)
    if (data_dir / INDEX).exists():
        shutil.rmtree(data_dir / INDEX)
    (data_dir / PROGRESS).unlink()


def _half_cleared(data_dir: Path) -> bool:
    progress = data_dir / PROGRESS
    return progress.exists() and progress.read_text(encoding="utf-8") == CLEARING


def _files(data_dir: Path) -> dict[str, int]:
    files = {path.relative_to(data_dir): path for path in sorted(data_dir.rglob("*")) if path.is_file()}
    ours = {INDEX, *_SHOP_FILES}
    return {str(name): path.stat().st_size for name, path in files.items() if name.parts[0] in ours}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = CatalogueSpec()
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the prepared shop")
    parser.add_argument("--source", help="folder or address of the published files; default: generate some")
    parser.add_argument("--small", action="store_true", help="the 1,000-product catalogue, where both are there")
    parser.add_argument("--products", type=int, default=default.products, help="size of a generated catalogue")
    parser.add_argument("--seed", type=int, default=default.seed, help="seed of a generated catalogue")
    parser.add_argument("--tagger", help="what finds the nouns of titles; default: spaCy if its model is installed")
    parser.add_argument("--rebuild", action="store_true", help="delete a shop in the folder and make it again")
    options = parser.parse_args()
    try:
        catalogue = CatalogueSpec(products=options.products, seed=options.seed)
        spec = ShopSpec(options.source, catalogue, options.small, options.tagger)
        manifest = prepare_shop(options.data_dir, spec, rebuild=options.rebuild, progress=True)
    except HiPERError as error:
        sys.exit(f"error: {error}")
    goals = ", ".join(f"{count:,} {name}" for name, count in manifest.goals.items())
    size = sum(manifest.files.values()) / 2**20
    print(f"{options.data_dir}: {manifest.products:,} products; goals: {goals}; nouns by {manifest.tagger}")
    print(f"{size:.1f} MiB")


if __name__ == "__main__":
    main()
