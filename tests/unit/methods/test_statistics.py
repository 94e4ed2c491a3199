import numpy as np
import pytest

from methods.data import statistics
from methods.data.statistics import mean_and_std


def test_by_hand() -> None:
    mean, std = mean_and_std(np.array([[1.0, 4.0], [3.0, 4.0]], dtype=np.float32))
    assert mean.tolist() == [2.0, 4.0]
    assert std.tolist() == [1.0, 0.0]  # population form: sqrt(((1-2)² + (3-2)²) / 2)


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    column = np.random.default_rng(0).normal(1e4, 1.0, size=(1_000, 3, 2)).astype(np.float32)
    monkeypatch.setattr(statistics, "_ROWS", 7)
    mean, std = mean_and_std(column)
    np.testing.assert_allclose(mean, column.astype(np.float64).mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(std, column.astype(np.float64).std(axis=0), rtol=1e-5)


def test_an_empty_column_has_mean_and_std_zero() -> None:
    mean, std = mean_and_std(np.zeros((0, 2), dtype=np.float32))
    assert mean.tolist() == std.tolist() == [0.0, 0.0]
