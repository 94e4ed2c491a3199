from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from benchmark.artefacts import ArtefactStore
from benchmark.cells import CellGroup
from benchmark.driver import Limits, RunSummary, run_plan
from benchmark.executors.base import Ended, Event, Job, Recorded, Started
from benchmark.executors.inline import InlineExecutor
from benchmark.folders import CHECKOUT
from benchmark.planning import RunPlan, make_run_plan
from benchmark.provenance import Origin
from benchmark.records import read_record, read_records, write_record
from tasks.common.errors import RecordError, StorageError, UsageError
from tests.unit.benchmark.conftest import smoke_group


class Fixed:
    """An executor whose jobs end as they are told to."""

    def __init__(self, *ends: Ended) -> None:
        self.ends, self.closed = ends, False
        self.jobs: list[Job] = []

    def run(self, jobs: Sequence[Job]) -> Iterator[Event]:
        self.jobs = list(jobs)
        try:
            for job, end in zip(jobs, self.ends, strict=False):
                yield Started(job)
                yield Ended(job, end.kind, end.stage, end.reason, end.log_tail)
        finally:
            self.closed = True


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


def planned(store: ArtefactStore, results: Path, *groups: CellGroup, **options: bool) -> RunPlan:
    return make_run_plan(groups or (smoke_group(),), store=store, results=results, **options)


def drive(plan: RunPlan, store: ArtefactStore, results: Path, origin: Origin, executor: object = None) -> RunSummary:
    return run_plan(
        plan,
        executor or InlineExecutor(),  # type: ignore[arg-type]
        home=store.home,
        results=results,
        origin=origin,
        limits=Limits(),
    )


def end(kind: str, reason: str = "", stage: str = "policy") -> Ended:
    return Ended(None, kind, stage, reason, ("last line",))  # type: ignore[arg-type]  # the job is put in by Fixed


def test_a_run_writes_one_record_a_cell_and_then_has_nothing_left(
    store: ArtefactStore, results: Path, origin: Origin
) -> None:
    plan = planned(store, results)
    assert plan.summary() == "2 cells: 0 cached, 2 to run, 0 skipped"
    assert drive(plan, store, results, origin).failed == 0
    assert [record.cell.seed for record in read_records(results)] == [0, 1]
    assert planned(store, results).summary() == "2 cells: 2 cached, 0 to run, 0 skipped"


def test_only_the_missing_replicates_run(store: ArtefactStore, results: Path, origin: Origin) -> None:
    drive(planned(store, results), store, results, origin)
    plan = planned(store, results, smoke_group(seeds=(0, 1, 2)))
    assert plan.groups[0].seeds("run") == (2,)
    assert [record.cell.seed for record in drive(plan, store, results, origin).records] == [2]


@pytest.mark.parametrize(
    ("kind", "status"), [("crashed", "failed"), ("timeout", "timeout"), ("oom", "oom"), ("done", "failed")]
)
def test_what_a_worker_leaves_undone_becomes_rows_with_the_reason(
    store: ArtefactStore, results: Path, origin: Origin, kind: str, status: str
) -> None:
    executor = Fixed(end(kind, "because"), end(kind))
    summary = drive(
        planned(store, results, smoke_group(), smoke_group(learner="bc50")), store, results, origin, executor
    )
    assert summary.failed == 4
    record = read_record(smoke_group().cell(1).path(results))
    assert record.status == status
    assert record.failure is not None
    assert (record.failure.stage, record.failure.reason, record.failure.log_tail) == (
        "policy",
        "because",
        ["last line"],
    )
    assert executor.closed


def test_failed_cells_run_again_unless_told_otherwise(store: ArtefactStore, results: Path, origin: Origin) -> None:
    drive(planned(store, results), store, results, origin, Fixed(end("timeout", "slow")))
    assert planned(store, results, retry=False).count("run") == 0
    plan = planned(store, results)
    assert plan.groups[0].cells[0].reason == "timeout last time"
    drive(plan, store, results, origin)
    assert planned(store, results).count("cached") == 2


def test_force_runs_all_again_from_the_stored_artefacts(store: ArtefactStore, results: Path, origin: Origin) -> None:
    drive(planned(store, results), store, results, origin)
    plan = planned(store, results, force=True)
    assert plan.count("run") == 2
    summary = drive(plan, store, results, origin)
    assert all(timing.cached for record in summary.records for timing in record.timings.values())


def test_a_record_of_other_keys_is_run_again(store: ArtefactStore, results: Path, origin: Origin) -> None:
    drive(planned(store, results), store, results, origin)
    path = smoke_group().cell(0).path(results)
    record = read_record(path)
    artefacts = record.artefacts.model_copy(update={"evaluation": "0" * 64})
    write_record(record.model_copy(update={"artefacts": artefacts}), results)
    plan = planned(store, results)
    assert plan.groups[0].seeds("run") == (0,)
    assert "has changed" in plan.groups[0].cells[0].reason


def test_a_fatal_end_stops_the_run_and_keeps_what_is_done(store: ArtefactStore, results: Path, origin: Origin) -> None:
    class FirstThenFull(Fixed):
        def run(self, jobs: Sequence[Job]) -> Iterator[Event]:
            yield from InlineExecutor().run(jobs[:1])
            yield Started(jobs[1])
            yield Ended(jobs[1], "fatal", reason="No space left")
            pytest.fail("the driver went on")

    plan = planned(store, results, smoke_group(), smoke_group(learner="bc50"))
    with pytest.raises(StorageError, match="No space left"):
        drive(plan, store, results, origin, FirstThenFull())
    assert len(list(read_records(results))) == 2
    assert planned(store, results, smoke_group(), smoke_group(learner="bc50")).count("run") == 2


def test_a_record_that_cannot_be_written_stops_the_run(
    store: ArtefactStore, results: Path, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(store, results)
    results.parent.mkdir(exist_ok=True)
    results.write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="Could not write"):
        drive(plan, store, results, origin)


def test_undefined_combinations_are_recorded_once_and_run_nothing(
    store: ArtefactStore, results: Path, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = planned(store, results).groups[0].plan.learner.method_class
    monkeypatch.setattr(method, "unsupported", classmethod(lambda cls, spec: "not here"))
    plan = planned(store, results)
    assert [cell.reason for cell in plan.groups[0].cells] == ["unsupported: bc: not here"] * 2
    executor = Fixed()
    summary = drive(plan, store, results, origin, executor)
    assert (summary.count("unsupported"), summary.failed, executor.jobs) == (2, 0, [])
    assert drive(planned(store, results), store, results, origin, Fixed()).records == []


def test_exclusions_are_skipped_without_a_record(store: ArtefactStore, results: Path, origin: Origin) -> None:
    plan = make_run_plan([smoke_group()], store=store, results=results, exclusion_of=lambda group: "too slow")
    assert [cell.reason for cell in plan.groups[0].cells] == ["excluded: too slow"] * 2
    assert drive(plan, store, results, origin, Fixed()).records == []


def test_a_changed_source_under_the_same_version_is_a_warning(
    store: ArtefactStore, results: Path, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive(planned(store, results), store, results, origin)
    assert planned(store, results).warnings == ()
    monkeypatch.setattr("benchmark.choices.source_digest", lambda module: "changed")
    warnings = planned(store, results).warnings
    assert [warning.split(":")[0] for warning in warnings] == ["bc", "rad-s"]
    assert "raise `version`" in warnings[0]


def test_a_record_from_a_newer_version_is_refused_and_left_alone(
    store: ArtefactStore, results: Path, origin: Origin
) -> None:
    drive(planned(store, results), store, results, origin)
    path = smoke_group().cell(0).path(results)
    newer = path.read_text().replace('"schema_version": 1', '"schema_version": 99')
    path.write_text(newer)
    with pytest.raises(RecordError, match="schema 99"):
        planned(store, results)
    assert path.read_text() == newer


def test_devices_are_dealt_in_turn(store: ArtefactStore, results: Path, origin: Origin) -> None:
    executor = Fixed(end("crashed"), end("crashed"), end("crashed"))
    groups = [smoke_group(augmenter=name) for name in ("original", "noise", "rad-s")]
    run_plan(
        planned(store, results, *groups),
        executor,
        home=store.home,
        results=results,
        origin=origin,
        limits=Limits(devices=("cuda:0", "cuda:1"), timeout_seconds=5, memory_limit_bytes=7),
    )
    assert [job.device for job in executor.jobs] == ["cuda:0", "cuda:1", "cuda:0"]
    assert {(job.timeout_seconds, job.memory_limit_bytes) for job in executor.jobs} == {(5, 7)}


def test_unknown_parameters_stop_the_plan(store: ArtefactStore, results: Path) -> None:
    with pytest.raises(UsageError, match="lo"):
        planned(store, results, smoke_group(augmenter="rad-s[lo=1]"))


def test_watchers_see_records_of_lost_replicates_too(store: ArtefactStore, results: Path, origin: Origin) -> None:
    seen: list[Event] = []
    run_plan(
        planned(store, results),
        Fixed(end("crashed", "because")),
        home=store.home,
        results=results,
        origin=origin,
        limits=Limits(),
        watch=seen.append,
    )
    assert sum(isinstance(event, Recorded) for event in seen) == 2


def test_a_watcher_hears_of_lost_records_before_their_job_ends(
    store: ArtefactStore, results: Path, origin: Origin
) -> None:
    heard: list[str] = []
    run_plan(
        planned(store, results),
        Fixed(end("crashed", "boom")),
        home=store.home,
        results=results,
        origin=origin,
        limits=Limits(),
        watch=lambda event: heard.append(type(event).__name__),
    )
    assert heard == ["Started", "Recorded", "Recorded", "Ended"]


def test_what_a_method_says_is_cut_and_made_printable(store: ArtefactStore, results: Path, origin: Origin) -> None:
    summary = drive(planned(store, results), store, results, origin, Fixed(end("crashed", "\udcff" + "x" * 100_000)))
    (first, *_) = summary.records
    assert first.failure is not None
    assert first.failure.reason.startswith("\\udcffxxx")
    assert len(first.failure.reason) < 5_000
    assert read_record(first.cell.path(results)) == first


def test_records_do_not_tell_where_the_checkout_and_the_user_are(
    store: ArtefactStore, results: Path, origin: Origin
) -> None:
    said = f'File "{CHECKOUT / "benchmark" / "pipeline.py"}", and {Path.home() / "notes"}'
    (first, *_) = drive(planned(store, results), store, results, origin, Fixed(end("crashed", said))).records
    assert first.failure is not None
    assert first.failure.reason == 'File "benchmark/pipeline.py", and ~/notes'
