from __future__ import annotations

import pytest
from factory import Suite, with_status

from leaderboard.ranking import Ranking, Row, rank, selections
from leaderboard.scores import Selection, group


def row(ranking: Ranking, augmenter: str) -> Row:
    (found,) = [row for row in ranking.rows if row.augmenter == augmenter]
    return found


def test_a_known_winner_and_a_known_loser_are_tiered_right() -> None:
    (board,) = group(Suite(effects={"original": 0, "duplicate": 0.2, "good": 15, "twin": 15.2, "bad": -15}).records())
    ranking = rank(board, Selection())
    assert {row.augmenter: row.tier for row in ranking.rows} == {
        "twin": 1, "good": 1, "duplicate": 2, "original": 2, "bad": 3,
    }  # fmt: skip
    assert ranking.rows[-1].augmenter == "bad"
    lift = row(ranking, "good").lift
    assert lift is not None
    assert lift.low is not None
    assert lift.high is not None
    assert lift.low < 15 < lift.high


def test_without_noise_lift_is_the_effect() -> None:
    (board,) = group(Suite(noise=0.0).records())
    lift = row(rank(board, Selection()), "rad-s").lift
    assert lift is not None
    assert (lift.value, lift.low, lift.high) == pytest.approx((-12, -12, -12))


def test_pure_noise_stays_in_one_tier() -> None:
    (board,) = group(Suite(effects=dict.fromkeys(("original", "a", "b", "c"), 0.0), noise=10.0).records())
    assert {row.tier for row in rank(board, Selection()).rows} == {1}


def test_controls_stand_in_every_ranking_and_are_marked() -> None:
    (board,) = group(Suite().records())
    for selection in selections(board):
        rows = rank(board, selection).rows
        assert [r.augmenter for r in rows if r.control] == [
            r.augmenter for r in rows if r.augmenter in ("original", "duplicate", "more-real-data")
        ]
        assert len([r for r in rows if r.control]) == 3


def test_one_replicate_gives_no_interval_and_no_tier() -> None:
    (board,) = group(Suite(seeds=1).records())
    for r in rank(board, Selection()).rows:
        assert r.n == 1
        assert r.tier is None
        assert r.lift is not None
        assert r.lift.low is None


def test_two_calls_agree_to_the_last_bit() -> None:
    records = Suite().records()
    (first,), (second,) = group(records), group(records[::-1])
    assert rank(first, Selection()) == rank(second, Selection())


def test_another_method_moves_nobody() -> None:
    with_bad, without = Suite(), Suite(effects={"original": 0, "rad-s": -12})
    (large,), (small,) = group(with_bad.records()), group(without.records())
    assert row(rank(large, Selection()), "rad-s").lift == row(rank(small, Selection()), "rad-s").lift


def test_an_augmenter_with_a_hole_is_shown_with_the_reason() -> None:
    records = Suite().records()
    gone = next(r for r in records if r.cell.augmenter == "rad-s" and r.cell.task == "mpe/tag")
    (board,) = group([r for r in records if r is not gone])
    ranking = rank(board, Selection())
    last = ranking.rows[-1]
    assert last.augmenter == "rad-s"
    assert last.not_ranked == "1 of 40 runs are missing (first: mpe/tag / exp / bc, seed 0)"
    assert last.runs == 39
    assert row(rank(board, Selection(task="mpe/spread")), "rad-s").tier == 3


def test_failed_runs_are_counted_and_pull_down() -> None:
    records = [
        with_status(r, "diverged") if r.cell.augmenter == "rad-s" and r.cell.seed == 0 else r
        for r in Suite(noise=0).records()
    ]
    (board,) = group(records)
    r = row(rank(board, Selection()), "rad-s")
    assert r.without_policy == 8
    assert r.mean is not None
    assert r.mean.value == pytest.approx((4 / 5) * (28 + 33) / 2)


def test_without_the_baseline_nobody_is_ranked() -> None:
    (board,) = group([r for r in Suite().records() if r.cell.augmenter != "original"])
    rows = rank(board, Selection()).rows
    assert all(r.not_ranked and "no lift without `original`" in r.not_ranked for r in rows)
    assert len(rows) == 3


def test_selections_are_the_choices_of_three_filters() -> None:
    (board,) = group(Suite().records())
    assert len(selections(board)) == 3 * 3 * 3
    assert selections(board)[0] == Selection()


def test_cost_is_augmentation_only() -> None:
    (board,) = group(Suite().records())
    assert row(rank(board, Selection()), "rad-s").cost_seconds == 1.5
    assert row(rank(board, Selection()), "original").cost_seconds == 0.0
