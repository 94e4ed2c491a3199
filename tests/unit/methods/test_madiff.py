"""MADiff in both forms, on networks that were trained for a moment."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from benchmark.checks import sample_dataset
from methods.augmenters import AUGMENTERS
from methods.augmenters.madiff import MADiff
from methods.base import Budget, Run
from methods.diffusion.model import SegmentModel
from tasks.common.errors import UsageError
from tasks.datasets.offline import OfflineDataset

DATA = sample_dataset("continuous", episodes=20).without_privileged()


@cache
def fitted(shape: str) -> MADiff:
    augmenter = MADiff.tiny({"horizon": 4})
    augmenter.fit(sample_dataset(shape, episodes=20).without_privileged(), Run(seeds=(3,)))
    return augmenter


def generate(shape: str = "continuous", amount: int | None = 60, **params: Any) -> tuple[OfflineDataset, MADiff]:
    base, data = fitted(shape), sample_dataset(shape, episodes=20).without_privileged()
    augmenter = MADiff(replace(base.config, **params))
    augmenter.load_state(base.state(), data.spec)
    return augmenter.generate(data, Run(seeds=(3,), budget=Budget(amount=amount))), augmenter


def test_both_forms_share_one_fit() -> None:
    assert AUGMENTERS.load("madiff-segment") is MADiff
    assert set(AUGMENTERS.entry("madiff-segment").params) <= MADiff.generation_fields


def test_episodes_are_whole_and_nothing_is_filtered() -> None:
    data, augmenter = generate()
    told = augmenter.diagnosis()["generation"]
    assert data.lengths.tolist() == [6] * 10
    assert data.truncations.sum() == 10
    assert told["threshold_kind"] == "none"
    assert told["windows"] == told["accepted"] == told["passes"] == 20


@pytest.mark.parametrize("emit", ["episodes", "segments"])
def test_agents_are_asked_for_nine_tenths_of_their_own_best_return(emit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    targets: list[torch.Tensor] = []
    sample = SegmentModel.sample

    def asking(model: SegmentModel, *given: Any, **options: Any) -> torch.Tensor:
        targets.append(torch.as_tensor(options["target"]))
        return sample(model, *given, **options)

    monkeypatch.setattr(SegmentModel, "sample", asking)
    _, augmenter = generate(emit=emit)
    assert augmenter.model_on("cpu").settings.per_agent_returns
    assert targets
    assert all(target.eq(0.9).all() for target in targets)


def test_episodes_begin_with_first_observations() -> None:
    firsts = DATA.observations[DATA.row_starts[:-1]]

    def known(rows: np.ndarray[Any, Any], pool: np.ndarray[Any, Any]) -> list[bool]:
        return [bool(np.isclose(pool, row, atol=1e-3).all(axis=(1, 2)).any()) for row in rows]

    data, _ = generate()
    assert all(known(data.observations[data.row_starts[:-1]], firsts))
    data, _ = generate(start="any")
    begun = data.observations[data.row_starts[:-1]]
    assert all(known(begun, DATA.observations))
    assert not all(known(begun, firsts))


def test_true_ends_end_episodes() -> None:
    """With a head that sees an end everywhere, every episode has one transition."""
    _, augmenter = generate("discrete")
    model = augmenter.model_on("cpu")
    assert model.has("termination")
    model.termination = lambda x: torch.ones(x.shape[:-2], dtype=torch.bool)  # type: ignore[method-assign]
    data = augmenter.generate(
        sample_dataset("discrete", episodes=20).without_privileged(), Run(seeds=(3,), budget=Budget(amount=9))
    )
    assert data.lengths.tolist() == [1] * 9
    assert data.terminals.all()


def test_segments_are_cut_and_filtered() -> None:
    data, augmenter = generate(emit="segments", amount=None)
    assert data.n_episodes == 3
    assert (data.lengths <= 3).all()
    assert not data.terminals.any()
    assert augmenter.diagnosis()["generation"]["threshold_kind"] == "fixed"


def test_impossible_configs_are_refused() -> None:
    for params in ({"emit": "rows"}, {"start": "last"}, {"slots": 0}):
        (name,) = params
        with pytest.raises(UsageError, match=f"{name}="):
            MADiff.from_params(params)


def test_nothing_fitted_is_said() -> None:
    with pytest.raises(UsageError, match="madiff: nothing was fitted"):
        MADiff().generate(DATA, Run(seeds=(0,), budget=Budget(amount=5)))
