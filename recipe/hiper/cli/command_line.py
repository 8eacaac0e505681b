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


def run_command(action: Callable[[DictConfig], object]) -> None:
    """Compose the configuration from `sys.argv` and call `action` with it. Exits with 1 after an error of ours."""

    @hydra.main(config_path="pkg://recipe.hiper.config", config_name="hiper_trainer", version_base=None)
    def job(config: DictConfig) -> None:
        try:
            action(config)
        except HiPERError as error:
            print(f"\n{error}", file=sys.stderr)
            raise SystemExit(1) from None

    sys.argv[1:], notices = translate_old_keys(sys.argv[1:])
    for notice in notices:
        print(notice, file=sys.stderr)
    try:
        check_overrides(sys.argv[1:])
    except HiPERError as error:
        print(f"\n{error}", file=sys.stderr)
        raise SystemExit(1) from None
    job()
