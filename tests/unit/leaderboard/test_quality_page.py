from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from factory import Suite, change, write

from benchmark.quality import METRICS
from benchmark.records import RunRecord
from leaderboard import site
from leaderboard.pages.quality import COLUMNS, quality_rows, significant, told
from leaderboard.scores import group

SUITE = Suite(tasks=("mpe/spread",), datasets=("exp-m",), seeds=2)


def measured() -> list[RunRecord]:
    """Replicate k of rad-s has dynamics error 0.02 + 0.02 k; the learners of a replicate share its data."""
    records = []
    for record in SUITE.records():
        if record.cell.augmenter == "rad-s":
            seed = record.cell.seed
            quality = {"dynamics_mse": 0.02 + 0.02 * seed, "dire": None, "similarity": 0.99 if seed == 0 else None}
            details: Any = {"dire": {"original": 0.5, "ratio": 2.0 + seed}}
            diagnosis = {
                "diverged": False,
                "heldout_denoising_loss": 0.1,
                "generation": {"acceptance_rate": 0.5 + 0.25 * seed},
            }
            record = change(record, quality=quality, quality_details=details, augmenter_diagnosis=diagnosis)
        records.append(record)
    return records


def test_every_metric_has_a_column() -> None:
    assert tuple(COLUMNS)[: len(METRICS)] == METRICS


def test_means_are_over_synthetic_sets_not_over_runs() -> None:
    (board,) = group(measured())
    (row,) = quality_rows(board)  # nobody else was measured
    assert (row.augmenter, row.n, row.control) == ("rad-s", 2, False)
    assert row.means["dynamics_mse"] == pytest.approx(0.03)
    assert row.means["similarity"] == pytest.approx(0.99)  # of the one set that has it
    assert row.means["dire"] is None
    assert row.means["acceptance_rate"] == pytest.approx(0.625)
    assert row.means["heldout_denoising_loss"] == pytest.approx(0.1)
    assert row.means["dire_ratio"] == pytest.approx(2.5)


def test_without_a_filter_nothing_was_accepted_or_refused() -> None:
    (record, *_) = [r for r in measured() if r.cell.augmenter == "rad-s"]
    generation = {"acceptance_rate": 1.0, "threshold_kind": "none"}
    assert told(change(record, augmenter_diagnosis={"generation": generation}))["acceptance_rate"] is None
    assert told(change(record, augmenter_diagnosis={"generation": {**generation, "threshold_kind": "fixed"}}))[
        "acceptance_rate"
    ] == pytest.approx(1.0)


def test_the_page_and_its_files_say_the_same(tmp_path: Path) -> None:
    built = site.build(write(measured(), tmp_path), tmp_path / "site")
    folder = tmp_path / "site" / built.boards[0].key.slug
    page = (folder / "quality.html").read_text()
    assert ">0.03</td>" in page
    assert "DIRE<" not in page  # no value anywhere: no column
    (line,) = csv.DictReader((folder / "quality.csv").read_text().splitlines())
    assert (line["augmenter"], line["n"], line["dire"]) == ("rad-s", "2", "")
    (row,) = json.loads((folder / "quality.json").read_text())
    assert float(line["dynamics_mse"]) == row["means"]["dynamics_mse"]


def test_a_board_without_measured_data_says_so(tmp_path: Path) -> None:
    built = site.build(write(SUITE.records(), tmp_path), tmp_path / "site")
    folder = tmp_path / "site" / built.boards[0].key.slug
    assert "No record of this board has measured its data" in (folder / "quality.html").read_text()
    assert 'href="quality.html"' in (folder / "index.html").read_text()


def test_numbers_of_any_size() -> None:
    sizes = [None, 0.0, 1.2345e-15, 0.08123, -0.31415, 48.678, 1216.9, 1e7]
    assert list(map(significant, sizes)) == ["–", "0", "1.23e−15", "0.0812", "−0.314", "48.7", "1217", "1e+07"]
