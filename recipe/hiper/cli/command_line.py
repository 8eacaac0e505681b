# SPDX-License-Identifier: Apache-2.0
"""The door: compose the configuration from the command line, run an action, report errors without a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable

import hydra
from omegaconf import DictConfig

from agent_system.errors import HiPERError
from recipe.hiper.configuration.old_keys import translate_old_keys
from recipe.hiper.configuration.overrides import check_overrides

OPTIONS = """\
Arguments are Hydra overrides, for example:
  {command} run_dir=outputs/mine trainer.total_training_steps=100 env.seed=1
  {command} env=webshop profile=cpu

Options:
  --help        this text
  --cfg job     print the resolved configuration and stop
docs/configuration.md lists the keys.
"""


def run_command(action: Callable[[DictConfig], object], purpose: str) -> None:
    """Compose the configuration from `sys.argv` and call `action` with it. Exits with 1 after an error of ours.

    Args:
        purpose: first paragraph of the help text; it starts with the command (`python -m ...: ...`).
    """
    if {"-h", "--help"} & set(sys.argv[1:]):
        command = purpose.partition(":")[0]
        print(f"{purpose}\n\n{OPTIONS.format(command=command)}", end="")
        return

    @hydra.main(config_path="pkg://recipe.hiper.config", config_name="hiper_trainer", version_base=None)
    def job(config: DictConfig) -> None:
        try:
            action(config)
        except HiPERError as error:
            print(f"\n{error}", file=sys.stderr)
            raise SystemExit(error.exit_code) from None
        except KeyboardInterrupt:
            print(
                "\ninterrupted. The same command continues; games, shops and models that are finished are kept.",
                file=sys.stderr,
            )
            raise SystemExit(130) from None

    sys.argv[1:], notices = translate_old_keys(sys.argv[1:])
    for notice in notices:
        print(notice, file=sys.stderr)
    try:
        check_overrides(sys.argv[1:])
    except HiPERError as error:
        print(f"\n{error}", file=sys.stderr)
        raise SystemExit(1) from None
    job()
