"""The group `stitching` at toy size, with times that are given."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmark.timing import stitching
from benchmark.timing.stitching import measure


def test_the_group_at_toy_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stitching, "EPISODES", (3, 6))
    small = {f"{name}_hidden": 8 for name in ("density", "inverse", "reward")} | {"members": 2, "kept_members": 1}
    monkeypatch.setattr(stitching, "FEW", stitching.FEW | small)
    given: Iterator[list[float]] = iter([[1.0, 2.0], [4.0, 6.0]])
    real = stitching._search_and_decide

    def timed(*args: object) -> list[float]:
        assert all(seconds > 0 for seconds in real(*args))  # type: ignore[arg-type]  # as they were given
        return next(given)

    monkeypatch.setattr(stitching, "_search_and_decide", timed)
    taken = {measurement.name: measurement for measurement in measure("cpu")}
    assert taken["stitching/6 episodes/neighbours"].value == 4.0
    assert taken["stitching/6 episodes/decisions of a pass"].value == 6.0
    assert taken["stitching/growth of neighbours"].value == pytest.approx(2.0)
    assert taken["stitching/growth of decisions"].value == pytest.approx(1.585, abs=1e-3)
    predicted = taken["stitching/40000 episodes: predicted"]
    times = 40_000 / 6
    assert predicted.value == pytest.approx((4.0 * times**2 + 5 * 6.0 * times) / 60)
    assert (predicted.target, predicted.comparison, predicted.met) == (10.0, "at most", False)
