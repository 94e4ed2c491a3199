"""Augmenters that train, through the command line: shared fits, what they tell, and fits that are killed."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from benchmark.records import RunRecord, read_records
from tests.forked import start_bench

Start = Callable[..., "subprocess.Popen[str]"]
SECONDS = 600  # for machines under load; each run takes well under a minute

MATRIX = """\
protocol: "{protocol}"
tasks: [mpe/spread]
datasets: [random]
augmenters: [{augmenter}]
learners: [bc]
replicates: 2
"""


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    return out


def matrix(folder: Path, augmenter: str, protocol: str = "smoke") -> str:
    path = folder / "mine.yaml"
    path.write_text(MATRIX.format(augmenter=augmenter, protocol=protocol))
    return str(path)


def files(home: Path, stage: str) -> dict[str, dict[str, Any]]:
    """The arrays of all artefacts of a stage, as bytes, by digest."""
    found = {}
    for path in sorted((home / "artefacts" / stage).rglob("*.safetensors")):
        found[path.parent.name] = {name: array.tobytes() for name, array in load_file(path).items()}
    return found


def saves(place: Path) -> set[int]:
    """When the checkpoints were written; one may go while they are counted."""
    found = set()
    for path in place.glob("*.safetensors"):
        with suppress(FileNotFoundError):
            found.add(path.stat().st_mtime_ns)
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for did not happen"
        time.sleep(0.01)


def test_variants_share_a_fit_and_records_hold_what_was_told(start: Start, tmp_path: Path) -> None:
    plan = json.loads(finish(start("plan", "--matrix", "diffusion-smoke", "--json")))
    assert plan["fits"] == {"missing": 5 * 2, "cells": 8 * 2}
    finish(start("run", "--matrix", "diffusion-smoke", "--executor", "inline", "--timeout", str(SECONDS), "--json"))
    records = {(r.cell.augmenter, r.cell.seed): r for r in read_records(tmp_path / "results")}
    assert [record.status for record in records.values()] == ["ok"] * 16
    assert len(files(tmp_path / "home", "fit")) == 10
    assert len(files(tmp_path / "home", "augmented")) == 16
    for record in records.values():
        require_told(record)
    assert records["madits-no-dc-pn", 0].timings["fit"] == made_ready(records["madits[delta=1000000.0]", 0])
    assert list((tmp_path / "home" / "checkpoints").iterdir()) == []


def test_augmenters_of_transitions_and_whole_episodes_run_from_end_to_end(start: Start, tmp_path: Path) -> None:
    plan = json.loads(finish(start("plan", "--matrix", "transitions-smoke", "--json")))
    assert plan["fits"] == {"missing": 2 * 6 * 2, "cells": 2 * 7 * 2}  # ins and ins-no-select are one fit
    finish(start("run", "--matrix", "transitions-smoke", "--executor", "inline", "--timeout", str(SECONDS), "--json"))
    records = list(read_records(tmp_path / "results"))
    assert [record.status for record in records] == ["ok"] * 28
    for record in records:
        told: Any = record.augmenter_diagnosis
        assert told["diverged"] is False
        assert record.dataset_summary["synthetic_share"] >= 0.5
        assert {"similarity", "dynamics_mse", "novelty", "oracle_reward"} <= record.quality.keys()
        assert (record.quality.get("attention_correlation") is not None) == record.cell.augmenter.startswith("ins")


def require_told(record: RunRecord) -> None:
    told: Any = record.augmenter_diagnosis
    assert told["heldout_denoising_loss"] > 0.0
    assert (told["compute"]["width"], told["compute"]["updates"]) == (8, 20)
    assert told["generation"]["acceptance_rate"] > 0.0
    assert told["generation"]["sampler"] == {"name": "ddim", "steps": 2}
    assert told["generation"]["seconds"]["sampling"] > 0.0
    assert record.quality["dire"] is not None
    assert record.quality_details["dire"]["original"] > 0.0  # type: ignore[operator]
    if record.cell.augmenter.startswith("madits"):
        assert record.quality["kendall_tau"] == record.quality_details["kendall_tau"]["tau_reward_sum"]
        assert {"tau_rtg", "tau_reward"} <= record.quality_details["kendall_tau"].keys()
    assert record.timings["fit"].together == 2
    assert record.protocol_settings["diffusion"]["updates"] == 20


def made_ready(record: RunRecord) -> Any:
    return record.timings["fit"].model_copy(update={"cached": True})


def test_a_killed_fit_goes_on_from_its_checkpoint(start: Start, tmp_path: Path) -> None:
    log, name = tmp_path / "log", matrix(tmp_path, "patient")
    saved = {"AUGMARL_CHECKPOINT_SECONDS": "0", "PATIENT_LOG": str(log)}
    process = start("run", "--matrix", name, PATIENT_STEP_SECONDS="0.3", **saved)
    wait_for(lambda: log.exists() and "saved 3" in log.read_text())
    process.kill()  # the driver; its worker dies with it
    process.communicate()
    assert len(list((tmp_path / "home" / "checkpoints").glob("*.safetensors"))) == 1
    finish(start("run", "--matrix", name, **saved))
    fits = [int(line.split()[-1]) for line in log.read_text().splitlines() if line.startswith("fit of 2")]
    assert fits[0] == 0
    assert 3 <= fits[1] < 20
    assert list((tmp_path / "home" / "checkpoints").iterdir()) == []
    finish(start("run", "--matrix", name, AUGMARL_HOME=str(tmp_path / "other"), AUGMARL_RESULTS=str(tmp_path / "r")))
    for stage in ("fit", "augmented"):
        assert files(tmp_path / "home", stage) == files(tmp_path / "other", stage)
    (record, _) = read_records(tmp_path / "results")
    assert record.timings["fit"].wall_seconds > 0.9  # three steps before the kill


@pytest.mark.slow
def test_a_killed_diffusion_model_ends_bit_identical(environment: dict[str, str], tmp_path: Path) -> None:
    name = matrix(tmp_path, "madiff", "smoke[diffusion_updates=150]")
    run = ("run", "--matrix", name, "--executor", "inline", "--checkpoint-seconds", "0")
    place, fits, kills = tmp_path / "home" / "checkpoints", tmp_path / "home" / "artefacts" / "fit", 0
    while kills < 3 and not list(fits.rglob("fit.safetensors")):
        before = saves(place)
        process = start_bench(run, environment)
        wait_for(lambda: not process.is_alive() or saves(place) != before)  # noqa: B023  # called at once
        time.sleep(0.3 * kills)
        process.kill()
        process.join()
        kills += 1
    assert kills > 1
    undisturbed = {"AUGMARL_HOME": str(tmp_path / "other"), "AUGMARL_RESULTS": str(tmp_path / "r")}
    for variables in ({}, undisturbed):
        process = start_bench(run, {**environment, **variables})
        process.join(timeout=SECONDS)
        assert process.exitcode == 0
    for stage in ("fit", "augmented"):
        assert files(tmp_path / "home", stage) == files(tmp_path / "other", stage)
