import json
import logging
import time

import numpy as np
import pytest

from benchmark.checks.sample_data import sample_dataset
from benchmark.quality import METRICS, measure, read_report
from benchmark.quality import measure as package_measure
from benchmark.quality.family import paired_histogram
from benchmark.quality.report import QUALITY_FILE, Measurement
from methods.augmenters.duplicate import Duplicate
from tasks.base import Task
from tasks.common.errors import DataError
from tasks.datasets.offline import OfflineDataset
from tasks.registry import make_task


class Featureless(Task):
    """A task of which nothing but the spec is known."""

    behaviour_levels = ()

    def __init__(self, spec):
        self.spec = spec

    def make_env(self, num_envs, seed):
        raise NotImplementedError("no engine")

    def behaviour_policy(self, level):
        raise NotImplementedError

    def training_history(self):
        raise NotImplementedError

    def behaviour_digest(self, level):
        raise NotImplementedError


def test_every_metric_has_a_value_or_a_reason(spread, recorded):
    report = measure(recorded, recorded, spread, Duplicate(), seed=3, name="duplicate")
    assert tuple(report.metrics) == METRICS
    undefined = {name for name, metric in report.metrics.items() if metric.value is None}
    assert undefined == {"focus_fire", "kendall_tau", "dire", "attention_correlation"}
    assert all(report.metrics[name].reason for name in undefined)
    assert (report.task, report.augmenter, report.seed) == ("mpe/spread", "duplicate", 3)


def test_the_same_seed_gives_the_same_report(spread, recorded):
    first, second = (measure(recorded, recorded.take(range(20)), spread, seed=1) for _ in range(2))
    assert first.metrics == second.metrics
    assert first.histograms == second.histograms


def test_a_report_survives_writing(spread, recorded, tmp_path):
    report = measure(recorded, recorded, spread)
    report.write(tmp_path)
    assert read_report(tmp_path) == report
    json.loads((tmp_path / QUALITY_FILE).read_text(), parse_constant=pytest.fail)  # no NaN, no Infinity


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not readable"), ('{"schema_version": 99}', "reads up to"), ('{"schema_version": 1}', "field 'task'")],
)
def test_a_damaged_report_is_named(tmp_path, content, message):
    (tmp_path / QUALITY_FILE).write_text(content)
    with pytest.raises(DataError, match=message):
        read_report(tmp_path)


def test_a_report_from_before_curves_is_read(spread, recorded, tmp_path):
    document = measure(recorded, recorded, spread).document()
    del document["curves"], document["metrics"]["covered_share"]
    (tmp_path / QUALITY_FILE).write_text(json.dumps({**document, "schema_version": 1}))
    report = read_report(tmp_path)
    assert report.curves == {}
    assert "covered_share" not in report.values()


def test_no_report_is_none(tmp_path):
    assert read_report(tmp_path) is None


def test_a_failing_metric_costs_nothing_but_itself(spread, recorded, monkeypatch, caplog):
    monkeypatch.setattr("tasks.mpe.env.MPEEnv.step", lambda self, actions: 1 / 0)
    with caplog.at_level(logging.ERROR):
        report = measure(recorded, recorded, spread)
    assert report.metrics["dynamics_mse"].value is None
    assert report.metrics["dynamics_mse"].reason == "failed: ZeroDivisionError: division by zero"
    assert "dynamics_mse" in caplog.text
    assert report.metrics["similarity"].value is not None


def test_no_synthetic_episode_leaves_everything_undefined(spread, recorded):
    report = measure(recorded, OfflineDataset.empty(spread.spec), spread)
    assert {metric.reason for metric in report.metrics.values()} == {"there are no transitions to compare"}


@pytest.mark.parametrize("shape", ["continuous", "discrete", "states-and-deaths", "one-agent", "one-step-episodes"])
def test_tasks_without_a_map_or_a_restorable_engine(shape):
    data = sample_dataset(shape)
    report = measure(data, sample_dataset(shape, seed=1), Featureless(data.spec), Duplicate())
    defined = {name for name, metric in report.metrics.items() if metric.value is not None}
    assert defined == {
        "similarity",
        "correlation",
        "covered_share",
        "inside_share",
        "novelty",
        "new_row_share",
        "mean_return",
        "reward_per_step",
        "reward_distance",
        "value_distance",
    }


def test_pursuit_is_measured_too():
    from tasks.datasets import regimes

    task = make_task("mpe/tag")
    data = regimes.collect(task, regimes.resolve(task, "exp-m"), 8, 0, lambda done, total, message: None)
    report = measure(data, data, task)
    undefined = {name for name, metric in report.metrics.items() if metric.value is None}
    assert undefined == {
        "uncovered_landmarks",
        "cn_score_improvement",
        "focus_fire",
        "kendall_tau",
        "dire",
        "attention_correlation",
    }
    assert report.metrics["dynamics_mse"].value < 1e-9


def test_returns_are_those_the_data_claim(spread, recorded):
    halved = recorded.replace(rewards=recorded.rewards * np.float32(0.5))
    report = measure(recorded, halved, spread)
    expected = float(recorded.returns().mean())
    assert report.metrics["mean_return"].value == pytest.approx(0.5 * expected)
    assert report.metrics["mean_return"].original == pytest.approx(expected)
    assert report.metrics["reward_per_step"].value == pytest.approx(0.5 * expected / 25)
    assert report.metrics["oracle_reward"].value == pytest.approx(expected / 25, rel=1e-4)
    histogram = report.histograms["episode_return"]
    assert sum(histogram.original) == sum(histogram.synthetic) == 40


def test_what_is_not_finite_has_no_value():
    measured = Measurement(value=float("nan"), original=float("inf"), details={"median": float("nan"), "kept": 1.0})
    assert measured == Measurement(value=None, reason="the value is not finite", details={"median": None, "kept": 1.0})


def test_paired_histogram_by_hand():
    histogram = paired_histogram(np.array([0.0, 1.0]), np.array([2.0, 2.0, 5.0]), bins=2, bounds=(0.0, 4.0))
    assert histogram.edges == [0.0, 2.0, 4.0]
    assert (histogram.original, histogram.synthetic) == ([2, 0], [0, 3])  # 5 goes to the end bin


@pytest.mark.slow
def test_measuring_a_quick_run_takes_seconds(spread, recorded):
    many = recorded.repeat(50)  # 50,000 transitions
    started = time.process_time()
    package_measure(many, many, spread, Duplicate())
    assert time.process_time() - started < 10
