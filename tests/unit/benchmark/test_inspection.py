"""`bench data inspect` of augmented data, through the command line, on a smoke run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from benchmark.artefacts import ArtefactStore
from benchmark.cli.augmented_text import print_augmented
from benchmark.cli.data import app
from benchmark.pictures.trajectories import extent, pairs
from benchmark.quality import QUALITY_FILE
from benchmark.records import RunRecord
from tasks.common.errors import DataError, UsageError
from tests.unit.benchmark.conftest import RunSmoke

CELL = "smoke/mpe/spread/random/rad-s/bc/seed-0"


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def ran(run_smoke: RunSmoke) -> RunRecord:
    return run_smoke(seeds=(0,))[0]


@pytest.fixture
def data_file(ran: RunRecord, store: ArtefactStore) -> Path:
    digest = ran.artefacts.augmented
    assert digest is not None
    found = store.find_digest("augmented", digest)
    assert found is not None
    return found.folder / "data.safetensors"


def inspect(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["inspect", *arguments])


def test_a_run_keeps_the_quality_of_its_data(ran: RunRecord, data_file: Path) -> None:
    stored = json.loads((data_file.parent / QUALITY_FILE).read_text())
    assert {name: metric["value"] for name, metric in stored["metrics"].items()} == ran.quality
    assert ran.quality["dynamics_mse"] is not None
    assert ran.quality_details["mean_return"]["original"] == stored["metrics"]["mean_return"]["original"]
    assert "dire" not in ran.quality_details  # nothing is known of what is undefined
    assert ran.quality["dire"] is None
    assert stored["metrics"]["dire"]["reason"] == "the method has no diffusion model of the original data"
    assert stored["augmenter"] == "rad-s"


def test_the_original_alone_has_no_quality(run_smoke: RunSmoke) -> None:
    assert run_smoke(augmenter="original", seeds=(0,))[0].quality == {}


def test_by_cell_and_by_file_shows_the_same(ran: RunRecord, data_file: Path) -> None:
    by_cell, by_file = (inspect(target, "--json") for target in (CELL, str(data_file)))
    assert by_cell.exit_code == by_file.exit_code == 0
    document = json.loads(by_cell.stdout)
    assert document == json.loads(by_file.stdout)
    assert document["augmenter"] == "rad-s"
    assert document["episodes"] == 16
    assert {name: metric["value"] for name, metric in document["quality"]["metrics"].items()} == ran.quality
    assert Path(document["original_path"]).is_file()


def test_text_names_every_metric_and_why_one_is_missing(ran: RunRecord) -> None:
    shown = inspect(CELL)
    assert shown.exit_code == 0, shown.output
    for expected in (*ran.quality, "assigns no credit", "original: random", "Team return of an episode"):
        assert expected in shown.output


def test_the_picture_is_the_same_every_time(ran: RunRecord, tmp_path: Path) -> None:
    for name in ("first.png", "second.png"):
        assert inspect(CELL, "--plot", str(tmp_path / name)).exit_code == 0
    first = (tmp_path / "first.png").read_bytes()
    assert first.startswith(b"\x89PNG")
    assert first == (tmp_path / "second.png").read_bytes()


def test_data_from_before_quality_was_measured_are_measured_now(ran: RunRecord, data_file: Path) -> None:
    (data_file.parent / QUALITY_FILE).unlink()
    document = json.loads(inspect(CELL, "--json").stdout)
    metrics = document["quality"]["metrics"]
    assert metrics["dynamics_mse"]["value"] == pytest.approx(ran.quality["dynamics_mse"])
    assert metrics["kendall_tau"]["reason"] == "the fitted augmenter is not at hand"


def test_a_copied_file_does_not_know_its_original(data_file: Path, tmp_path: Path) -> None:
    for suffix in (".safetensors", ".json"):
        shutil.copy(data_file.with_suffix(suffix), tmp_path / f"copy{suffix}")
    result = inspect(str(tmp_path / "copy.safetensors"))
    assert isinstance(result.exception, DataError)
    assert "no meta.json beside it says from which data" in str(result.exception)


def test_a_missing_original_is_named(ran: RunRecord, store: ArtefactStore) -> None:
    found = store.find_digest("dataset", ran.artefacts.dataset)
    assert found is not None
    store.remove(found)
    result = inspect(CELL)
    assert isinstance(result.exception, DataError)
    assert "(mpe/spread random) are no longer stored" in str(result.exception)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("smoke/mpe/spread/random/rad-s/bc/seed-7", "are not stored under"),
        ("smoke/mpe/spread/random/original/bc/seed-0", "original adds no data"),
        ("mpe/spread/random/seed-0", "is no cell"),
    ],
)
def test_cells_without_augmented_data_say_why(ran: RunRecord, cell: str, message: str) -> None:
    result = inspect(cell)
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)


def test_generated_episodes_stand_behind_the_original_that_starts_alike(ran: RunRecord, data_file: Path) -> None:
    from benchmark.augmented import of_file

    augmented = of_file(data_file)
    copies = augmented.original.take([3, 0, 7, 5])
    for real, made in pairs(augmented.task, augmented.original, copies, 4):
        assert real.team_return == pytest.approx(made.team_return)
        assert np.array_equal(real.scene.agents[0].position, made.scene.agents[0].position)
        assert extent((real, made)) >= 1.04


def test_what_the_generation_told_is_shown(ran: RunRecord, data_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dataclasses import replace

    from benchmark.augmented import of_file

    told: dict[str, Any] = {
        "heldout_denoising_loss": 0.0625,
        "seconds": {"denoiser": 12.5},
        "generation": {
            "windows": 40,
            "accepted": 30,
            "acceptance_rate": 0.75,
            "rejected": {"dynamics": 10},
            "acceptance_by_position": [1.0, None, 0.5],
            "threshold": 0.01,
            "threshold_kind": "fixed",
            "calibrated_threshold": 0.02,
            "seconds": {"sampling": 3.0},
            "sampler": {"name": "ddim", "steps": 10},
            "regenerated_share": 0.44,
        },
    }
    print_augmented(replace(of_file(data_file), diagnosis=told))
    shown = capsys.readouterr().out
    for expected in (
        "40, accepted 30 (75.0%)",
        "0.01 (fixed), calibrated 0.02",
        "dynamics 10",
        "sampling 3.0",
        "name ddim  steps 10",
        "regenerated share",
        "0.44",
        "heldout denoising loss",
        "0.0625",
        "denoiser 12.5",
        "50%",
    ):
        assert expected in shown
