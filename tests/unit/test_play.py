# SPDX-License-Identifier: Apache-2.0
"""The command that plays an environment in the terminal."""

from __future__ import annotations

import io
import sys

import pytest

from agent_system.environments import play as command


def typed(monkeypatch, *lines: str) -> None:
    """What the player types; then the input ends."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def run(*arguments: str) -> None:
    command.main(["hiper/TextCraft-v0", "--options", '{"goal": "oak planks", "distractors": 1}', *arguments])


def test_actions_are_chosen_by_number_or_typed(monkeypatch, capsys):
    typed(monkeypatch, "get 1 oak logs", "1")
    run()
    shown = capsys.readouterr().out
    assert shown.startswith("Task: craft oak planks. Commands: ")
    assert "  1  craft 4 oak planks using 1 oak logs" in shown
    assert shown.rstrip().endswith("won: score 1, reward 10, 2 steps")


def test_the_step_limit_is_named(monkeypatch, capsys):
    typed(monkeypatch, "99")
    run("--max-steps", "1")
    assert "the step limit ended the episode: score 0, reward 0, 1 steps" in capsys.readouterr().out


@pytest.mark.parametrize("lines", [("inventory", "quit"), ("inventory", "Q"), ("inventory",)])
def test_quit_and_the_end_of_the_input_stop_it(monkeypatch, capsys, lines):
    typed(monkeypatch, *lines)
    run()
    assert capsys.readouterr().out.rstrip().endswith("stopped after 1 steps")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["hiper/TextCraft-v0", "--options", '{"goal": "gold"}'], "goal='gold'"),
        (["hiper/TextCraft-v0", "--kwargs", '{"colour": 1}'], "colour"),
        (["hiper/Nothing-v0"], "Nothing"),
    ],
)
def test_what_cannot_be_played_is_an_error_without_a_traceback(arguments, problem):
    with pytest.raises(SystemExit, match=f"error: .*{problem}"):
        command.main(arguments)
