"""Comparisons of two ways of doing the same, with times that are given."""

from __future__ import annotations

import pytest

from benchmark.timing import measurements
from benchmark.timing.measurements import MEASUREMENTS, Side, compared, load_measurement


def test_rates_and_their_ratio_repetition_by_repetition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurements, "interleaved_seconds", lambda *_, repetitions: ([0.5, 1.0, 2.0], [2.0, 8.0, 8.0]))
    fast, slow = Side("batched", print, 100, "many at once", 60.0), Side("loop", print, 40, "one by one")
    first, second, ratio = compared("work", fast, slow, unit="steps", target=10.0)
    assert (first.name, first.value, first.unit, first.met) == ("work/batched", 100.0, "steps/s", True)
    assert (first.low, first.high, first.detail) == (50.0, 200.0, "many at once")
    assert (second.name, second.value, second.met) == ("work/loop", 5.0, None)
    # 200 / 20, 100 / 5 and 50 / 5, not the medians' ratio
    assert (ratio.name, ratio.value, ratio.low, ratio.high, ratio.met) == ("work/speed-up", 10.0, 10.0, 20.0, True)
    assert ratio.detail == "batched over loop"


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_every_group_can_be_loaded(name: str) -> None:
    assert callable(load_measurement(name))
