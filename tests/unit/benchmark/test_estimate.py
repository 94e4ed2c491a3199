from __future__ import annotations

import pytest

from benchmark.artefacts import ArtefactStore
from benchmark.estimate import START_SECONDS, Timings, group_seconds, read_timings, run_seconds, spoken
from benchmark.planning import PlannedCell, PlannedGroup
from benchmark.plans import plan_group
from benchmark.records import StageTiming, write_record
from tests.unit.benchmark.conftest import RunSmoke, smoke_group


def planned(*stored: tuple[str, ...], **axes: str) -> PlannedGroup:
    cells = tuple(PlannedCell(seed, "run", "", stages) for seed, stages in enumerate(stored))
    return PlannedGroup(plan_group(smoke_group(**axes)), cells)


@pytest.fixture
def timings(run_smoke: RunSmoke) -> Timings:
    wall = {"dataset": 1.0, "augmented": 2.0, "policy": 30.0, "evaluation": 4.0}
    return Timings.of(
        record.model_copy(update={"timings": {k: StageTiming(wall_seconds=v) for k, v in wall.items()}})
        for record in run_smoke()
    )


def test_shared_stages_count_once_and_augmentation_counts_per_replicate(timings: Timings) -> None:
    assert group_seconds(planned((), ()), timings) == START_SECONDS + 1 + 2 * 2 + 30 + 4


def test_what_is_stored_costs_nothing(timings: Timings) -> None:
    full = ("dataset", "augmented", "policy")
    assert group_seconds(planned(full, ("dataset",)), timings) == START_SECONDS + 2 + 30 + 4
    assert group_seconds(planned(), timings) == 0.0


def test_the_nearest_record_counts(timings: Timings) -> None:
    assert group_seconds(planned((), augmenter="noise"), timings) == START_SECONDS + 1 + 2 + 30 + 4
    assert group_seconds(planned((), protocol="quick"), timings) is None
    assert run_seconds([planned(()), planned((), protocol="quick")], timings, 2) is None
    assert run_seconds([planned(()), planned((), dataset="exp")], timings, 2) == START_SECONDS + 37


def test_an_augmentation_that_two_learners_share_counts_once(timings: Timings) -> None:
    groups = [planned(("dataset",)), planned(("dataset",), learner="bc50")]
    assert run_seconds(groups, timings, 1) == 2 * (START_SECONDS + 30 + 4) + 2


def test_fits_count_by_replicate_and_once_for_their_variants(
    timings: Timings, run_smoke: RunSmoke, patient_log: object
) -> None:
    wall = {"dataset": (1.0, 1), "fit": (60.0, 3), "augmented": (5.0, 1), "policy": (30.0, 3), "evaluation": (4.0, 3)}
    trained = Timings.of(
        record.model_copy(
            update={"timings": {k: StageTiming(wall_seconds=v, together=n) for k, (v, n) in wall.items()}}
        )
        for record in run_smoke(augmenter="patient")
    )
    ready, own = ("dataset",), START_SECONDS + 30 + 4
    assert group_seconds(planned(ready, ready, augmenter="patient"), trained) == own + 2 * 20 + 2 * 5
    groups = [planned(ready, augmenter=name) for name in ("patient", "patient[shift=1.0]")]
    assert run_seconds(groups, trained, 1) == 2 * own + 20 + 2 * 5
    assert group_seconds(planned((*ready, "fit"), augmenter="patient"), trained) == own + 5
    assert group_seconds(planned(ready, augmenter="patient[steps=9]"), trained) == own + 20 + 5  # by its kind
    assert group_seconds(planned(ready, augmenter="patient"), timings) is None  # `rad-s` says nothing about it
    assert group_seconds(planned(ready, augmenter="noise"), trained) == own  # and `patient` nothing about seconds
    assert group_seconds(planned(ready, augmenter="original"), trained) == own


def test_no_records_no_estimate(store: ArtefactStore) -> None:
    assert group_seconds(planned(()), read_timings(store.home)) is None


@pytest.mark.parametrize(("seconds", "text"), [(3.2, "3 s"), (720, "12 min"), (12_600, "3.5 h")])
def test_durations_are_spoken(seconds: float, text: str) -> None:
    assert spoken(seconds) == text


def test_unreadable_records_cost_no_other_its_timings(store: ArtefactStore, run_smoke: RunSmoke) -> None:
    for record in run_smoke():
        write_record(record, store.home)
    assert read_timings(store.home).seconds
    broken = store.home / "runs" / "a-first-one" / "seed-0.json"
    broken.parent.mkdir()
    broken.write_text("no record")
    assert group_seconds(planned(()), read_timings(store.home)) is not None
