# SPDX-License-Identifier: Apache-2.0
"""The comparison of the credit lab as text for the terminal, as CSV and as one self-contained HTML page."""

from __future__ import annotations

import base64
import csv
import io
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from recipe.hiper.credit_lab.episodes import Episodes
from recipe.hiper.credit_lab.estimators import Decision, LabConfig, SkippedEstimator, by_reason
from recipe.hiper.credit_lab.figures import LIGHT
from recipe.hiper.credit_lab.statistics import REFERENCE, Comparison, Interval, Row

TEMPLATE = "page.html.jinja"
HEADINGS = ("estimator", "bias [95%]", "sd", "variance ratio", "equal signs", "correlation", "zeros", "pull [95%]")
CAPTIONS = {
    "overview": (
        "What an estimator gives for what",
        "Left: bias, the mean difference between the return that the estimator expects and the one that came. A bar is "
        "a 95% interval over groups of episodes; one that crosses 0 shows no bias. Middle: its variance over that of "
        "the Monte-Carlo advantage; shorter is quieter. Right: the dot is the fraction of turns on which its sign is "
        "the Monte-Carlo advantage's (0.5, dotted, is a coin), the diamond the correlation of the two. Low is no fault "
        "by itself: the reference is mostly noise, and an estimator without that noise agrees with it less.",
    ),
    "pull": (
        "Where the switch advantage moves the policy",
        "The slope of the objective along a common logit of SWITCH, as each estimator sees it: left of 0 the update "
        "makes KEEP likelier, right of 0 SWITCH. The Monte-Carlo row is free of bias; a row whose interval lies wholly "
        "on the other side of 0 than its own pulls the wrong way. Lengths are in each row's own standard deviations. "
        "Near 0 everywhere: the policy has made up its mind, and nothing moves it.",
    ),
    "correlations": (
        "Who agrees with whom",
        "Correlation of the advantages, turn by turn. Rows alike (1) are the same lesson for the policy; a dash is an "
        "advantage that does not vary.",
    ),
    "outcomes": (
        "Who is credited, and when",
        "Mean action advantage of won and lost episodes by turns to the end, the last turn on the right, in standard "
        "deviations of the estimator. Flat lines apart: every turn of an episode is praised or blamed alike. A step at "
        "the end: only the last turns are, and the critic has not yet carried the outcome back.",
    ),
}
"""Heading of each picture, and how it is read."""


@dataclass(frozen=True)
class Report:
    """Everything that is written.

    Attributes:
        episodes, config, comparison, skipped: what was compared, how, and with what result.
        source: where gamma and the lambdas come from.
    """

    episodes: Episodes
    config: LabConfig
    comparison: Comparison
    skipped: list[SkippedEstimator]
    source: str

    def notes(self) -> Iterator[str]:
        """What should be known beside the numbers, a sentence each."""
        episodes, sizes = self.episodes, self.episodes.group_sizes
        valid = episodes.turns.valid
        lengths = valid.sum(dim=1).tolist()
        yield (
            f"{len(lengths)} episodes of {episodes.files} file{'s' * (episodes.files > 1)}, {sum(lengths)} turns "
            f"({mean(lengths):.1f} an episode), {episodes.won.double().mean():.0%} won; groups of "
            f"{_span(sizes)} episode{'s' * (max(sizes) > 1)}."
        )
        config = self.config
        lambdas = f"{config.lam:g} and {config.lam_seg:g} over segments"
        yield f"gamma {config.gamma:g}, hae's lambda {lambdas} ({self.source})."
        if episodes.turns.values is None:
            yield "Baseline of the reference: mean return of the other episodes of the group (of all, if alone)."
        else:
            explained = ", ".join(f"{d.text} {share:.0%}" for d, share in self.comparison.explained.items())
            yield f"The recorded values explain this fraction of the variance of the return-to-go: {explained}."
        if not episodes.is_shaped:
            yield "Rewards are the environment's: shaped ones are not recorded here."
        if self.comparison.recorded:
            yield self.comparison.recorded
        if episodes.cut:
            yield f"The step limit cut {episodes.cut} episodes. What would have come after counts 0."
        alone = sizes.count(1)
        if 0 < alone < len(sizes):
            yield f"{alone} of {len(sizes)} groups are of one episode: grpo and rloo give it 0 throughout."


def _span(sizes: list[int]) -> str:
    return f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"


def text_tables(report: Report) -> str:
    """Markdown, a table for each type of decision, then what was left out."""
    parts = []
    for decision, rows in _by_decision(report.comparison):
        lines = [_heading(decision, rows), ""]
        headings = _headings(decision)
        table = [headings, *(cells(row)[: len(headings)] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for index, line in enumerate(table):
            padded = [cell.ljust(width) if at == 0 else cell.rjust(width) for at, (cell, width) in
                      enumerate(zip(line, widths, strict=True))]  # fmt: skip
            lines.append(f"| {' | '.join(padded)} |")
            if index == 0:
                rules = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
                lines.append(f"| {' | '.join(rules)} |")
        parts.append("\n".join(lines))
    left_out = [f"Left out: {names}. {_sentence(reason)}" for names, reason in by_reason(report.skipped)]
    return "\n\n".join([*parts, "\n".join([*report.notes(), *left_out])])


def csv_text(comparison: Comparison) -> str:
    """All rows and columns; empty where there is no number."""
    lines: list[dict[str, object]] = []
    for row in comparison.rows:
        flat: dict[str, object] = {}
        for name, value in asdict(row).items():
            if name in ("bias", "pull"):
                flat.update(zip((name, f"{name}_low", f"{name}_high"), map(_blank, value), strict=True))
            else:
                flat[name] = value.text if isinstance(value, Decision) else _blank(value)
        lines.append(flat)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()


def html_page(report: Report, light: dict[str, bytes], dark: dict[str, bytes]) -> str:
    """One page without anything outside it.

    Args:
        report: its content.
        light, dark: PNG files by name, a key of `CAPTIONS`.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    figures = [
        {"name": name, "title": title, "caption": caption, "light": _data(light[name]), "dark": _data(dark[name])}
        for name, (title, caption) in CAPTIONS.items()
        if name in light
    ]
    tables = [
        {
            "heading": _heading(decision, rows),
            "columns": _headings(decision),
            "rows": [(row.estimator, cells(row)[: len(_headings(decision))]) for row in rows],
        }
        for decision, rows in _by_decision(report.comparison)
    ]
    return environment.get_template(TEMPLATE).render(
        estimators=list(LIGHT.estimators),
        notes=list(report.notes()),
        skipped=[(names, _sentence(reason)) for names, reason in by_reason(report.skipped)],
        tables=tables,
        figures=figures,
        reference=REFERENCE,
    )


def cells(row: Row) -> list[str]:
    """A row as text, in the order of `HEADINGS`."""
    return [
        row.label,
        _interval(row.bias),
        _number(row.sd),
        _number(row.variance_ratio),
        _share(row.sign_agreement),
        _number(row.correlation),
        _share(row.zero_fraction),
        _interval(row.pull),
    ]


def _by_decision(comparison: Comparison) -> Iterator[tuple[Decision, list[Row]]]:
    for decision in comparison.correlations:
        yield decision, [row for row in comparison.rows if row.decision is decision]


def _headings(decision: Decision) -> list[str]:
    return list(HEADINGS if decision is Decision.SWITCH else HEADINGS[:-1])


def _heading(decision: Decision, rows: list[Row]) -> str:
    return f"{decision.text.capitalize()} decisions: {rows[0].turns} turns"


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    text = f"{value:.3f}"
    return text.lstrip("-") if float(text) == 0.0 else text.replace("-", "−")


def _share(value: float) -> str:
    return f"{value:.0%}" if math.isfinite(value) else "–"


def _interval(interval: Interval) -> str:
    if not math.isfinite(interval.low):
        return _number(interval.value)
    return f"{_number(interval.value)} [{_number(interval.low)}, {_number(interval.high)}]"


def _blank(value: object) -> object:
    return "" if isinstance(value, float) and not math.isfinite(value) else value


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _data(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
