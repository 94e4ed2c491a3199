"""A battle through the command line: recorded, augmented, learned and played, with wins in the records."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

Start = Callable[..., "subprocess.Popen[str]"]


def test_a_battle_runs_from_recording_to_records(start: Start, tmp_path: Path) -> None:
    one = ("--only", "task=smac/3m", "--only", "augmenter=duplicate", "--only", "learner=qmix-cql")
    process = start("run", "--matrix", "smac-smoke", *one, "--jobs", "1", "--json")
    out, err = process.communicate(timeout=280)
    assert process.returncode == 0, err
    records = json.loads(out)["records"]  # the engine's package prints when it is imported
    assert len(records) == 2
    for found in (tmp_path / "results").rglob("seed-*.json"):
        record = json.loads(found.read_text())
        assert record["status"] == "ok"
        assert len(record["evaluation"]["won"]) == len(record["evaluation"]["returns"])
        assert all(0.0 <= value <= 20.001 for value in record["evaluation"]["returns"])
