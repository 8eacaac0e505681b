# SPDX-License-Identifier: Apache-2.0
"""Write the tables of docs/configuration.md: `python -m recipe.hiper.cli.document_configuration`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from recipe.hiper.cli.train import SECTIONS
from recipe.hiper.configuration.document import with_tables
from recipe.hiper.configuration.overrides import reference_config

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "configuration.md"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. With `--check`, exits with 1 if the document is not up to date."""
    parser = argparse.ArgumentParser(
        prog="python -m recipe.hiper.cli.document_configuration",
        description="Write the tables of keys in docs/configuration.md from the schema and the shipped configuration. "
        "The text between the tables is kept.",
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the file would change")
    options = parser.parse_args(arguments)
    text = DOCUMENT.read_text(encoding="utf-8")
    written = with_tables(text, SECTIONS, reference_config)
    if not options.check:
        DOCUMENT.write_text(written, encoding="utf-8")
    elif written != text:
        parser.exit(1, f"{DOCUMENT} is not up to date. Try: {parser.prog}\n")


if __name__ == "__main__":
    main()
