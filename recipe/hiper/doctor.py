# SPDX-License-Identifier: Apache-2.0
"""Preflight: `python -m recipe.hiper.doctor [hydra overrides]` prints the plan of a training and all its problems."""

from __future__ import annotations

import sys

from recipe.hiper.configuration.hardware import choose_profile

PURPOSE = """\
python -m recipe.hiper.doctor: print what a training with these overrides would do on this machine (model, tasks,
memory, disk, prompts, updates) and everything that speaks against it, each with what to type. Nothing is started or
created, so it works on any machine, also profile=gpu without a GPU. Exit code 1 if there is a problem."""


def main() -> None:
    """Run the command line."""
    sys.argv[1:] = choose_profile(sys.argv[1:])
    # Only now: torch and verl read the environment that the profile sets when they are imported.
    from recipe.hiper.cli.command_line import run_command
    from recipe.hiper.cli.doctor import doctor

    run_command(doctor, PURPOSE)


if __name__ == "__main__":
    main()
