# SPDX-License-Identifier: Apache-2.0
"""The learning curve of a run as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.hiper.run_dir.hierarchy_monitor import Degeneration, hierarchy_alarms
from recipe.hiper.run_dir.metric_names import with_current_names

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Panel:
    """One panel of the picture.

    Attributes:
        title: the text above it.
        lines: the metrics in it with their labels.
        is_fraction: the metrics are fractions: the axis runs from 0 to 1.
        histogram: prefix of the metrics of a histogram that is stacked behind the lines; they then get an axis of
            their own on the right.
        only_if_scored: leave it out where tasks are won or lost and nothing between: it would show success again.
        shows_alarm: shade the steps of an alarm about the hierarchy (`recipe.hiper.run_dir.hierarchy_monitor`).
    """

    title: str
    lines: tuple[tuple[str, str], ...]
    is_fraction: bool = False
    histogram: str = ""
    only_if_scored: bool = False
    shows_alarm: bool = False


PANELS = (
    Panel(
        "Success rate",
        (("rollout/success_rate", "training batch"), ("val/success_rate", "held-out tasks")),
        is_fraction=True,
    ),
    Panel(
        "Task score",
        (("rollout/score", "training batch"), ("val/score", "held-out tasks")),
        is_fraction=True,
        only_if_scored=True,
    ),
    Panel(
        "Episode length (turns)",
        (("rollout/episode_length", "training batch"), ("val/episode_length", "held-out tasks")),
    ),
    Panel(
        "Fraction of turns",
        (("rollout/admissible_fraction", "admissible action"), ("rollout/keep_copied_fraction", "KEEP copies exactly")),
        is_fraction=True,
    ),
    Panel(
        "Value loss",
        (
            ("critic/vf_loss_high", "high"),
            ("critic/vf_loss_low", "low"),
            ("critic/vf_loss_term", "term"),
            ("critic/vf_loss", "scalar"),
        ),
    ),
    Panel(
        "SWITCH and its sub-goals",
        (
            ("rollout/switch_rate", "turns that SWITCH"),
            ("hierarchy/novel_subgoal_fraction", "new to the episode"),
            ("hierarchy/reused_subgoal_fraction", "also in another task"),
        ),
        is_fraction=True,
        shows_alarm=True,
    ),
    Panel(
        "Segments by length (turns)",
        (("hierarchy/segment_length", "mean length (right)"),),
        is_fraction=True,
        histogram="hierarchy/segment_length_fraction/",
        shows_alarm=True,
    ),
    Panel(
        "Explained variance",
        (
            ("critic/explained_variance_high", "high"),
            ("critic/explained_variance_low", "low"),
            ("critic/explained_variance_term", "term"),
        ),
    ),
    Panel(
        "Mean |advantage|",
        (
            ("advantage/switch/abs_mean", "switch"),
            ("advantage/subgoal/abs_mean", "sub-goal"),
            ("advantage/action/abs_mean", "action"),
            ("advantage/turn/abs_mean", "turn"),
        ),
    ),
)
"""Metrics a run does not have are left out, and panels without any."""

ALARM_COLOURS = {Degeneration.ALWAYS_SWITCH: "tab:red", Degeneration.NEVER_SWITCH: "tab:purple"}


def _has_scores(rows: Rows) -> bool:
    """Whether a task can be done in part: some mean score is not the success rate."""
    return any(
        row.get(f"{where}/score") is not None and row[f"{where}/score"] != row.get(f"{where}/success_rate")
        for row in rows
        for where in ("rollout", "val")
    )


def draw_curve(rows: Rows, path: Path) -> None:
    """Draw the panels from the rows of metrics.jsonl and replace the picture at `path`.

    The axes of all panels span the steps of `rows`. Where there is nothing to draw yet, nothing is written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [with_current_names(row) for row in rows]
    panels = [panel for panel in PANELS if any(_points(rows, metric) for metric, _ in panel.lines)]
    panels = [panel for panel in panels if not panel.only_if_scored or _has_scores(rows)]
    if not panels:
        return
    grid_rows = (len(panels) + 1) // 2
    figure = Figure(figsize=(10, 3.2 * grid_rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(grid_rows, 2, squeeze=False).flatten()
    for axis, panel in zip(axes, panels, strict=False):
        _draw_panel(axis, panel, rows)
    for axis in axes[len(panels) :]:
        axis.remove()
    temporary = path.with_name(path.name + ".part")
    figure.savefig(temporary, dpi=110, format="png")
    temporary.replace(path)


def _points(rows: Rows, metric: str) -> list[tuple[int, float]]:
    return [(row["step"], row[metric]) for row in rows if row.get(metric) is not None]


def _draw_panel(axis, panel: Panel, rows: Rows) -> None:
    from matplotlib.ticker import MaxNLocator

    lines_axis = axis
    if panel.histogram:
        _draw_histogram(axis, panel.histogram, rows)
        lines_axis = axis.twinx()
        lines_axis.set_ylim(0, 1.1 * max(value for metric, _ in panel.lines for _, value in _points(rows, metric)))
    for metric, label in panel.lines:
        if points := _points(rows, metric):
            steps, values = zip(*points, strict=True)
            held_out = metric.startswith("val/")
            lines_axis.plot(
                steps,
                values,
                label=label,
                color="black" if panel.histogram else None,
                marker="o" if held_out or len(points) == 1 else None,
                markersize=4,
                linewidth=1.8 if held_out else 1.2,
            )
    if panel.shows_alarm:
        _draw_alarms(axis, rows, hatched=bool(panel.histogram))
    axis.set_title(panel.title, fontsize=11)
    axis.set_xlabel("step", fontsize=9)
    axis.set_xlim(rows[0]["step"] - 0.5, rows[-1]["step"] + 0.5)  # the same for all panels
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)
    if panel.is_fraction:
        axis.set_ylim(-0.02, 1.02)
    handles, labels = axis.get_legend_handles_labels()
    if panel.histogram:  # a filled panel has no free corner
        more_handles, more_labels = lines_axis.get_legend_handles_labels()
        handles, labels = handles + more_handles, labels + more_labels
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncols": len(labels)}
        axis.legend(handles, labels, fontsize=8, frameon=False, columnspacing=0.9, handlelength=1.2, **below)
    else:
        axis.legend(handles, labels, fontsize=8, frameon=False)


def _draw_alarms(axis, rows: Rows, *, hatched: bool) -> None:
    """Shade the steps of each alarm; hatched where the ground is coloured already, and then without a label."""
    named = set()
    for alarm in hierarchy_alarms(rows):
        colour = ALARM_COLOURS[alarm.kind]
        place = alarm.since - 0.5, alarm.until + 0.5
        if hatched:
            axis.axvspan(*place, facecolor="none", edgecolor=colour, hatch="//", alpha=0.6)
        else:
            label = None if alarm.kind in named else f"alarm: {alarm.kind.value}"
            axis.axvspan(*place, facecolor=colour, alpha=0.15, label=label)
        named.add(alarm.kind)


def _draw_histogram(axis, prefix: str, rows: Rows) -> None:
    """Stack the bins over the steps that have them, short segments at the bottom."""
    from matplotlib import colormaps

    rows = [row for row in rows if any(name.startswith(prefix) for name in row)]
    bins = list(dict.fromkeys(name for row in rows for name in row if name.startswith(prefix)))
    edges = [row["step"] - 0.5 for row in rows] + [row["step"] + 0.5 for row in rows[-1:]]
    bottom = [0.0] * len(rows)
    for index, name in enumerate(bins):
        top = [low + (row.get(name) or 0.0) for low, row in zip(bottom, rows, strict=True)]
        colour = colormaps["Blues"](0.65 - 0.55 * index / len(bins))
        axis.stairs(top, edges, baseline=bottom, fill=True, color=colour, label=name.removeprefix(prefix))
        bottom = top
