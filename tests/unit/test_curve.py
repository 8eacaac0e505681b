# SPDX-License-Identifier: Apache-2.0
"""The picture of a run: which panels it has, and where alarms are marked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recipe.hiper.run_dir.metric_names import current_name, with_current_names
from recipe.hiper.run_dir.plots import PANELS, draw_curve

FLAT_PANELS, ALL_PANELS = 4, sum(not panel.only_if_scored for panel in PANELS)
DPI = 110
BINS = ("1", "2", "3-4", "5-8", "9+")


def flat_row(step: int) -> dict:
    return {
        "step": step,
        "rollout/success_rate": 0.02 * step,
        "rollout/episode_length": 20.0 - step / 2,
        "rollout/admissible_fraction": 0.8,
        "critic/vf_loss": 1.0 / step,
    }


def row(step: int, switch_rate: float | None = 0.3) -> dict:
    """What a step of a run with HAE logs."""
    rate = switch_rate or 0.0
    bins = dict(zip(BINS, (rate, *[(1 - rate) / 4] * 4), strict=True))
    return flat_row(step) | {
        "rollout/switch_rate": switch_rate,
        "rollout/keep_copied_fraction": 0.9,
        "hierarchy/segment_length": 1 / (rate + 0.05),
        "hierarchy/novel_subgoal_fraction": 0.9,
        "hierarchy/reused_subgoal_fraction": 0.6,
        **{f"hierarchy/segment_length_fraction/{name}": share for name, share in bins.items()},
        **{f"critic/explained_variance_{head}": 0.5 for head in ("high", "low", "term")},
        **{f"advantage/{decision}/abs_mean": 1.0 for decision in ("switch", "subgoal", "action")},
    }


def drawn(rows: list[dict], folder: Path) -> np.ndarray:
    draw_curve(rows, folder / "curve.png")
    with Image.open(folder / "curve.png") as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def number_of_rows(pixels: np.ndarray) -> int:
    return round(pixels.shape[0] / (3.2 * DPI))


def coloured(pixels: np.ndarray, red: int, green: int, blue: int) -> int:
    return int((np.abs(pixels - (red, green, blue)).max(axis=-1) <= 2).sum())


def red_ground(pixels: np.ndarray) -> int:
    return coloured(pixels, 249, 223, 223)  # tab:red at 15% on white


def purple_ground(pixels: np.ndarray) -> int:
    return coloured(pixels, 239, 232, 245)  # the same for tab:purple


def test_a_flat_run_has_no_panels_of_the_hierarchy(tmp_path):
    pixels = drawn([flat_row(step) for step in range(1, 9)], tmp_path)
    assert number_of_rows(pixels) == FLAT_PANELS / 2
    assert red_ground(pixels) == purple_ground(pixels) == 0


def test_a_hierarchical_run_shows_all_of_it(tmp_path):
    pixels = drawn([row(step) for step in range(1, 9)], tmp_path)
    assert number_of_rows(pixels) == ALL_PANELS / 2
    assert red_ground(pixels) == purple_ground(pixels) == 0


@pytest.mark.parametrize(("rate", "ground"), [(1.0, red_ground), (0.0, purple_ground)])
def test_the_steps_of_an_alarm_are_shaded(tmp_path, rate, ground):
    healthy, lost = [row(step) for step in range(1, 5)], [row(step, rate) for step in range(5, 9)]
    pixels = drawn(healthy + lost, tmp_path)
    panel = pixels.size // 3 // ALL_PANELS
    # Half of the steps of one panel, less its margins, lines and labels.
    assert 0.2 * panel < ground(pixels) < 0.5 * panel
    # An alarm that is over stays in the picture.
    assert ground(drawn(healthy + lost + [row(step) for step in range(9, 14)], tmp_path)) > 0.1 * panel
    assert ground(drawn(healthy + lost[:2], tmp_path)) == 0


def test_the_histogram_is_stacked(tmp_path):
    """As much of the darkest blue, the shortest segments, as there are such segments."""
    few, many = (
        coloured(drawn([row(step, rate) for step in range(1, 9)], tmp_path), 59, 139, 194) for rate in (0.25, 0.75)
    )
    assert few > 0 and 2.5 < many / few < 3.5


def test_an_evaluation_before_the_first_step_is_a_picture(tmp_path):
    pixels = drawn([{"step": 0, "val/success_rate": 0.3, "val/episode_length": 15.0}], tmp_path)
    assert number_of_rows(pixels) == 1
    pixels = drawn([{"step": 0, "val/success_rate": 0.3}, row(1)], tmp_path)
    assert number_of_rows(pixels) == ALL_PANELS / 2


def test_values_that_are_missing_leave_a_gap(tmp_path):
    rows = [row(step) for step in range(1, 6)]
    rows[2] = {"step": 3} | {name: None for name in rows[2] if name != "step"}
    assert number_of_rows(drawn(rows, tmp_path)) == ALL_PANELS / 2


def test_without_any_metric_there_is_no_picture(tmp_path):
    draw_curve([{"step": 1, "timing_s/gen": 2.0}], tmp_path / "curve.png")
    assert list(tmp_path.iterdir()) == []


def test_scores_are_drawn_where_tasks_can_be_done_in_part(tmp_path):
    def rows(score: float) -> list[dict]:
        return [row(step) | {"rollout/score": score, "rollout/success_rate": 0.5} for step in range(1, 5)]

    assert number_of_rows(drawn(rows(0.5), tmp_path)) == ALL_PANELS / 2
    assert number_of_rows(drawn(rows(0.7), tmp_path)) == ALL_PANELS / 2 + 1


def test_a_file_of_an_earlier_version_gives_the_same_picture(tmp_path):
    """Fractions were once called shares, and a resumed run has rows of both versions."""
    rows = [row(step) for step in (1, 2, 3)]
    earlier = [{name.replace("_fraction", "_share"): value for name, value in of_step.items()} for of_step in rows]
    assert earlier[0]["hierarchy/segment_length_share/3-4"] == rows[0]["hierarchy/segment_length_fraction/3-4"]
    expected = drawn(rows, tmp_path)
    for read in (earlier, [earlier[0], *rows[1:]]):
        assert np.array_equal(drawn(read, tmp_path), expected)


def test_names_that_never_were_shares_stay():
    names = ("step", "rollout/success_rate/my_share", "actor/some_share", "rollout/admissible_fraction")
    assert [*with_current_names(dict.fromkeys(names))] == [*names]
    assert current_name("val/keep_copied_share") == "val/keep_copied_fraction"
