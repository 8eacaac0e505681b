# SPDX-License-Identifier: Apache-2.0
"""docs/configuration.md lists every key of ours, with the shipped values."""

from __future__ import annotations

import pytest
from made_config import composed, reference
from pydantic import Field

from recipe.hiper.cli import document_configuration
from recipe.hiper.cli.document_configuration import DOCUMENT
from recipe.hiper.cli.train import SECTIONS
from recipe.hiper.configuration.document import with_tables
from recipe.hiper.configuration.schema import RunSettings
from recipe.hiper.configuration.section import Section, section_fields


def shipped(profile: str, environment: str):
    """The configuration as in the files: the number of GPUs is filled in at start."""
    config = composed(profile=profile, environment=environment)
    if profile == "gpu":
        config.trainer.n_gpus_per_node = None
    return config


def test_the_document_is_up_to_date():
    """`python -m recipe.hiper.cli.document_configuration` writes it."""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert with_tables(text, SECTIONS, shipped) == text
    assert "| `env.max_steps` | whole number ≥ 1 | cpu alfworld `20`, cpu webshop `10`" in text
    assert "| `algorithm.updates_per_step` | whole number ≥ 1 or `null` | cpu `4`, gpu `null` |" in text


def test_every_key_has_a_meaning():
    assert [key for key, field in section_fields(RunSettings) if not field.description] == []


class Shop(Section):
    split: str
    """order of the goals"""
    train_goals: int = Field(ge=1)
    """most goals"""


def test_the_section_of_a_family_has_a_table():
    text = DOCUMENT.read_text(encoding="utf-8")
    written = with_tables(text, {"webshop": Shop}, reference)
    assert "| `env.webshop.train_goals` | whole number ≥ 1 | `20000` | most goals |" in written


def test_a_key_in_no_table_and_a_table_of_no_key_are_errors():
    text = DOCUMENT.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="in no table of the document: .*warm_start.seed"):
        with_tables(text.replace("<!-- keys: warm_start -->", ""), SECTIONS, reference)
    with pytest.raises(ValueError, match="there is no key warm_end"):
        with_tables(text.replace("<!-- keys: warm_start -->", "<!-- keys: warm_end -->"), SECTIONS, reference)


def test_the_command(monkeypatch, tmp_path, capsys):
    copy = tmp_path / "configuration.md"
    copy.write_text(DOCUMENT.read_text("utf-8"), "utf-8")
    monkeypatch.setattr(document_configuration, "DOCUMENT", copy)
    document_configuration.main(["--check"])
    outdated = copy.read_text("utf-8").replace("cpu alfworld `20`, cpu webshop `10`", "cpu alfworld `21`")
    copy.write_text(outdated, "utf-8")
    with pytest.raises(SystemExit) as end:
        document_configuration.main(["--check"])
    assert end.value.code == 1 and "is not up to date. Try: python -m recipe.hiper.cli" in capsys.readouterr().err
    assert copy.read_text("utf-8") == outdated
    document_configuration.main([])
    assert copy.read_text("utf-8") == DOCUMENT.read_text("utf-8")


def test_the_help_of_the_command_writes_nothing(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(document_configuration, "DOCUMENT", tmp_path / "configuration.md")
    with pytest.raises(SystemExit) as end:
        document_configuration.main(["--help"])
    assert end.value.code == 0 and "docs/configuration.md" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
