# SPDX-License-Identifier: Apache-2.0
"""The learning curve of a run as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PANELS = (
    ("Success rate", (("rollout/success_rate", "training batch"), ("val/success_rate", "held-out tasks"))),
    ("Episode length (turns)", (("rollout/episode_length", "training batch"), ("val/episode_length", "held-out"))),
    ("Share of turns", (("rollout/switch_rate", "SWITCH"), ("rollout/admissible_share", "admissible action"))),
    (
        "Value loss",
        (("critic/vf_loss_high", "high"), ("critic/vf_loss_low", "low"), ("critic/vf_loss_term", "term"),
         ("critic/vf_loss", "scalar")),
    ),
)  # fmt: skip
"""Title of each panel, and the metrics in it with their labels. Metrics a run does not have are left out."""


def draw_curve(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the panels from the rows of metrics.jsonl and replace the picture at `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(10, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2).flatten()
    for axis, (title, lines) in zip(axes, PANELS, strict=True):
        for metric, label in lines:
            points = [(row["step"], row[metric]) for row in rows if row.get(metric) is not None]
            if points:
                steps, values = zip(*points, strict=True)
                held_out = metric.startswith("val/")
                axis.plot(
                    steps, values, label=label, marker="o" if held_out or len(points) == 1 else None, markersize=4,
                    linewidth=1.8 if held_out else 1.2,
                )  # fmt: skip
        axis.set_title(title, fontsize=11)
        axis.set_xlabel("step", fontsize=9)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=8, frameon=False)
    for axis in (axes[0], axes[2]):
        axis.set_ylim(-0.02, 1.02)
    temporary = path.with_name(path.name + ".part")
    figure.savefig(temporary, dpi=110, format="png")
    temporary.replace(path)
