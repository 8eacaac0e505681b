# SPDX-License-Identifier: Apache-2.0
"""Train: `python -m recipe.hiper.main [hydra overrides]`."""

from __future__ import annotations

import sys

from recipe.hiper.configuration.hardware import choose_profile

PURPOSE = """\
python -m recipe.hiper.main: check the configuration, create the tasks and the model where they are missing, and train.
Without profile=... the profile is gpu where a GPU answers and cpu elsewhere. The same command resumes an interrupted
run. trainer.val_only=True only evaluates the latest checkpoint (or the untrained model), in a folder of its own."""


def main() -> None:
    """Run the command line."""
    sys.argv[1:] = choose_profile(sys.argv[1:])
    # Only now: torch and verl read the environment that the profile sets when they are imported.
    from recipe.hiper.cli.command_line import run_command
    from recipe.hiper.cli.train import train

    run_command(train, PURPOSE)


if __name__ == "__main__":
    main()
