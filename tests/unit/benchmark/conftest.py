"""A small run in this process: the real stages, at smoke size, without a worker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmark.artefacts import ArtefactStore
from benchmark.cells import CellGroup
from benchmark.cli import main
from benchmark.pipeline import run_group
from benchmark.plans import plan_group
from benchmark.provenance import Origin, take_origin
from benchmark.records import RunRecord
from benchmark.stages.context import Context

MISBEHAVING = Path(__file__).parents[2] / "plugins" / "misbehaving"
PATIENT = MISBEHAVING.with_name("patient")


@pytest.fixture(scope="session")
def origin() -> Origin:
    return take_origin(threads=1)


@pytest.fixture
def store(tmp_path: Path) -> ArtefactStore:
    return ArtefactStore(tmp_path / "home")


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUGMARL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AUGMARL_RESULTS", str(tmp_path / "results"))


@pytest.fixture
def misbehaving(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers the methods that break their contract, as an installed package would."""
    from methods.augmenters import AUGMENTERS
    from methods.learners import LEARNERS

    monkeypatch.syspath_prepend(str(MISBEHAVING))
    monkeypatch.setattr(AUGMENTERS, "_plugins", None)
    monkeypatch.setattr(LEARNERS, "_plugins", None)


@pytest.fixture
def patient_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], list[str]]:
    """Registers `patient`, whose fit is long and keeps checkpoints, and returns what it has done so far."""
    from methods.augmenters import AUGMENTERS

    monkeypatch.syspath_prepend(str(PATIENT))
    monkeypatch.setattr(AUGMENTERS, "_plugins", None)
    log = tmp_path / "patient.log"
    monkeypatch.setenv("PATIENT_LOG", str(log))
    return lambda: log.read_text().splitlines() if log.exists() else []


def smoke_group(**axes: str | tuple[int, ...]) -> CellGroup:
    """A cell group that needs no shipped policy and takes a tenth of a second."""
    group = {
        "protocol": "smoke",
        "task": "mpe/spread",
        "dataset": "random",
        "augmenter": "rad-s",
        "learner": "bc",
        "seeds": (0, 1),
    }
    return CellGroup(**{**group, **axes})  # type: ignore[arg-type]


RunSmoke = Callable[..., list[RunRecord]]


@pytest.fixture
def run_smoke(store: ArtefactStore, origin: Origin) -> RunSmoke:
    """Runs a smoke group with other names on some axes, and returns its records by seed."""

    def run(checkpoint_seconds: float = 60.0, **axes: str | tuple[int, ...]) -> list[RunRecord]:
        records: list[RunRecord] = []
        context = Context(store=store, checkpoint_seconds=checkpoint_seconds)
        run_group(plan_group(smoke_group(**axes)), context, origin, records.append)
        return sorted(records, key=lambda record: record.cell.seed)

    return run


Bench = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str]) -> Bench:
    """Runs a command: exit code, standard output, standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
