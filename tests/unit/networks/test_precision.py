import json
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from methods.networks import precision
from methods.networks.precision import fast_matmul, use_fast_matmul


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    precision._decide.cache_clear()
    yield
    precision._decide.cache_clear()
    torch.set_float32_matmul_precision(before)


def test_the_decision_can_be_recorded_and_is_accurate() -> None:
    decision = use_fast_matmul()
    assert json.loads(json.dumps(decision)) == decision
    assert decision["matmul"] == torch.get_float32_matmul_precision()
    assert decision["error_highest"] < 1e-4
    assert use_fast_matmul() == decision  # measured once


@pytest.mark.parametrize(("error", "expected"), [(1e-7, "medium"), (1e-3, "highest")])
def test_medium_needs_accuracy(error: float, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def of_setting(found: Tensor, true: Tensor) -> float:
        return error if torch.get_float32_matmul_precision() == "medium" else 1e-7

    monkeypatch.setattr(precision, "_error", of_setting)
    assert use_fast_matmul()["matmul"] == expected
    assert torch.get_float32_matmul_precision() == expected


def test_a_block_restores_what_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_error", lambda found, true: 1e-7)
    torch.set_float32_matmul_precision("high")
    with fast_matmul() as decision:
        assert decision["matmul"] == torch.get_float32_matmul_precision() == "medium"
    assert torch.get_float32_matmul_precision() == "high"


def test_bfloat16_would_be_noticed() -> None:
    """Rounding the factors to eight bits leaves errors thousands of times those of float32."""
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    true = x.double() @ x.double()
    assert precision._error((x.bfloat16() @ x.bfloat16()).float(), true) > 100 * precision._error(x @ x, true)
