# SPDX-License-Identifier: Apache-2.0
"""Every estimator on the same recorded episodes: bias, variance, agreement, by type of decision.

    python -m recipe.hiper.credit_lab outputs/hiper/alfworld-hae/episodes/train_00002*.jsonl
    python -m recipe.hiper.credit_lab episodes.jsonl --estimators hae turn_gae --turn-lam 0.5 1 --out lab

Nothing is played and nothing is trained; CPU, seconds. Written to --out: credit_lab.html (all of it on one page),
credit_lab.csv, and the pictures. docs/credit_lab.md explains how to read them.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from agent_system.errors import ConfigError, HiPERError
from recipe.hiper.credit_lab.episodes import read_episodes
from recipe.hiper.credit_lab.estimators import LabConfig, run_estimators
from recipe.hiper.credit_lab.figures import DARK, LIGHT, draw
from recipe.hiper.credit_lab.page import Report, csv_text, html_page, text_tables
from recipe.hiper.credit_lab.statistics import compare_variants
from recipe.hiper.estimators.registry import ESTIMATORS

KEYS = {"gamma": "algorithm.gamma", "lam": "algorithm.lam", "lam_seg": "algorithm.hae.lam_seg"}
"""Options whose default is what the run had, and the keys of its configuration."""


def main(arguments: list[str] | None = None) -> None:
    """Command line. Our own errors end with status 2 and without a traceback."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        print(compare(options))
    except HiPERError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


def compare(options: argparse.Namespace) -> str:
    """Read, estimate, compare and write. Returns what is printed.

    Raises:
        ConfigError: an option, a file or the folder is not usable.
    """
    config, source = _config(options)
    _check_folder(options.out)
    episodes = read_episodes(options.episodes)
    variants, skipped = run_estimators(episodes, config)
    report = Report(episodes, config, compare_variants(episodes, variants, config.gamma), skipped, source)
    light, dark = draw(report.comparison, LIGHT), draw(report.comparison, DARK)
    page, html = options.out / "credit_lab.html", html_page(report, light, dark)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        page.write_text(html, encoding="utf-8")
        (options.out / "credit_lab.csv").write_text(csv_text(report.comparison), encoding="utf-8")
        for name, png in light.items():
            (options.out / f"{name}.png").write_bytes(png)
    except OSError as error:
        raise _not_writable(options.out, error) from None
    return f"{text_tables(report)}\n\n{page}"


def run_settings(paths: Sequence[Path]) -> tuple[dict[str, float], Path | None]:
    """Gamma and lambdas of the run that the files belong to, and its configuration; nothing for loose files.

    Raises:
        ConfigError: the configuration cannot be read, or the files come from runs that differ in it.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    remedy = "Try: --gamma 1 --lam 1 --lam-seg 0.95, with the values to use instead"
    settings_of: dict[Path, dict[str, float]] = {}
    for path in dict.fromkeys(path.resolve().parent.parent / "config.yaml" for path in paths):
        if not path.is_file():
            continue
        try:
            config = OmegaConf.load(path)
            settings_of[path] = {name: float(OmegaConf.select(config, key)) for name, key in KEYS.items()}
        except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"{path} has no usable {', '.join(KEYS.values())}: {reason}. {remedy}") from None
    for path, settings in settings_of.items():
        first = next(iter(settings_of))
        for name, value in settings.items():
            if value != settings_of[first][name]:
                raise ConfigError(
                    f"{KEYS[name]} is {settings_of[first][name]:g} in {first} and {value:g} in {path}. {remedy}"
                )
    return next(iter(settings_of.values()), {}), next(iter(settings_of), None)


def _config(options: argparse.Namespace) -> tuple[LabConfig, str]:
    """The comparison that the options describe, and where its gamma and lambdas come from."""
    chosen = {name: getattr(options, name) for name in KEYS if getattr(options, name) is not None}
    of_run, path = run_settings(options.episodes) if len(chosen) < len(KEYS) else ({}, None)
    settings = {**of_run, **chosen}
    lam = settings.get("lam", LabConfig.lam)
    config = LabConfig(
        estimators=tuple(dict.fromkeys(options.estimators)),
        # hae's own lambda is one of turn_gae's, so that the two are compared on equal terms
        turn_lams=tuple(options.turn_lam or sorted({*LabConfig.turn_lams, lam})),
        **settings,
    )
    if path is None:
        default = "the trainer's defaults: no run's config.yaml beside these files"
        return config, "from the command line" if chosen else default
    # Names only: the page may be read on another machine.
    return config, f"as in {path.parent.name}/{path.name}" + (", except for the options set" if chosen else "")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recipe.hiper.credit_lab",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("episodes", type=Path, nargs="+", help="files of a run, <run_dir>/episodes/train_*.jsonl")
    parser.add_argument("--out", type=Path, default=Path("outputs/credit_lab"), help="folder (default: %(default)s)")
    parser.add_argument(
        "--estimators", nargs="+", default=ESTIMATORS, metavar="NAME",
        help=f"{', '.join(ESTIMATORS)} (default: all), or module:NAME for one of your own",
    )  # fmt: skip
    parser.add_argument("--gamma", type=float, help="discount per turn (default: the run's, else 1)")
    parser.add_argument("--lam", type=float, help="hae's lambda over turns (default: the run's, else 1)")
    parser.add_argument("--lam-seg", type=float, help="hae's lambda over segments (default: the run's, else 0.95)")
    parser.add_argument(
        "--turn-lam", type=float, nargs="+", metavar="LAMBDA",
        help="turn_gae's, a row for each (default: 0, 0.95, 1 and hae's)",
    )  # fmt: skip
    return parser


def _check_folder(folder: Path) -> None:
    """Report a folder that cannot be written to before the work is done. Creates nothing."""
    existing = folder.absolute()
    while not os.path.lexists(existing):
        existing = existing.parent
    if not existing.is_dir():
        raise _not_writable(folder, NotADirectoryError(f"{existing} is not a folder"))
    if not os.access(existing, os.W_OK | os.X_OK):
        raise _not_writable(folder, PermissionError(f"no permission to write to {existing}"))


def _not_writable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(f"--out {folder} cannot be written to ({error}). Try: --out <another folder>")
