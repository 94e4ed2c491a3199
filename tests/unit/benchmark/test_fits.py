"""Replicates that are fitted together, share a fit with variants, fail together and go on from checkpoints."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from benchmark.artefacts import Artefact, ArtefactStore, load_arrays
from benchmark.pipeline import run_group
from benchmark.plans import plan_group
from benchmark.provenance import Origin
from benchmark.records import RunRecord
from benchmark.stages import augmentation
from benchmark.stages.context import Context
from benchmark.stages.datasets import DATA_FILE
from benchmark.stages.fits import FIT_FILE
from methods.base import Run
from methods.transitions.model import TransitionModel
from tasks.datasets import store as datasets
from tasks.datasets.offline import OfflineDataset
from tests.unit.benchmark.conftest import RunSmoke, smoke_group

Log = Callable[[], list[str]]
SEEDS = (0, 1, 2)


def positions(store: ArtefactStore, seeds: tuple[int, ...] = SEEDS) -> list[list[float]]:
    plan, found = plan_group(smoke_group(augmenter="patient")), []
    for seed in seeds:
        key = plan.fit_key(seed)
        artefact = store.find(key) if key else None
        assert artefact is not None
        found.append(load_arrays(artefact.folder / FIT_FILE)["position"].tolist())
    return found


def augmented(store: ArtefactStore, augmenter: str, seed: int = 0) -> Artefact:
    key = plan_group(smoke_group(augmenter=augmenter)).augmented_key(seed)
    artefact = store.find(key) if key else None
    assert artefact is not None
    return artefact


def checkpoints(store: ArtefactStore) -> list[Path]:
    return sorted((store.home / "checkpoints").glob("*"))


def test_missing_replicates_are_fitted_together_and_generate_one_by_one(
    run_smoke: RunSmoke, store: ArtefactStore, patient_log: Log, tmp_path: Path
) -> None:
    records = run_smoke(augmenter="patient", seeds=SEEDS)
    assert [record.status for record in records] == ["ok"] * 3
    assert patient_log() == ["fit of 3 from 0", "generate", "generate", "generate"]
    assert [record.timings["fit"].together for record in records] == [3, 3, 3]
    assert [record.timings["augmented"].together for record in records] == [1, 1, 1]
    together = positions(store)
    assert len({tuple(position) for position in together}) == 3
    assert positions(store, (1,)) == together[1:2]


def test_one_that_is_missing_alone_is_fitted_alone_and_equals_itself_beside_others(
    run_smoke: RunSmoke, store: ArtefactStore, origin: Origin, patient_log: Log, tmp_path: Path
) -> None:
    run_smoke(augmenter="patient", seeds=(0, 2))
    run_smoke(augmenter="patient", seeds=SEEDS)
    assert [line for line in patient_log() if "fit" in line] == ["fit of 2 from 0", "fit of 1 from 0"]
    other = ArtefactStore(tmp_path / "other")
    run_group(plan_group(smoke_group(augmenter="patient", seeds=SEEDS)), Context(store=other), origin, lambda r: None)
    assert positions(other) == positions(store)


def test_variants_and_learners_share_the_fit(run_smoke: RunSmoke, patient_log: Log) -> None:
    run_smoke(augmenter="patient")
    (record, _) = run_smoke(augmenter="patient[shift=1.0]")
    run_smoke(augmenter="patient", learner="bc50")
    assert [line for line in patient_log() if "fit" in line] == ["fit of 2 from 0"]
    assert record.timings["fit"].cached
    assert not record.timings["augmented"].cached


def test_two_runs_that_share_a_fit_neither_wait_for_ever_nor_fit_twice(
    store: ArtefactStore, origin: Origin, patient_log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATIENT_STEP_SECONDS", "0.02")
    records: list[RunRecord] = []
    groups = [
        smoke_group(augmenter="patient", seeds=(0, 1, 2)),
        smoke_group(augmenter="patient[shift=1.0]", seeds=(2, 1, 0)),
        smoke_group(augmenter="patient", learner="bc50", seeds=(1, 2)),
    ]
    runs = [
        threading.Thread(target=run_group, args=(plan_group(group), Context(store=store), origin, records.append))
        for group in groups
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join(timeout=60)
    assert not any(run.is_alive() for run in runs)
    assert [record.status for record in records] == ["ok"] * 8
    fitted = sum(int(line.split()[2]) for line in patient_log() if "fit" in line)
    assert (fitted, patient_log().count("generate")) == (3, 6)


def test_a_joint_fit_that_fails_fails_those_it_was_for(
    run_smoke: RunSmoke, patient_log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_smoke(augmenter="patient", seeds=(1,))
    monkeypatch.setenv("PATIENT_FAILS_AT", "5")
    records = run_smoke(augmenter="patient[shift=1.0]", seeds=SEEDS)
    assert [record.status for record in records] == ["oom", "ok", "oom"]  # replicate 1 has its fit
    failure = records[0].failure
    assert failure is not None
    assert failure.stage == "fit"
    assert "Out of memory (MemoryError: too far)" in failure.reason
    assert "--only seed=0" in failure.reason


def test_a_generation_that_fails_fails_itself_alone(
    run_smoke: RunSmoke, patient_log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_group(smoke_group(augmenter="patient"))
    method = plan.augmenter.method_class
    generate = method.generate

    def sometimes(self: object, data: OfflineDataset, run: Run) -> OfflineDataset:
        if run.seeds == (plan.augmentation_seed(1),):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.")
        return generate(self, data, run)  # type: ignore[arg-type]

    monkeypatch.setattr(method, "generate", sometimes)
    records = run_smoke(augmenter="patient", seeds=SEEDS)
    assert [(r.status, r.failure and r.failure.stage) for r in records] == [
        ("ok", None),
        ("oom", "augmented"),
        ("ok", None),
    ]


def test_a_fit_that_was_stopped_goes_on_and_ends_as_if_it_never_had_been(
    run_smoke: RunSmoke,
    store: ArtefactStore,
    origin: Origin,
    patient_log: Log,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    undisturbed = ArtefactStore(tmp_path / "undisturbed")
    plan = plan_group(smoke_group(augmenter="patient", seeds=SEEDS))
    run_group(plan, Context(store=undisturbed), origin, lambda record: None)
    monkeypatch.setenv("PATIENT_FAILS_AT", "7")
    records = run_smoke(checkpoint_seconds=0.0, augmenter="patient", seeds=SEEDS)
    assert [record.status for record in records] == ["oom"] * 3
    assert len(checkpoints(store)) == 1
    monkeypatch.delenv("PATIENT_FAILS_AT")
    records = run_smoke(augmenter="patient", seeds=SEEDS)
    assert [record.status for record in records] == ["ok"] * 3
    assert [line for line in patient_log() if "fit" in line][-1] == "fit of 3 from 7"
    assert records[0].timings["fit"].wall_seconds > 0.0
    assert positions(store) == positions(undisturbed)
    assert checkpoints(store) == []


def test_a_generation_that_was_stopped_goes_on_and_ends_as_if_it_never_had_been(
    run_smoke: RunSmoke, store: ArtefactStore, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "vae[rows_at_once=32]"
    emit, calls = TransitionModel.emit, [0]

    def killed(self: TransitionModel, tokens: Tensor, data: OfflineDataset) -> OfflineDataset:
        calls[0] += 1
        if calls[0] == 3:
            raise TimeoutError("stopped")
        return emit(self, tokens, data)

    with monkeypatch.context() as patched:
        patched.setattr(TransitionModel, "emit", killed)
        assert [record.status for record in run_smoke(augmenter=name, seeds=(0,))] == ["timeout"]
    file, folder = sorted(checkpoints(store), key=lambda path: path.is_dir())
    assert folder.is_dir()
    assert file == folder.with_suffix(".safetensors")

    def counted(self: TransitionModel, tokens: Tensor, data: OfflineDataset) -> OfflineDataset:
        calls[0] += 1
        return emit(self, tokens, data)

    monkeypatch.setattr(TransitionModel, "emit", counted)
    calls[0] = 0
    assert [record.status for record in run_smoke(augmenter=name, seeds=(0,))] == ["ok"]
    resumed, calls[0] = calls[0], 0
    assert checkpoints(store) == []
    other = ArtefactStore(tmp_path / "other")
    run_group(plan_group(smoke_group(augmenter=name, seeds=(0,))), Context(store=other), origin, lambda record: None)
    assert resumed == calls[0] - 2  # two chunks were kept
    task = plan_group(smoke_group(augmenter=name)).task
    first, second = (datasets.load(augmented(s, name).folder / DATA_FILE, task.spec) for s in (store, other))
    for column, values in first.columns().items():
        np.testing.assert_array_equal(values, second.columns()[column])


def test_what_the_fit_and_the_generation_tell_reaches_card_and_record(
    run_smoke: RunSmoke, store: ArtefactStore, patient_log: Log
) -> None:
    (record, _) = run_smoke(augmenter="patient")
    (restored, _) = run_smoke(augmenter="patient[shift=1.0]")
    told = record.augmenter_diagnosis
    assert told == {
        "distance": pytest.approx(float(np.abs(positions(store, (0,))).sum()), rel=1e-6),
        "loss": None,
        "acceptance_rate": 0.5,
        "seconds": {"fit": 2, "sampling": 3},
    }
    assert restored.augmenter_diagnosis == told
    for name in ("patient", "patient[shift=1.0]"):
        artefact = augmented(store, name)
        assert artefact.notes["diagnosis"] == told
        assert datasets.load_card(artefact.folder / DATA_FILE).augmentation == told
    (again, _) = run_smoke(augmenter="patient")  # from the stored evaluation alone
    assert again.augmenter_diagnosis == told


def test_protocol_settings_name_the_compute_of_a_diffusion_model_only_where_there_may_be_one(
    run_smoke: RunSmoke, patient_log: Log
) -> None:
    (trained, _), (plain, _) = run_smoke(augmenter="patient"), run_smoke()
    assert trained.protocol_settings["diffusion"]["width"] == 8
    assert "diffusion" not in plain.protocol_settings
    assert plain.augmenter_diagnosis == {}


def test_an_augmentation_that_vanishes_before_its_turn_is_made_again(
    store: ArtefactStore, origin: Origin, run_smoke: RunSmoke, patient_log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_smoke(augmenter="patient", seeds=(0,))
    monkeypatch.setattr(augmentation, "missing", lambda plan, seeds, context: [])  # it looked, then somebody pruned
    store.remove(augmented(store, "patient"))
    records = run_smoke(augmenter="patient", learner="bc50", seeds=(0,))
    assert records[0].status == "ok"
    assert patient_log() == ["fit of 1 from 0", "generate", "generate"]
