# SPDX-License-Identifier: Apache-2.0
"""The pictures of the credit lab, each in a light and a dark version."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recipe.hiper.credit_lab.estimators import Decision
from recipe.hiper.credit_lab.statistics import REFERENCE, Comparison, Interval, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 4
"""Panels side by side in the picture of outcomes."""


@dataclass(frozen=True)
class Theme:
    """Colours of a picture; `estimators` by name, `weak` for lines that only orient."""

    name: str
    page: str
    text: str
    weak: str
    estimators: dict[str, str]
    won: str
    lost: str
    diverging: str

    def color(self, estimator: str) -> str:
        """The colour of an estimator's row; that of the text for a row without a colour."""
        return self.estimators.get(estimator, self.text)

    def settings(self) -> dict[str, object]:
        """matplotlib's rc."""
        ink = {f"{what}.color": self.text for what in ("text", "xtick", "ytick")}
        frame = {"axes.edgecolor": self.weak, "grid.color": self.weak, "axes.facecolor": self.page}
        return {**ink, **frame, "axes.labelcolor": self.text, "figure.facecolor": self.page, "font.size": 9}


LIGHT = Theme(
    name="light", page="#ffffff", text="#1c1c21", weak="#8a8b94", won="#0b6638", lost="#a3202a", diverging="RdBu_r",
    estimators={
        "reference": "#55565f", "hae": "#0b57a4", "turn_gae": "#0a7d5c", "gae": "#b35900", "grpo": "#7b3fa0",
        "rloo": "#a0307a", "gigpo": "#5548c8",
    },
)  # fmt: skip
DARK = Theme(
    name="dark", page="#17181c", text="#ececf0", weak="#7b7e8a", won="#7fd6a4", lost="#ff9e9e", diverging="berlin",
    estimators={
        "reference": "#b4b6c1", "hae": "#8ab8ff", "turn_gae": "#6fd3b0", "gae": "#ffb066", "grpo": "#d0a3f0",
        "rloo": "#f09acb", "gigpo": "#aaa2ff",
    },
)  # fmt: skip


def draw(comparison: Comparison, theme: Theme) -> dict[str, bytes]:
    """All pictures as PNG, by name. `pull` only where there is a policy that switches."""
    from matplotlib import rc_context

    pictures: dict[str, Callable[[Comparison, Theme], Figure]] = {
        "overview": _overview,
        "pull": _pull,
        "correlations": _correlations,
        "outcomes": _outcomes,
    }
    if not any(math.isfinite(row.pull.value) for row in comparison.rows):
        del pictures["pull"]
    with rc_context(theme.settings()):
        return {name: _png(picture(comparison, theme)) for name, picture in pictures.items()}


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # Without the version of matplotlib in it, the same episodes give the same bytes.
    figure.savefig(buffer, dpi=110, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _of(comparison: Comparison, decision: Decision) -> list[Row]:
    return [row for row in comparison.rows if row.decision is decision]


def _name_rows(axes: Axes, rows: list[Row], theme: Theme) -> None:
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_color(theme.color(row.estimator))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.3)
    axes.tick_params(axis="y", length=0)


def _whisker(axes: Axes, at: int, interval: Interval, color: str) -> None:
    if math.isfinite(interval.low):
        axes.plot([interval.low, interval.high], [at, at], color=color, linewidth=1.6, solid_capstyle="butt")
    axes.plot([interval.value], [at], color=color, marker="o", markersize=5, linestyle="")


def _overview(comparison: Comparison, theme: Theme) -> Figure:
    """A row of panels for each type of decision: bias, variance, agreement with the reference."""
    decisions = list(comparison.correlations)
    lines = max(len(_of(comparison, decision)) for decision in decisions) - 1
    figure = _figure(10.5, len(decisions) * (0.21 * lines + 0.85))
    panels = figure.subplots(len(decisions), 3, squeeze=False, sharex="col")
    for place, decision in enumerate(decisions):
        rows = [row for row in _of(comparison, decision) if row.label != REFERENCE]
        bias, variance, agreement = panels[place]
        _name_rows(bias, rows, theme)
        for axes in (variance, agreement):
            _name_rows(axes, rows, theme)
            axes.set_yticklabels([])
        bias.set_title(f"{decision.text} decisions ({rows[0].turns} turns)", loc="left", fontsize=10, fontweight="bold")
        for at, row in enumerate(rows):
            color = theme.color(row.estimator)
            if math.isfinite(row.bias.value):
                _whisker(bias, at, row.bias, color)
                if math.isfinite(row.variance_ratio):
                    variance.barh(at, row.variance_ratio, color=color, height=0.6)
            else:
                for axes in (bias, variance):
                    axes.text(
                        0.98, at, "no unit of reward", transform=axes.get_yaxis_transform(), ha="right", va="center",
                        fontsize=7, color=theme.weak,
                    )  # fmt: skip
            agreement.plot(row.sign_agreement, at, color=color, marker="o", markersize=5, linestyle="")
            agreement.plot(row.correlation, at, color=color, marker="D", markersize=5, linestyle="", fillstyle="none")
        bias.axvline(0.0, color=theme.text, linewidth=0.8)
        variance.axvline(1.0, color=theme.text, linewidth=0.8)
        agreement.axvline(0.5, color=theme.weak, linewidth=0.8, linestyle=":")
    for axes, text in zip(
        panels[-1],
        ("bias, in reward (bar: 95%)", "variance / Monte Carlo's", "● fraction of equal signs   ◇ correlation"),
        strict=True,
    ):
        axes.set_xlabel(text)
    panels[-1][1].set_xlim(left=0.0)
    panels[-1][2].set_xlim(right=1.05)
    return figure


def _pull(comparison: Comparison, theme: Theme) -> Figure:
    """Where the switch advantage moves the probability of SWITCH."""
    rows = [row for row in _of(comparison, Decision.SWITCH) if math.isfinite(row.pull.value)]
    figure = _figure(7.5, 0.23 * len(rows) + 0.9)
    axes = figure.subplots()
    _name_rows(axes, rows, theme)
    for at, row in enumerate(rows):
        _whisker(axes, at, row.pull, theme.color(row.estimator))
    axes.axvline(0.0, color=theme.text, linewidth=0.8)
    axes.set_xlabel("← KEEP      pull, in standard deviations of the advantage      SWITCH →")
    return figure


def _correlations(comparison: Comparison, theme: Theme) -> Figure:
    """Correlation of the estimators with each other: a matrix for each type of decision."""
    from matplotlib.colors import to_rgb

    size = len(next(iter(comparison.correlations.values())))
    side = 0.34 * size
    figure = _figure(side * len(comparison.correlations) + 1.7, side + 1.8)
    panels = figure.subplots(1, len(comparison.correlations), squeeze=False)[0]
    for axes, (decision, matrix) in zip(panels, comparison.correlations.items(), strict=True):
        rows = _of(comparison, decision)
        image = axes.imshow(matrix, vmin=-1.0, vmax=1.0, cmap=theme.diverging, aspect="auto")
        axes.set_title(decision.text, fontsize=10, fontweight="bold")
        axes.set_xticks(range(size), [row.label for row in rows], rotation=90)
        axes.set_yticks(range(size), [row.label for row in rows] if axes is panels[0] else [])
        for ticks in (axes.get_xticklabels(), axes.get_yticklabels() if axes is panels[0] else []):
            for label, row in zip(ticks, rows, strict=False):
                label.set_color(theme.color(row.estimator))
        axes.tick_params(length=0)
        for (down, across), value in np.ndenumerate(matrix):
            behind = theme.page if math.isnan(value) else to_rgb(image.cmap(image.norm(value)))
            axes.text(across, down, _short(value), ha="center", va="center", fontsize=7, color=_ink(behind))
    return figure


def _short(correlation: float) -> str:
    """In as few characters as a cell has room for."""
    if math.isnan(correlation):
        return "–"
    rounded = round(correlation, 2)
    if abs(rounded) in (0.0, 1.0):
        return str(int(rounded))
    return f"{rounded:.2f}".replace("0.", ".").replace("-", "−")


def _ink(behind: str | tuple[float, float, float]) -> str:
    """Black or white, the one that can be read on the colour."""
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(behind)
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "#ffffff"


def _outcomes(comparison: Comparison, theme: Theme) -> Figure:
    """Mean action advantage of won and lost episodes by turns to the end, a panel for each estimator."""
    from matplotlib.ticker import MaxNLocator

    lines = -(-len(comparison.curves) // COLUMNS)
    figure = _figure(10.5, 1.75 * lines + 0.5)
    panels = figure.subplots(lines, COLUMNS, squeeze=False, sharex=True, sharey=True).flatten()
    for axes, curve in zip(panels, comparison.curves, strict=False):
        for points, label, color in ((curve.won, "won", theme.won), (curve.lost, "lost", theme.lost)):
            if points:
                left, means = zip(*points, strict=True)
                axes.plot(left, means, color=color, label=label, linewidth=1.5, marker="o", markersize=2.5)
        axes.set_title(curve.label, fontsize=9, color=theme.color(curve.estimator))
        axes.axhline(0.0, color=theme.weak, linewidth=0.8)
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in panels[len(comparison.curves) :]:
        axes.set_visible(False)
    for axes in panels[max(0, len(comparison.curves) - COLUMNS) : len(comparison.curves)]:
        axes.tick_params(labelbottom=True)
    # The last turn on the right, as one reads.
    panels[0].invert_xaxis()
    handles, labels = [], []
    for axes in panels[: len(comparison.curves)]:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            if label not in labels:
                handles.append(handle)
                labels.append(label)
    if labels:
        figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False)
    figure.supxlabel("turns to the end", fontsize=9)
    figure.supylabel("mean advantage, in standard deviations", fontsize=9)
    return figure
