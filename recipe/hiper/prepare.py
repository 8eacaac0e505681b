# SPDX-License-Identifier: Apache-2.0
"""Prepare only: `python -m recipe.hiper.prepare [hydra overrides]` makes games, task files and model for a training."""

from __future__ import annotations

import sys

from recipe.hiper.configuration.hardware import choose_profile

PURPOSE = """\
python -m recipe.hiper.prepare: create the tasks and the model of a training and stop, for a machine that trains later.
They are kept in the cache (HIPER_CACHE, by default ~/.cache/hiper); the training takes the same overrides."""


def main() -> None:
    """Run the command line."""
    sys.argv[1:] = choose_profile(sys.argv[1:])
    # Only now: torch and verl read the environment that the profile sets when they are imported.
    from recipe.hiper.cli.command_line import run_command
    from recipe.hiper.cli.train import prepare_only

    run_command(prepare_only, PURPOSE)


if __name__ == "__main__":
    main()
