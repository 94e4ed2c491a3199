"""Collecting segments, the error of a window, its calibrated threshold and the report, with numbers made by hand."""

from __future__ import annotations

import json
import math
from typing import Any, cast

import numpy as np
import pytest
import torch

from methods.base import Run
from methods.diffusion.model import SegmentModel
from methods.diffusion.settings import SegmentSettings
from methods.synthesis.report import GenerationReport
from methods.synthesis.segments import PATIENCE, Candidates, SegmentGoal, collect_segments
from methods.synthesis.window_filter import HeldOutWindows, calibrated_threshold, window_errors
from tasks.common.errors import MethodError

# One window of 2 transitions and 2 agents, 4 features: sums of squared errors.
ERRORS = np.array([[[4.0, 16.0], [1.0, 36.0]]], dtype=np.float32)
NEW = np.array([[[False, False], [False, True], [True, True]]])


def test_rows_that_were_kept_count_as_zero() -> None:
    # mean squared errors 1, 4, 0.25, 9; agent 0 keeps row 1: (0 + 4 + 0.25 + 9) / 4
    error = window_errors(ERRORS, NEW, np.array([2]), rule="repo", features=4)
    assert error.tolist() == [13.25 / 4]


def test_equation_6_is_the_mean_norm() -> None:
    error = window_errors(ERRORS, NEW, np.array([2]), rule="mean", features=4)
    assert error.tolist() == [(2 + 4 + 1 + 6) / 4]


def test_transitions_beyond_the_episode_do_not_count() -> None:
    assert window_errors(ERRORS, NEW, np.array([1]), rule="repo", features=4).tolist() == [4 / 2]
    assert window_errors(ERRORS, NEW, np.array([1]), rule="mean", features=4).tolist() == [(2 + 4) / 2]


def test_the_threshold_is_a_quantile_of_real_windows_under_the_same_mask() -> None:
    errors = np.arange(1, 102, dtype=np.float32)[:, None, None] * np.ones((1, 1, 2), dtype=np.float32)
    held_out = HeldOutWindows(
        errors=errors, values=np.zeros((101, 2, 2), dtype=np.float32), lengths=np.ones(101, dtype=np.int64)
    )
    new = np.zeros((101, 2, 2), dtype=np.bool_)
    new[:, 1, 0] = True  # one of the two agents: half of the error
    limit = calibrated_threshold(held_out, new, rule="repo", features=1, quantile=0.9)
    assert limit == pytest.approx(91 / 2)
    real = window_errors(errors, new, held_out.lengths, rule="repo", features=1)
    assert (real <= limit).sum() == 91
    restored = HeldOutWindows.from_arrays(held_out.arrays())
    np.testing.assert_array_equal(restored.errors, errors)


class Rewarded:
    """A model of which collecting needs the rewards alone: here the window's number."""

    settings = SegmentSettings(horizon=3)

    def reward(self, x: torch.Tensor, a: torch.Tensor, x_next: torch.Tensor | None) -> torch.Tensor:
        return x[..., 0, 0]


class Numbered:
    """Proposes windows 0, 1, 2, .. and errs as told."""

    def __init__(self, error: Any, length: int = 2) -> None:
        self.error, self.length, self.batches = error, length, list[int]()

    def __call__(self, count: int) -> Candidates:
        first = sum(self.batches)
        self.batches.append(count)
        numbers = np.arange(first, first + count)
        return Candidates(
            observations=torch.from_numpy(numbers).float()[:, None, None, None].expand(count, 3, 2, 4),
            actions=torch.zeros(count, 2, 2, 1),
            errors=np.array([self.error(n) for n in numbers], dtype=np.float64),
            lengths=np.full(count, self.length),
            new_shares=(numbers % 2).astype(np.float64),
            starts=numbers % 3,
        )


def collect(propose: Numbered, goal: SegmentGoal, report: GenerationReport, largest: int = 8) -> Any:
    model = cast(SegmentModel, Rewarded())
    return collect_segments(propose, model, goal, report, Run(seeds=(0,)), owner="test", largest=largest)


def test_accepted_windows_are_returned_in_order_and_within_the_threshold() -> None:
    propose, report = Numbered(lambda n: n % 4), GenerationReport(threshold=1.0)
    rows = collect(propose, SegmentGoal(segments=5), report)
    assert rows.rewards[:, 0].tolist() == [0, 1, 4, 5, 8]
    assert len(rows) == 5
    assert not rows.terminal.any()
    assert report.windows == report.accepted + report.rejected["dynamics"] == sum(propose.batches)
    assert report.extra["new_row_share"] == pytest.approx(2 / 5)
    assert report.extra["unchanged_share"] == pytest.approx(3 / 5)


def test_batches_follow_the_acceptance_rate() -> None:
    propose = Numbered(lambda n: 0.0 if n % 4 == 1 else 9.0)
    collect(propose, SegmentGoal(segments=60), GenerationReport(threshold=1.0), largest=10_000)
    # 60 asked for, 15 of 60 accepted; then 45 missing at a rate of 16/61: 172, of which 43; then 2 at 59/233: 8
    assert propose.batches == [60, 172, 8]


def test_transitions_are_met_by_whole_segments() -> None:
    rows = collect(Numbered(lambda n: 0.0), SegmentGoal(transitions=7), GenerationReport(threshold=1.0))
    assert rows.lengths.tolist() == [2, 2, 2, 2]
    single = collect(Numbered(lambda n: 0.0, length=1), SegmentGoal(transitions=7), GenerationReport())
    assert single.lengths.tolist() == [1] * 7  # no threshold: everything passes


@pytest.mark.parametrize("error", [lambda n: 5.0, lambda n: math.nan, lambda n: 5.0 * (n % 2)])
def test_an_unreachable_threshold_ends_in_a_clear_error(error: Any) -> None:
    propose = Numbered(error)  # windows of even numbers have no new row: that they pass is no progress
    report = GenerationReport(threshold=0.5, threshold_kind="fixed", calibrated=2.25)
    with pytest.raises(MethodError, match=r"of \d+ .*threshold is 0.5 \(fixed\).*it is 2.25") as failure:
        collect(propose, SegmentGoal(segments=400), report)
    assert len(propose.batches) == PATIENCE
    assert f"dynamics {sum(propose.batches) - report.accepted}" in str(failure.value)


def test_unchanged_windows_alone_are_no_augmentation() -> None:
    report = GenerationReport(threshold=0.5, threshold_kind="fixed", calibrated=2.25)
    with pytest.raises(MethodError, match=r"no window with new rows .* of \d+ .*it is 2.25"):
        collect(Numbered(lambda n: 5.0 * (n % 2)), SegmentGoal(segments=60), report)  # there before patience ends


def test_unchanged_windows_can_be_left_out() -> None:
    model, report = cast(SegmentModel, Rewarded()), GenerationReport(threshold=1.0)
    rows = collect_segments(
        Numbered(lambda n: 2.0 * (n % 4 == 3)),
        model,
        SegmentGoal(segments=3),
        report,
        Run(seeds=(0,)),
        owner="test",
        largest=8,
        keep_unchanged=False,
    )
    assert rows.rewards[:, 0].tolist() == [1, 5, 9]
    assert report.extra["unchanged_share"] == 0
    assert report.rejected["unchanged"] == report.windows / 2


def test_the_report_adds_up_and_is_json() -> None:
    report = GenerationReport(threshold=math.inf, threshold_kind="fixed", sampler={"name": "ddim"})
    report.count(np.array([True, False, True]), np.array([0, 0, 2]))
    report.count(np.array([False]), np.array([2]), reason="death")
    with report.timed("sampling"):
        pass
    told = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert told["windows"] == 4
    assert told["accepted"] == 2
    assert told["acceptance_rate"] == 0.5
    assert told["rejected"] == {"dynamics": 1, "death": 1}
    assert told["acceptance_by_position"] == [0.5, None, 0.5]
    assert told["threshold"] is None
    assert set(told["seconds"]) == {"sampling", "heads", "bookkeeping"}
