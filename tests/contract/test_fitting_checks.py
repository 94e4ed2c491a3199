"""The contract suite catches methods whose joint fits, checkpoints or diagnosis are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.checks import augmenter_checks
from benchmark.checks.learners import learner_checks
from methods.base import Run
from methods.learners import bc
from methods.learners.bc import BC
from tasks.common.errors import MethodError
from tasks.datasets.offline import OfflineDataset

PATIENT = Path(__file__).parents[1] / "plugins" / "patient"
TOGETHER = "continuous: members fitted together equal single fits"
RESUMPTION = "continuous: a fit goes on from a checkpoint as if undisturbed"
TRAINING = "continuous: a training goes on from a checkpoint as if undisturbed"
DIAGNOSIS = "continuous: what it tells of itself is JSON"


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class of a method that trains its members together and keeps the contract."""
    monkeypatch.syspath_prepend(str(PATIENT))
    import patient

    return patient.Patient


def run_check(method: Any, name: str) -> str | None:
    (check,) = [check for check in augmenter_checks(method.tiny, "toy") if check.name == name]
    return check.run()


def test_a_method_that_keeps_the_contract_passes(patient: Any) -> None:
    assert [check.run() for check in augmenter_checks(patient.tiny, "patient")] == [None] * 5 * 12


def test_members_that_share_a_stream_are_caught(patient: Any) -> None:
    class Shared(patient):  # type: ignore[misc]
        @classmethod
        def fit_together(cls, members: Sequence[Any], data: OfflineDataset, run: Run) -> None:
            super().fit_together(members, data, replace(run, seeds=run.seeds[:1] * len(members)))

    with pytest.raises(MethodError, match="toy: seed 4 fitted beside another differs"):
        run_check(Shared, TOGETHER)


def test_a_fit_that_loses_something_on_the_way_is_caught(patient: Any) -> None:
    class Forgetful(patient):  # type: ignore[misc]
        @classmethod
        def fit_together(cls, members: Sequence[Any], data: OfflineDataset, run: Run) -> None:
            goes_on = run.checkpoint is not None and run.checkpoint.load() is not None
            super().fit_together(members, data, run)
            if goes_on:
                members[0].position += 1e-12

    with pytest.raises(MethodError, match="loads a checkpoint ends otherwise"):
        run_check(Forgetful, RESUMPTION)


def test_a_training_that_loses_its_moments_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    (check,) = [check for check in learner_checks(BC, "toy") if check.name == TRAINING]
    assert check.run() is None
    parts = bc._Trainer.parts
    monkeypatch.setattr(bc._Trainer, "parts", lambda trainer: parts(trainer)._replace(optimisers=()))
    with pytest.raises(MethodError, match="toy: a training that loads a checkpoint ends otherwise"):
        check.run()


@pytest.mark.parametrize("told", [{"loss": object()}, [1.0], {"loss": {1: 2}}])
def test_a_diagnosis_that_is_no_json_is_caught(patient: Any, told: Any) -> None:
    class Mumbles(patient):  # type: ignore[misc]
        def diagnosis(self) -> Any:
            return told

    with pytest.raises(MethodError, match="toy after fit: `diagnosis`"):
        run_check(Mumbles, DIAGNOSIS)


def test_a_number_that_is_not_finite_is_no_error(patient: Any) -> None:
    class Diverges(patient):  # type: ignore[misc]
        def diagnosis(self) -> Any:
            return {"loss": np.float32("nan")}

    assert run_check(Diverges, DIAGNOSIS) is None
