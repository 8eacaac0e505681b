# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe.hiper.cold_start [hydra overrides]`: make the model that a training starts from, and a report."""

from __future__ import annotations

import sys

from recipe.hiper.configuration.hardware import choose_profile

PURPOSE = """\
python -m recipe.hiper.cold_start: let scripted players demonstrate the tasks of a training, teach a model with that,
and report what it can do: loss and exact replies on held-out demonstrations, valid replies, admissible actions and
success.
The model is kept in the cache, and a training with the same overrides starts from it. Any causal language model:
  python -m recipe.hiper.cold_start model=smollm2
  python -m recipe.hiper.cold_start env=webshop model=smollm2 warm_start.base=<folder or hub name>
An interrupted command resumes."""


def main() -> None:
    """Run the command line."""
    sys.argv[1:] = choose_profile(sys.argv[1:])
    # Only now: torch and verl read the environment that the profile sets when they are imported.
    from recipe.hiper.cli.cold_start import cold_start
    from recipe.hiper.cli.command_line import run_command

    run_command(cold_start, PURPOSE)


if __name__ == "__main__":
    main()
