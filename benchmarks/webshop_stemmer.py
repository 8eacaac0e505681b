# SPDX-License-Identifier: Apache-2.0
"""The Porter stemmer of WebShop's search against nltk's: agreement, time per word, memory of an environment process.

    python benchmarks/webshop_stemmer.py                              # words of 20,000 generated products
    python benchmarks/webshop_stemmer.py --source ~/WebShop/data      # and of the published catalogue

Memory is the unique set size of one process with 256 environments, before and after the import of nltk.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from agent_system.environments.webshop.env import WebShopEnv
from agent_system.environments.webshop.generator.catalogue import CatalogueSpec, write_catalogue
from agent_system.environments.webshop.prepare import ShopSpec, prepare_shop
from agent_system.environments.webshop.products import read_products
from agent_system.environments.webshop.search.analyzer import normalize, split_words
from agent_system.environments.webshop.search.stemmer import stem
from agent_system.environments.webshop.sources import find_sources
from benchmarks.machine import describe

PRODUCTS = 20_000
ENVIRONMENTS = 256


def catalogue_words(source: Path, scratch: Path) -> list[str]:
    """All different words of a catalogue's texts as the stemmer gets them, sorted."""
    files = find_sources(str(source), scratch, small=False, progress=False)
    words: set[str] = set()
    for product in read_products(files.items, files.attributes):
        texts = (product.searched_text, *product.bullets, *product.attributes, product.product_category)
        words.update(map(normalize, split_words(" ".join((*texts, product.instruction or "")))))
    return sorted(words - {""})


def microseconds(function: Callable[[str], str], words: list[str]) -> float:
    """CPU time per word."""
    start = time.process_time()
    for word in words:
        function(word)
    return 1e6 * (time.process_time() - start) / len(words)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, help="folder of the published catalogue")
    arguments = parser.parse_args()
    print(describe())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare_shop(folder / "shop", ShopSpec(catalogue=CatalogueSpec(), tagger="lexicon"))
        environments = [WebShopEnv(folder / "shop") for _ in range(ENVIRONMENTS)]
        for index, env in enumerate(environments):
            _, info = env.reset(options={"goal_index": index})
            env.step(f"search[{info['task']}]")

        process = psutil.Process()
        before, start = process.memory_full_info().uss, time.process_time()
        # Here and not at the head: its cost is measured.
        from nltk.stem.porter import PorterStemmer

        seconds, after = time.process_time() - start, process.memory_full_info().uss
        print(
            f"{ENVIRONMENTS} environments in one process: {before / 1e6:.0f} MB; the import of nltk adds "
            f"{(after - before) / 1e6:.0f} MB and takes {seconds:.1f} s"
        )
        oracle = PorterStemmer(mode=PorterStemmer.MARTIN_EXTENSIONS).stem
        write_catalogue(folder / "generated", CatalogueSpec(products=PRODUCTS))
        catalogues = {f"{PRODUCTS:,} generated products": folder / "generated"}
        if arguments.source:
            catalogues["the published catalogue"] = arguments.source
        for name, source in catalogues.items():
            words = catalogue_words(source, folder / "unpacked")
            different = [word for word in words if stem(word) != oracle(word)]
            print(
                f"{name}: {len(words):,} words, {len(different)} stemmed differently {different[:5]}; "
                f"microseconds per word: {microseconds(stem, words):.1f} ours, {microseconds(oracle, words):.1f} nltk"
            )


if __name__ == "__main__":
    main()
