"""The slot machine on made-up policies: integers walk along a line, so that every episode can be written down."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from methods.base import Run
from methods.diffusion.sampling import NoiseSource
from methods.synthesis.report import GenerationReport
from methods.synthesis.stitch_ledger import Ledger
from methods.synthesis.stitch_policy import FailureRule, Jobs, StitchPolicy, Verdict
from methods.synthesis.stitching import AttemptNoise, Goal, Stitched, Stitcher
from tasks.common.errors import MethodError

H = 4


@dataclass
class Walk(StitchPolicy):
    """Row k + 1 is row k + 1 + 0.1 z: the integer part counts the steps, the rest is the noise of the attempt.

    A transition is valid where `z` is below `bar`; the episode ends truly where it arrives above `end`.
    """

    bar: float = np.inf
    end: float = np.inf
    again: float = np.inf  # a row that arrives with z above it is drawn once more
    failures: FailureRule = field(default_factory=FailureRule)
    horizon: int = H

    def __post_init__(self) -> None:
        self.seen: list[Jobs] = []

    def first_condition(self, rows: Tensor) -> Tensor:
        return rows.new_full((len(rows),), 100.0)

    def sample(self, jobs: Jobs, noise: NoiseSource) -> Tensor:
        self.seen.append(jobs)
        z = noise(tuple(jobs.known.values.shape)).clamp(-4, 4)
        steps = torch.arange(H).reshape(1, H, 1, 1)
        first = jobs.known.values[:, :1].round()
        return jobs.known.paste(first + steps + 0.1 * z)

    def judge(self, windows: Tensor, jobs: Jobs) -> Verdict:
        z = (windows - windows.round())[:, 1:, 0, 0] / 0.1
        terminal = (windows[:, 1:, 0, 0] > self.end).numpy()
        return Verdict(
            valid=(z < self.bar).long().cumprod(1).sum(1).numpy(),
            actions=windows[:, :-1],
            rewards=windows[:, 1:, 0, 0].round(),
            terminal=terminal,
        )

    def known_again(self, windows: Tensor, verdict: Verdict, kept: np.ndarray[Any, Any]) -> Tensor | None:
        if self.again == np.inf:
            return None
        mask = (windows - windows.round())[..., 0] / 0.1 < self.again
        mask[:, 0] = True
        return mask

    def condition_after(self, condition: Tensor, rewards: Tensor, appended: np.ndarray[Any, Any]) -> Tensor:
        counted = torch.arange(rewards.shape[1]) < torch.as_tensor(appended)[:, None]
        return condition - (rewards * counted).sum(1)


def stitch(
    policy: Walk, goal: Goal, *, slots: int = 8, limit: int = 7, seed: int = 0, starts: int = 3
) -> tuple[Stitched, GenerationReport]:
    pool = torch.arange(starts, dtype=torch.float32).reshape(-1, 1, 1) * 1000
    report = GenerationReport()
    stitcher = Stitcher(policy, pool.expand(-1, 2, 1).contiguous(), limit=limit, report=report, slots=slots)
    return stitcher.run(goal, np.random.default_rng(seed), Run(seeds=(0,)), "walk"), report


def episodes(stitched: Stitched) -> list[np.ndarray[Any, Any]]:
    """The rounded first features of each episode's rows."""
    ends = np.cumsum(stitched.lengths + 1)[:-1]
    return [rows[:, 0, 0].round() for rows in np.split(stitched.observations, ends)]


def test_windows_are_joined_at_their_last_rows() -> None:
    stitched, report = stitch(Walk(), Goal(episodes=5))
    for rows, start in zip(episodes(stitched), stitched.starts, strict=True):
        np.testing.assert_array_equal(rows, 1000 * start + np.arange(8))
    assert stitched.rewards.tolist() == [r for start in stitched.starts for r in 1000 * start + np.arange(1, 8)]
    assert not stitched.terminal.any()
    assert report.windows == report.accepted == 5 * 3  # 3 + 3 + 1 transitions
    assert report.extra["passes"] == 15


def test_condition_follows_what_was_appended() -> None:
    policy = Walk()
    stitch(policy, Goal(episodes=1), starts=1)
    conditions = [jobs.condition.tolist() for jobs in policy.seen]
    assert conditions == [[100.0], [94.0], [79.0]]  # less 1 + 2 + 3, then 4 + 5 + 6
    assert [jobs.usable.tolist() for jobs in policy.seen] == [[3], [3], [1]]


def test_goals_are_met_as_the_contract_says() -> None:
    for amount in (1, 6, 7, 8, 30):
        stitched, _ = stitch(Walk(), Goal(transitions=amount))
        assert amount <= stitched.lengths.sum() < amount + 7
    stitched, _ = stitch(Walk(), Goal(episodes=11), slots=2)
    assert len(stitched.lengths) == 11


def test_true_ends_end_an_episode() -> None:
    stitched, _ = stitch(Walk(end=4.5), Goal(episodes=20), starts=1, limit=9)
    assert set(stitched.lengths) <= {5, 4}
    assert stitched.terminal.all()
    assert all((rows[:-1] < 4.9).all() for rows in episodes(stitched))


@pytest.mark.parametrize(
    "policy",
    [
        Walk(bar=0.8, failures=FailureRule(total=6, in_a_row=3)),
        Walk(bar=1.2, again=0.3, end=5.02, failures=FailureRule(total=6, in_a_row=3)),
    ],
    ids=["one-pass", "two-passes"],
)
def test_slots_do_not_feel_each_other(policy: Walk) -> None:
    """A wide batch, a narrow one and single slots give the same episodes, discarded attempts included."""
    results = [stitch(replace(policy), Goal(episodes=30), slots=slots)[0] for slots in (64, 5, 1)]
    for other in results[1:]:
        for name in ("observations", "actions", "rewards", "terminal", "lengths", "starts"):
            np.testing.assert_array_equal(getattr(results[0], name), getattr(other, name), err_msg=name)


def test_fast_attempts_do_not_displace_slow_ones() -> None:
    """Episodes that end at once and those that take long appear as often as they were begun."""

    class Uneven(Walk):
        def judge(self, windows: Tensor, jobs: Jobs) -> Verdict:
            verdict = super().judge(windows, jobs)
            verdict.terminal[:, 0] = windows[:, 0, 0, 0].numpy() < 500  # from the first start row: one step
            return verdict

    stitched, _ = stitch(Uneven(), Goal(episodes=400), slots=128, limit=40, starts=2)
    assert set(stitched.lengths[stitched.starts == 0]) == {1}
    assert set(stitched.lengths[stitched.starts == 1]) == {40}
    assert 160 < (stitched.starts == 1).sum() < 240


@pytest.mark.parametrize("again", [0.2, np.inf])
def test_statistics_add_up_and_discarded_episodes_leave_no_trace(again: float) -> None:
    policy = Walk(bar=0.6, again=again, failures=FailureRule(total=4, in_a_row=2))
    stitched, report = stitch(policy, Goal(episodes=40), slots=16)
    told = report.to_json()
    assert told["episodes_discarded"] > 0
    assert set(told["rejected"]) >= {"dynamics", "failure limit"} | ({"second pass"} if again < 1 else set())
    assert told["windows"] == told["accepted"] + sum(told["rejected"].values())
    assert told["passes"] == told["windows"] + told["second_passes"] == sum(len(j.second) for j in policy.seen)
    assert told["episodes_begun"] >= told["episodes_finished"] + told["episodes_discarded"]
    for rows in episodes(stitched):
        np.testing.assert_array_equal(np.diff(rows), 1.0)
    assert (stitched.lengths == 7).all()
    assert len(told["valid_beyond_step"]) == 3
    assert np.all(np.diff(told["valid_beyond_step"]) <= 0)


def test_failures_are_counted_as_in_algorithm_3() -> None:
    """Nothing valid: given up after as many windows as failures in a row are allowed."""
    policy = Walk(bar=-np.inf, failures=FailureRule(total=9, in_a_row=3))
    with pytest.raises(MethodError, match=r"none of the last \d+ windows was accepted"):
        stitch(policy, Goal(episodes=4), slots=4)
    begun = [jobs.known.values[:, 0, 0, 0].tolist() for jobs in policy.seen]
    assert begun[0] == begun[1] == begun[2] != begun[3]  # three tries from one row, then the next attempts


def test_a_valid_prefix_restarts_the_count_at_one() -> None:
    """Each window has one valid transition of three: every one is a failure, never two in a row."""

    class OneStep(Walk):
        def judge(self, windows: Tensor, jobs: Jobs) -> Verdict:
            return replace(super().judge(windows, jobs), valid=np.ones(len(windows), dtype=np.int64))

    patient, report = stitch(OneStep(failures=FailureRule(total=7, in_a_row=2)), Goal(episodes=3))
    assert patient.lengths.tolist() == [7, 7, 7]
    assert report.windows == 21
    assert report.episodes_discarded == 0  # windows 1-6 fail; of the seventh one transition is usable, and valid
    with pytest.raises(MethodError, match="given up and 0 finished"):
        stitch(OneStep(failures=FailureRule(total=6, in_a_row=2)), Goal(episodes=64), slots=64)


def test_failures_beyond_the_limit_do_not_count() -> None:
    policy = Walk(failures=FailureRule(total=1))
    stitched, report = stitch(policy, Goal(episodes=3), limit=1)
    assert stitched.lengths.tolist() == [1, 1, 1]
    assert report.episodes_discarded == 0


def test_second_pass_keeps_the_known_entries() -> None:
    policy = Walk(again=0.0)
    stitch(policy, Goal(episodes=6))
    first, second = policy.seen[0], policy.seen[1]
    assert not first.second.any()
    assert second.second.any()
    assert first.known.mask[:, 0].all()
    assert not first.known.mask[:, 1:].any()
    assert second.known.mask[torch.as_tensor(second.second)][:, 1:].any()
    assert (second.usable[second.second] == 3).all()


class Shrinking(Walk):
    """First passes are valid whole; of a second pass `left` transitions are."""

    left: int = 1

    def judge(self, windows: Tensor, jobs: Jobs) -> Verdict:
        return replace(super().judge(windows, jobs), valid=np.where(jobs.second, self.left, 3))

    def known_again(self, windows: Tensor, verdict: Verdict, kept: np.ndarray[Any, Any]) -> Tensor | None:
        return torch.arange(H).expand(len(windows), 2, H).transpose(1, 2) < 1


def test_a_second_pass_fails_only_if_nothing_is_left_of_it() -> None:
    stitched, report = stitch(Shrinking(failures=FailureRule(total=1)), Goal(episodes=3))
    assert stitched.lengths.tolist() == [7, 7, 7]
    assert report.extra["second_passes"] == report.windows == 21  # one transition each
    assert report.episodes_discarded == 0
    barren = Shrinking(failures=FailureRule(in_a_row=1))
    barren.left = 0
    with pytest.raises(MethodError, match="rejected: second pass"):
        stitch(barren, Goal(episodes=3))
    assert sum(int(jobs.second.sum()) for jobs in barren.seen) == sum(int((~jobs.second).sum()) for jobs in barren.seen)


def test_what_is_known_as_far_as_it_counts_needs_no_second_pass() -> None:
    class Settled(Shrinking):
        def judge(self, windows: Tensor, jobs: Jobs) -> Verdict:
            return replace(super().judge(windows, jobs), valid=np.full(len(windows), 2))

        def known_again(self, windows: Tensor, verdict: Verdict, kept: np.ndarray[Any, Any]) -> Tensor | None:
            return torch.arange(H).expand(len(windows), 2, H).transpose(1, 2) <= 2

    _, report = stitch(Settled(), Goal(episodes=3))
    assert report.extra["second_passes"] == 0
    assert report.windows == 3 * 4  # 2 + 2 + 2 + 1 transitions


def test_given_up_for_good_is_an_error_with_statistics() -> None:
    policy = Walk(bar=-1.5, failures=FailureRule(in_a_row=2))
    with pytest.raises(MethodError, match=r"walk: .*episodes were given up and \d finished.*threshold is none"):
        stitch(policy, Goal(episodes=100), limit=40, slots=64)


def test_noise_comes_from_the_stream_of_each_attempt() -> None:
    streams = [np.random.default_rng(seed) for seed in (1, 2)]
    noise = AttemptNoise(streams, "cpu")
    values = noise((2, 3, 4))
    np.testing.assert_array_equal(values[1], np.random.default_rng(2).standard_normal((3, 4), dtype=np.float32))


def test_the_ledger_takes_a_prefix() -> None:
    ledger = Ledger(Goal(transitions=10), limit=5)
    for start in (7, 8, 9, 6):
        ledger.begin(start)
    ledger.finish(1, 5, terminal=False)
    ledger.finish(3, 5, terminal=False)
    assert ledger.done == 0
    assert not ledger.reached
    ledger.give_up(0)
    assert ledger.done == 5
    assert not ledger.reached
    ledger.finish(2, 5, terminal=True)
    assert ledger.reached
    assert ledger.chosen().tolist() == [1, 2]
    assert ledger.starts(ledger.chosen()).tolist() == [8, 9]
    assert ledger.terminal(ledger.chosen()).tolist() == [False, True]
