"""What goes wrong in a group ends as rows, or ends the run; and two runs that meet."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from benchmark.artefacts import ArtefactStore
from benchmark.pipeline import run_group
from benchmark.plans import plan_group
from benchmark.provenance import Origin
from benchmark.records import RunRecord
from benchmark.stages.context import Context
from methods.base import Run
from tasks.common.errors import StorageError
from tasks.datasets.offline import OfflineDataset
from tests.unit.benchmark.conftest import RunSmoke, smoke_group


@pytest.mark.parametrize(
    ("axes", "status", "stage", "reason"),
    [
        ({"augmenter": "bad-raises"}, "failed", "augmented", "RuntimeError: the plugin fell over"),
        ({"augmenter": "bad-nan"}, "failed", "augmented", "'observations' are not finite"),
        ({"augmenter": "bad-shape"}, "failed", "augmented", "observations"),
        ({"augmenter": "bad-dtype"}, "failed", "augmented", "rewards"),
        ({"augmenter": "bad-range"}, "failed", "augmented", "'actions' are not in"),
        ({"augmenter": "bad-type"}, "failed", "augmented", "returned a NoneType"),
        ({"augmenter": "bad-amount", "protocol": "smoke[amount_ratio=2]"}, "failed", "augmented", "asks for 800"),
        ({"augmenter": "bad-writes"}, "failed", "augmented", "read-only"),
        ({"learner": "bad-learner-raises"}, "failed", "policy", "the plugin fell over"),
        ({"learner": "bad-learner-diverges"}, "diverged", "policy", "not finite"),
        ({"learner": "bad-learner-nan"}, "diverged", "policy", "not finite"),
        ({"learner": "bad-learner-shape"}, "failed", "evaluation", "shape"),
        ({"learner": "bad-learner-range"}, "failed", "evaluation", "not in [-1.0, 1.0]"),
    ],
)
def test_a_method_that_breaks_its_contract_is_a_row_with_its_reason(
    run_smoke: RunSmoke,
    store: ArtefactStore,
    misbehaving: None,
    axes: dict[str, str],
    status: str,
    stage: str,
    reason: str,
) -> None:
    records = run_smoke(**axes)
    assert [record.status for record in records] == [status, status]
    failure = records[0].failure
    assert failure is not None
    assert failure.stage == stage
    assert reason in failure.reason
    assert records[0].scores == {}
    assert records[0].evaluation is None
    if stage == "augmented":
        assert list(store.stored("augmented")) == []
        assert any("Traceback" in line or "Error" in line for line in failure.log_tail)


def test_one_replicate_that_fails_leaves_the_others_alone(run_smoke: RunSmoke, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_group(smoke_group())
    method = plan.augmenter.method_class
    generate = method.generate

    def sometimes(self: object, data: OfflineDataset, run: Run) -> OfflineDataset:
        if run.seeds == (plan.augmentation_seed(1),):
            raise MemoryError("too large")
        return generate(self, data, run)  # type: ignore[arg-type]

    monkeypatch.setattr(method, "generate", sometimes)
    records = run_smoke(seeds=(0, 1, 2))
    assert [record.status for record in records] == ["ok", "oom", "ok"]


def test_an_undefined_combination_is_unsupported(run_smoke: RunSmoke, monkeypatch: pytest.MonkeyPatch) -> None:
    method = plan_group(smoke_group()).learner.method_class
    monkeypatch.setattr(method, "unsupported", classmethod(lambda cls, spec: "not here"))
    records = run_smoke()
    assert [(r.status, r.failure and r.failure.reason) for r in records] == [("unsupported", "bc: not here")] * 2


def test_a_deadline_ends_as_a_timeout(store: ArtefactStore, origin: Origin) -> None:
    records: list[RunRecord] = []
    run_group(plan_group(smoke_group()), Context(store=store, deadline=0.0), origin, records.append)
    assert [record.status for record in records] == ["timeout", "timeout"]
    assert records[0].failure is not None
    assert records[0].failure.stage == "policy"


def test_a_full_disk_ends_the_run_and_is_no_record(
    store: ArtefactStore, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    records: list[RunRecord] = []
    with pytest.raises(StorageError, match="No space left"):
        run_group(plan_group(smoke_group()), Context(store=store), origin, records.append)
    assert records == []
    assert list(store.root.rglob("*.safetensors")) == []


def test_a_missing_behaviour_policy_is_a_row_with_the_command_that_trains_it(
    run_smoke: RunSmoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tasks.mpe.task.CHECKPOINTS", tmp_path)
    monkeypatch.setattr("tasks.mpe.task.MPETask.checkpoint", lambda self, level, root=tmp_path: tmp_path / level)
    records = run_smoke(dataset="exp")
    assert [record.status for record in records] == ["failed", "failed"]
    assert records[0].failure is not None
    assert "bench policy train" in records[0].failure.reason


def test_two_runs_of_one_group_at_once_do_its_work_once(
    store: ArtefactStore, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmark.stages import evaluations

    evaluated: list[int] = []
    real = evaluations._evaluate

    def slow(*arguments: Any) -> Any:
        evaluated.append(1)
        time.sleep(0.5)
        return real(*arguments)

    monkeypatch.setattr(evaluations, "_evaluate", slow)
    records: list[RunRecord] = []
    runs = [
        threading.Thread(
            target=run_group, args=(plan_group(smoke_group()), Context(store=store), origin, records.append)
        )
        for _ in range(2)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert [record.status for record in records] == ["ok"] * 4
    assert len(evaluated) == 1
