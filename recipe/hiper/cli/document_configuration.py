# SPDX-License-Identifier: Apache-2.0
"""Write the tables of docs/configuration.md: `python -m recipe.hiper.cli.document_configuration`."""

from __future__ import annotations

from pathlib import Path

from recipe.hiper.cli.train import SECTIONS
from recipe.hiper.configuration.document import with_tables
from recipe.hiper.configuration.overrides import reference_config

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "configuration.md"


def main() -> None:
    """Run the command line."""
    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(with_tables(text, SECTIONS, reference_config), encoding="utf-8")


if __name__ == "__main__":
    main()
