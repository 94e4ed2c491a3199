"""A battle through the command line: recorded, augmented, learned and played, with wins in the records."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

Start = Callable[..., "subprocess.Popen[str]"]

MATRIX = """\
protocol: smoke
tasks: [smac/3m]
datasets: [random]
augmenters: [mastars-lov]
learners: [qmix-cql]
replicates: 1
"""


def test_a_battle_runs_from_recording_to_records(start: Start, tmp_path: Path) -> None:
    if find_spec("jaxmarl") is None:
        pytest.skip("needs the extra smax")
    path = tmp_path / "battle.yaml"
    path.write_text(MATRIX)
    process = start("run", "--matrix", str(path), "--jobs", "2", "--json")
    out, err = process.communicate(timeout=280)
    assert process.returncode == 0, err
    records = json.loads(out)["records"]  # the engine's package prints when it is imported
    assert len(records) == 1
    for found in (tmp_path / "results").rglob("seed-0.json"):
        record = json.loads(found.read_text())
        assert record["status"] == "ok"
        assert len(record["evaluation"]["won"]) == len(record["evaluation"]["returns"])
        assert all(0.0 <= value <= 20.001 for value in record["evaluation"]["returns"])
