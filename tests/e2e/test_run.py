"""Whole runs with real workers. One process start costs seconds, so each test asks for as much as it can."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from benchmark.records import RunRecord, read_records

Start = Callable[..., "subprocess.Popen[str]"]

MATRIX = """\
protocol: smoke
tasks: [mpe/spread]
datasets: [random]
augmenters: [{augmenters}]
learners: [bc]
replicates: {replicates}
"""


def matrix(folder: Path, *augmenters: str, replicates: int = 1) -> str:
    path = folder / "mine.yaml"
    path.write_text(MATRIX.format(augmenters=", ".join(augmenters), replicates=replicates))
    return str(path)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def by_augmenter(results: Path) -> dict[str, RunRecord]:
    return {record.cell.augmenter: record for record in read_records(results)}


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for did not happen"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_the_smoke_matrix_runs_resumes_and_prints_one_document(start: Start, tmp_path: Path) -> None:
    code, out, err = finish(start("run", "--matrix", "smoke", "--jobs", "2", "--json"))
    assert (code, err.count("done in")) == (0, 2)
    document = json.loads(out)
    assert [record["status"] for record in document["records"]] == ["ok"] * 4
    before = {path: path.read_bytes() for path in (tmp_path / "results").rglob("*.json")}
    code, out, _ = finish(start("run", "--matrix", "smoke", "--json"))
    assert (code, json.loads(out)["cached"], json.loads(out)["written"]) == (0, 4, 0)
    assert {path: path.read_bytes() for path in (tmp_path / "results").rglob("*.json")} == before


def test_methods_that_take_their_process_with_them_are_rows_and_the_others_go_on(start: Start, tmp_path: Path) -> None:
    name = matrix(tmp_path, "violent-segfaults", "violent-hoards", "original")
    code, _, err = finish(start("run", "--matrix", name, "--jobs", "2", "--memory-limit", "1.5"))
    records = by_augmenter(tmp_path / "results")
    assert code == 3
    assert {name: record.status for name, record in records.items()} == {
        "violent-segfaults": "failed",
        "violent-hoards": "oom",
        "original": "ok",
    }
    crash = records["violent-segfaults"].failure
    assert crash is not None
    assert "SIGSEGV" in crash.reason
    assert "printed by the plugin" in crash.log_tail
    assert "oom: smoke/mpe/spread/random/violent-hoards/bc/seed-0" in err
    assert "1536 MiB" in err


def test_a_method_that_never_ends_is_a_row(start: Start, tmp_path: Path) -> None:
    """Alone: a limit that it passes on any machine is one that others may pass on a busy machine."""
    code, _, err = finish(start("run", "--matrix", matrix(tmp_path, "bad-slow"), "--timeout", "4"))
    assert code == 3
    assert [record.status for record in read_records(tmp_path / "results")] == ["timeout"]
    assert "timeout: smoke/mpe/spread/random/bad-slow/bc/seed-0" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_with_130_kills_its_workers_and_keeps_what_is_done(
    start: Start, tmp_path: Path, number: signal.Signals
) -> None:
    pid_file = tmp_path / "pid"
    name = matrix(tmp_path, "original", "violent-sleeps")
    process = start("run", "--matrix", name, "--jobs", "2", VIOLENT_PID_FILE=str(pid_file))
    record = tmp_path / "results/runs/smoke/mpe--spread/random/original/bc/seed-0.json"
    wait_for(lambda: record.exists() and pid_file.exists() and pid_file.read_text() != "")
    process.send_signal(number)
    code, _, err = finish(process)
    assert code == 130
    assert "the same command resumes" in err
    assert gone(int(pid_file.read_text()))
    assert [name for name, r in by_augmenter(tmp_path / "results").items() if r.status == "ok"] == ["original"]


def test_workers_die_with_a_driver_that_is_killed(start: Start, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    process = start("run", "--matrix", matrix(tmp_path, "violent-sleeps"), VIOLENT_PID_FILE=str(pid_file))
    wait_for(lambda: pid_file.exists() and pid_file.read_text() != "")
    process.kill()
    finish(process)
    wait_for(lambda: gone(int(pid_file.read_text())), seconds=10)


def test_a_full_disk_ends_the_run_with_one_message_and_nothing_half_written(
    environment: dict[str, str], tmp_path: Path
) -> None:
    # No file may pass 24 KiB: the dataset of 16 episodes does, its card does not.
    command = f"ulimit -f 24; exec {sys.executable} -m benchmark run --matrix smoke --jobs 1"
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.count("Error:") == 1
    assert "File too large" in done.stderr
    assert "resumes" in done.stderr
    assert [path for path in (tmp_path / "home" / "artefacts").rglob("*") if path.is_file()] == []
    assert not (tmp_path / "results").exists()
