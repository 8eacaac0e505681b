# SPDX-License-Identifier: Apache-2.0
"""Prepare only: `python -m recipe.hiper.prepare [hydra overrides]` makes games, task files and model for a training."""

from __future__ import annotations

import sys

from recipe.hiper.configuration.hardware import choose_profile


def main() -> None:
    """Run the command line."""
    sys.argv[1:] = choose_profile(sys.argv[1:])
    # Only now: torch and verl read the environment that the profile sets when they are imported.
    from recipe.hiper.cli.command_line import run_command
    from recipe.hiper.cli.train import prepare_only

    run_command(prepare_only)


if __name__ == "__main__":
    main()
