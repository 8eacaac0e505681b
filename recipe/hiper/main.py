# SPDX-License-Identifier: Apache-2.0
"""Train: `python -m recipe.hiper.main [hydra overrides]`.

Without `profile=...` the profile is gpu where a GPU is found and cpu elsewhere; `--cfg job` prints the configuration,
`trainer.val_only=True` only evaluates the latest checkpoint (or the untrained model), in a folder of its own.
"""

from __future__ import annotations

import sys

from recipe.hiper.configuration.hardware import choose_profile


def main() -> None:
    """Run the command line."""
    sys.argv[1:] = choose_profile(sys.argv[1:])
    # Only now: torch and verl read the environment that the profile sets when they are imported.
    from recipe.hiper.cli.command_line import run_command
    from recipe.hiper.cli.train import train

    run_command(train)


if __name__ == "__main__":
    main()
