from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from benchmark.checks import sample_spec
from benchmark.scores import scores_of
from tasks.datasets.card import ReturnStatistics
from tasks.spec import ScoreReferences, TaskSpec

EXPERTS = ReturnStatistics(mean=8, std=2, min=4, max=12, deciles=[5.0, 6, 7, 7.5, 8, 8.5, 9, 10, 11])


@pytest.fixture
def spec() -> TaskSpec:
    references = ScoreReferences(random_return=2, expert_return=10, episodes=9, seed=0, provenance="made up")
    return dataclasses.replace(sample_spec("continuous"), has_win=False, score_references=references)


def test_all_scores_by_hand(spec: TaskSpec) -> None:
    scores = scores_of(spec, [5.0, 7.0], None, dataset_mean_return=4.0, expert_data=EXPERTS)
    assert scores == pytest.approx(
        {
            "return": 6.0,
            "normalised": 50.0,  # 100 (6 − 2) / (10 − 2)
            "codi": 1 / 3,  # (6 − 4) / (10 − 4)
            "madits": 100 / 6,  # 100 (6 − 5) / (11 − 5)
        }
    )


def test_codi_is_absent_where_the_data_are_as_good_as_the_expert(spec: TaskSpec) -> None:
    assert "codi" not in scores_of(spec, [5.0], None, dataset_mean_return=9.7, expert_data=None)
    assert "codi" in scores_of(spec, [5.0], None, dataset_mean_return=9.5, expert_data=None)


def test_scores_that_need_something_absent_are_absent(spec: TaskSpec) -> None:
    bare = dataclasses.replace(spec, score_references=None)
    assert scores_of(bare, [5.0, 7.0], None, 4.0, None) == {"return": 6.0}


def test_tasks_with_a_win_have_a_win_rate_and_no_deciles(spec: TaskSpec) -> None:
    winning = dataclasses.replace(spec, has_win=True)
    scores = scores_of(winning, [1.0] * 4, [True, False, False, False], None, EXPERTS)
    assert scores["win_rate"] == 0.25
    assert "madits" not in scores


def test_equal_deciles_define_no_score(spec: TaskSpec) -> None:
    flat = ReturnStatistics.of(np.full(10, 3.0))
    assert "madits" not in scores_of(spec, [5.0], None, None, flat)
