"""SIGKILL at random moments, twenty times: no record is lost, half-written or there twice."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.forked import start_bench

KILLS = 20
MATRIX = """\
protocol: smoke
tasks: [mpe/spread]
datasets: [random, "random[fraction=0.5]"]
augmenters: [original, duplicate, rad-s, more-real-data]
learners: [bc, bc50]
replicates: 2
"""
TOLERANCE = 1e-3  # a replicate that was alone after a kill trains in another batch shape


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_gives_the_records_of_an_undisturbed_one(tmp_path: Path) -> None:
    matrix = tmp_path / "mine.yaml"
    matrix.write_text(MATRIX)
    assert undisturbed(start(matrix, tmp_path / "undisturbed"))
    expected = records(tmp_path / "undisturbed")
    assert len(expected) == 2 * 4 * 2 * 2

    # The executor `inline` does all work in the one process that is killed, so a kill can hit any stage.
    moments, kills, rounds = np.random.default_rng(0), 0, 0
    while kills < KILLS:
        folder = tmp_path / f"round-{rounds}"
        process = start(matrix, folder)
        if killed(process, folder, moments.uniform(0.0, 0.25)):
            kills += 1
            records(folder)  # whatever is there is whole
        else:
            assert process.exitcode == 0
            compare(records(folder), expected)
            rounds += 1
    assert undisturbed(start(matrix, folder))
    compare(records(folder), expected)


def start(matrix: Path, folder: Path) -> ForkServerProcess:
    environment = {"AUGMARL_HOME": str(folder / "home"), "AUGMARL_RESULTS": str(folder / "results")}
    return start_bench(("run", "--matrix", str(matrix), "--executor", "inline"), environment)


def undisturbed(process: ForkServerProcess) -> bool:
    """Waits for its end; whether it went well."""
    process.join(timeout=120)
    return process.exitcode == 0


def killed(process: ForkServerProcess, folder: Path, after: float) -> bool:
    """Kills the process so long after it first wrote something; False if it was done before."""
    before = writes(folder)
    while process.is_alive() and writes(folder) == before:
        time.sleep(0.02)  # looking costs the other process time
    deadline = time.monotonic() + after
    while process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.001)
    process.kill()
    process.join(timeout=10)
    return process.exitcode == -signal.SIGKILL


def writes(folder: Path) -> int:
    """Entries below the folder; drafts may vanish while they are counted, which `os.walk` passes over."""
    return sum(len(folders) + len(files) for _, folders, files in os.walk(folder))


def records(folder: Path) -> dict[str, Any]:
    """All records by their path, without what may differ from run to run."""
    found = {}
    for path in sorted((folder / "results").rglob("seed-*.json")):
        document = json.loads(path.read_bytes())
        del document["provenance"], document["timings"]
        # Somebody may edit the checkout while this runs, which moves the digests of the source.
        del document["augmenter"]["source_digest"], document["learner"]["source_digest"]
        found[str(path.relative_to(folder))] = document
    return found


def compare(found: Any, expected: Any, where: str = "records") -> None:
    """Equal, up to float error in numbers."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            compare(found[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for i, (one, other) in enumerate(zip(found, expected, strict=True)):
            compare(one, other, f"{where}[{i}]")
    elif isinstance(expected, float):
        assert math.isclose(found, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE), (where, found, expected)
    else:
        assert found == expected, where
