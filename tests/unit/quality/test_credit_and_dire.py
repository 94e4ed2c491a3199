import numpy as np
import pytest
from scipy.stats import kendalltau

from benchmark.quality import credit, dire
from benchmark.quality.credit import kendall_tau, true_contributions
from benchmark.quality.subject import Subject, UndefinedError
from methods.augmenters.duplicate import Duplicate
from tasks.datasets.views import segments


class Telling(Duplicate):
    """Knows the true credit, up to a sign, and rebuilds windows with an error of its choice."""

    def __init__(self, sign, task=None, errors=None):
        super().__init__()
        self.sign, self.task, self.errors, self.counted = sign, task, errors, None

    credit_functions = ("right", "wrong", "silent")

    def credit(self, data, windows, function=None):
        self.counted = windows.step_valid.sum(axis=1)
        sign = {None: self.sign, "right": 1.0, "wrong": -1.0, "silent": 0.0}[function]
        return sign * true_contributions(Subject(data, data, self.task, None, 0), windows).astype(np.float32)

    def reconstruction_errors(self, windows):
        return None if self.errors is None else self.errors(windows)


def test_kendall_tau_by_hand():
    first = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 1.0, 2.0], [0.0, 0.0, 0.0]])
    second = np.array([[10.0, 20.0, 30.0], [3.0, 1.0, 2.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    # 3 agreeing pairs; 1 agreeing and 2 not; 2 agreeing of 2 untied and 3: 2 / sqrt(6); nothing to rank.
    assert kendall_tau(first, second) == pytest.approx([1.0, -1 / 3, 2 / np.sqrt(6), np.nan], nan_ok=True)


def test_kendall_tau_agrees_with_scipy():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 4, (40, 5)).astype(float), rng.integers(0, 4, (40, 5)).astype(float)
    expected = [kendalltau(a, b).statistic for a, b in zip(first, second, strict=True)]
    assert kendall_tau(first, second) == pytest.approx(expected, nan_ok=True)


def test_true_contributions_add_up_over_a_window(spread, look, episodes):
    """Agent 2 covers a landmark; agents 0 and 1, apart from each other after the step, are nearest to nothing."""
    row = look([(-1.0, -1.0), (-1.0, -0.8), (1.0, 1.0)], [(1.0, 1.0), (1.2, 1.0), (1.0, 1.2)])
    data = episodes(np.stack([row] * 4)[None])  # 3 steps
    found = true_contributions(Subject(data, data, spread, None, 0), segments(data, 4).gather(np.array([0])))
    after = np.array([-1.0, -0.7])  # agent 1: overlap 0.1, force 100 · 0.1, v = 1, moved by 0.1
    without = sum(1 / np.hypot(*(after - landmark)) for landmark in [(1.0, 1.0), (1.2, 1.0), (1.0, 1.2)])
    assert found == pytest.approx(np.array([[0.0, 0.0, 3 * 3 * (10 + 5 + 5 - without)]]), rel=1e-4)


@pytest.mark.parametrize(("sign", "tau"), [(1.0, 1.0), (-1.0, -1.0)])
def test_credit_that_is_right_and_credit_upside_down(spread, recorded, sign, tau):
    measured = credit.measure(Subject(recorded, recorded, spread, Telling(sign, spread), 0)).metrics["kendall_tau"]
    assert measured.value == pytest.approx(tau)
    assert measured.details["positive_share"] == (1.0 if sign > 0 else 0.0)
    assert measured.details["horizon"] == 8
    assert (measured.details["tau_right"], measured.details["tau_wrong"]) == pytest.approx((1.0, -1.0))
    assert measured.details["tau_silent"] is None  # ties alone


def test_credit_counts_the_transitions_within_a_window(spread, recorded):
    """The true contributions are those of H − 1 transitions: the step that leaves the last row is no part of them."""
    method = Telling(1.0, spread)
    credit.measure(Subject(recorded, recorded, spread, method, 0))
    assert set(method.counted) == {7}
    assert segments(recorded, 8).gather(np.array([0])).step_valid.sum() == 8


def test_methods_without_credit_or_model_say_so(spread, recorded):
    subject = Subject(recorded, recorded, spread, Duplicate(), 0)
    with pytest.raises(UndefinedError, match="no credit"):
        credit.measure(subject)
    with pytest.raises(UndefinedError, match="no diffusion model"):
        dire.measure(subject)


def test_dire_averages_over_windows_of_both(spread, recorded):
    silent = recorded.replace(observations=np.zeros_like(recorded.observations))
    method = Telling(1.0, errors=lambda windows: np.abs(windows.observations).mean(axis=(1, 2, 3)) + 0.25)
    measured = dire.measure(Subject(recorded, silent, spread, method, 0)).metrics["dire"]
    assert measured.value == pytest.approx(0.25)
    assert measured.original > 0.4
    assert measured.details["ratio"] == pytest.approx(measured.value / measured.original)
