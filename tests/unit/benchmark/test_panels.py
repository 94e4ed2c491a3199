"""The panels of the picture of augmented data: which there are, and whether they show the report's numbers."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark.checks import sample_dataset
from benchmark.pictures.panels import panels
from benchmark.quality.report import Curve, Measurement, PairedHistogram
from tasks.datasets.offline import OfflineDataset

DATA = sample_dataset("continuous").without_privileged()
HISTOGRAM = PairedHistogram(edges=[0.0, 1.0, 2.0], original=[1, 3], synthetic=[5, 0])
FIRE = Measurement(value=0.75, original=0.5, details={"all_on_one": 0.25, "original_all_on_one": None})
EVERYTHING: dict[str, Any] = {
    "histograms": dict.fromkeys(
        ("episode_return", "step_reward", "oracle_reward", "return_to_go", "dynamics_error"), HISTOGRAM
    ),
    "curves": {"attention_by_inverse_distance": Curve(x=[0.5, 1.0, 4.0], y=[0.1, 0.2, 0.4])},
    "metrics": {
        "reward_distance": Measurement(value=0.125),
        "covered_share": Measurement(value=0.9),
        "inside_share": Measurement(value=0.8),
        "attention_correlation": Measurement(value=-0.5),
        "focus_fire": FIRE,
    },
}
TITLES = [
    "Return of an episode",
    "Reward of a step",
    "Reward of a step, in truth",
    "Value: discounted return-to-go",
    "Error against the real engine",
    "Observations and actions",
    "Attention to another agent",
    "Focus fire",
    "Windows accepted, by position",
]


def drawn(
    report: Mapping[str, Any], data: OfflineDataset = DATA, acceptance: list[float | None] | None = None
) -> dict[str, Axes]:
    """The panels by their titles."""
    augmented: Any = SimpleNamespace(
        quality=SimpleNamespace(**{"seed": 0, "histograms": {}, "curves": {}, "metrics": {}, **report}),
        original=data,
        synthetic=data,
        task=SimpleNamespace(spec=data.spec),
        diagnosis={"generation": {"acceptance_by_position": acceptance}} if acceptance else {},
    )
    shown = {}
    for panel in panels(augmented):
        ax = Figure().add_subplot()
        panel(ax)
        shown[ax.get_title(loc="left") or ax.get_title()] = ax
    return shown


def test_every_panel_there_is() -> None:
    assert list(drawn(EVERYTHING, acceptance=[1.0, None, 0.5])) == TITLES


def test_a_report_from_before_these_numbers_shows_what_the_data_show() -> None:
    assert list(drawn({})) == ["Observations and actions"]
    assert drawn({}, OfflineDataset.empty(DATA.spec)) == {}


def test_labels_tell_the_metrics() -> None:
    shown = drawn(EVERYTHING)
    assert "distance 0.12 σ" in shown["Reward of a step"].get_xlabel()
    assert "covered 90%   ·   inside 80%" in shown["Observations and actions"].get_xlabel()
    assert "rank correlation −0.50" in shown["Attention to another agent"].get_xlabel()


def test_histograms_show_shares() -> None:
    real, made = (patch.get_data().values for patch in drawn(EVERYTHING)["Reward of a step"].patches)  # type: ignore[attr-defined]
    assert (real.tolist(), made.tolist()) == ([0.25, 0.75], [1.0, 0.0])


def test_the_curve_of_attention() -> None:
    (line,) = drawn(EVERYTHING)["Attention to another agent"].lines
    assert np.asarray(line.get_xydata()).tolist() == [[0.5, 0.1], [1.0, 0.2], [4.0, 0.4]]


def test_bars_of_focus_fire_and_none_for_what_is_unknown() -> None:
    bars: list[Any] = list(drawn(EVERYTHING)["Focus fire"].patches)
    places = [(round(bar.get_x() + bar.get_width() / 2, 2), bar.get_height()) for bar in bars]
    assert places == [(-0.18, 0.5), (0.18, 0.75), (1.18, 0.25)]


def test_every_point_that_counts_is_on_the_map() -> None:
    original, generated = drawn({})["Observations and actions"].collections[-2:]
    assert len(original.get_offsets()) == len(generated.get_offsets()) == pytest.approx(DATA.n_steps // 2)
