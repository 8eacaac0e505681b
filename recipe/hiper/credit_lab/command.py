# SPDX-License-Identifier: Apache-2.0
"""Every estimator on the same recorded episodes: bias, variance, agreement, by type of decision.

    python -m recipe.hiper.credit_lab outputs/hiper/alfworld-hae/episodes/train_00002*.jsonl
    python -m recipe.hiper.credit_lab episodes.jsonl --estimators hae turn_gae --turn-lam 0.5 1 --out lab

Nothing is played and nothing is trained; CPU, seconds. Written to --out: credit_lab.html (all of it on one page),
credit_lab.csv, and the pictures. docs/credit_lab.md says how to read them.
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
from recipe.hiper.credit_lab.statistics import findings
from recipe.hiper.estimators.registry import ESTIMATORS

KEYS = {"gamma": "algorithm.gamma", "lam": "algorithm.lam", "lam_seg": "algorithm.hae.lam_seg"}
"""Options whose default is what the run had, and the keys of its configuration."""


def main(arguments: list[str] | None = None) -> None:
    """Command line. Our own errors end with status 2 and without a traceback."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        print(compare(given))
    except HiPERError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


def compare(given: argparse.Namespace) -> str:
    """Read, estimate, compare and write; what is printed.

    Raises:
        ConfigError: an option, a file or the folder is not usable; the message says what fixes it.
    """
    config, source = _config(given)
    _make_folder(given.out)
    episodes = read_episodes(given.episodes)
    compared, left_out = run_estimators(episodes, config)
    report = Report(episodes, config, findings(episodes, compared, config.gamma), left_out, source)
    light, dark = draw(report.findings, LIGHT), draw(report.findings, DARK)
    page = given.out / "credit_lab.html"
    try:
        page.write_text(html_page(report, light, dark), encoding="utf-8")
        (given.out / "credit_lab.csv").write_text(csv_text(report.findings), encoding="utf-8")
        for name, png in light.items():
            (given.out / f"{name}.png").write_bytes(png)
    except OSError as error:
        raise _not_writable(given.out, error) from None
    return f"{text_tables(report)}\n\n{page}"


def run_settings(paths: Sequence[Path]) -> tuple[dict[str, float], Path | None]:
    """Gamma and lambdas of the run that the files belong to, and its configuration; nothing for loose files.

    Raises:
        ConfigError: the configuration cannot be read, or the files come from runs that differ in it.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    mend = "Say what you want with --gamma, --lam and --lam-seg"
    found: dict[Path, dict[str, float]] = {}
    for path in dict.fromkeys(path.resolve().parent.parent / "config.yaml" for path in paths):
        if not path.is_file():
            continue
        try:
            config = OmegaConf.load(path)
            found[path] = {name: float(OmegaConf.select(config, key)) for name, key in KEYS.items()}
        except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"{path} has no usable {', '.join(KEYS.values())}: {reason}. {mend}") from None
    for path, settings in found.items():
        first = next(iter(found))
        for name, value in settings.items():
            if value != found[first][name]:
                raise ConfigError(f"{KEYS[name]} is {found[first][name]:g} in {first} and {value:g} in {path}. {mend}")
    return next(iter(found.values()), {}), next(iter(found), None)


def _config(given: argparse.Namespace) -> tuple[LabConfig, str]:
    """The comparison that was asked for, and where its gamma and lambdas come from."""
    asked = {name: getattr(given, name) for name in KEYS if getattr(given, name) is not None}
    of_run, path = run_settings(given.episodes) if len(asked) < len(KEYS) else ({}, None)
    settings = {**of_run, **asked}
    lam = settings.get("lam", LabConfig.lam)
    config = LabConfig(
        estimators=tuple(dict.fromkeys(given.estimators)),
        # hae's own lambda is one of turn_gae's, so that the two are seen on equal terms
        turn_lams=tuple(given.turn_lam or sorted({*LabConfig.turn_lams, lam})),
        **settings,
    )
    if path is None:
        return config, "as asked for" if asked else "the trainer's defaults: no run's config.yaml beside these files"
    return config, f"as in {path}" + ("; but for what was asked for" if asked else "")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recipe.hiper.credit_lab",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("episodes", type=Path, nargs="+", help="files of a run, <run_dir>/episodes/train_*.jsonl")
    parser.add_argument("--out", type=Path, default=Path("outputs/credit_lab"), help="folder (default: %(default)s)")
    parser.add_argument("--estimators", nargs="+", default=ESTIMATORS, metavar="NAME", help=", ".join(ESTIMATORS))
    parser.add_argument("--gamma", type=float, help="discount per turn (default: the run's, else 1)")
    parser.add_argument("--lam", type=float, help="hae's lambda over turns (default: the run's, else 1)")
    parser.add_argument("--lam-seg", type=float, help="hae's lambda over segments (default: the run's, else 0.95)")
    parser.add_argument(
        "--turn-lam", type=float, nargs="+", metavar="LAMBDA",
        help="turn_gae's, a row for each (default: 0, 0.95, 1 and hae's)",
    )  # fmt: skip
    return parser


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(folder, error) from None
    if not os.access(folder, os.W_OK):
        raise _not_writable(folder, PermissionError("permission denied"))


def _not_writable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(f"--out {folder} cannot be written to ({error}). Choose another folder: --out FOLDER")
