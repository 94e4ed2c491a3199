"""Commands that show what there is: lists, descriptions, queries, the machine and the cache."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmark.artefacts import ArtefactStore, save_arrays
from benchmark.doctor import OPTIONAL
from tasks.common.errors import ExitCode
from tests.unit.benchmark.conftest import Bench

SMOKE = ("--matrix", "smoke", "--executor", "inline", "--device", "cpu")


@pytest.mark.parametrize("kind", ["tasks", "datasets", "augmenters", "learners", "matrices", "protocols"])
def test_lists_have_a_name_and_a_summary_each(bench: Bench, kind: str) -> None:
    code, out, _ = bench("list", kind, "--json")
    rows = json.loads(out)
    assert code == ExitCode.OK
    assert rows
    assert all(row["name"] and row["summary"] for row in rows)
    _, text, _ = bench("list", kind)
    assert all(row["name"] in text for row in rows)


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("augmenter", "rad-s[low=0.5]", ["low: 0.5", "EAQ, Sec. 4.2", "version: 1", "trains: False"]),
        ("learner", "bc50", ["keep_fraction: 0.5", "CODI, Sec. 4.1", "continuous actions: yes"]),
        ("learner", "td3bc", ["alpha: 2.5", "discrete actions: yes"]),
        ("learner", "qmix-bcq", ["continuous actions: compares the values of all actions"]),
        ("task", "mpe/tag", ["n_agents: 3", "behaviour levels: medium, expert"]),
        ("dataset", "exp-m", ["t_imb", "policies: expert"]),
        ("matrix", "quick", ["cells: 480", "learners: bc, bc50"]),
        ("protocol", "quick[batch_size=5]", ["batch_size: 5", "publishable: False"]),
        ("learner", "qmix-cql@eaq", ["window: 20", "March 2024"]),
    ],
)
def test_show_tells_what_a_thing_is(bench: Bench, kind: str, name: str, expected: list[str]) -> None:
    code, out, _ = bench("show", kind, name)
    assert code == ExitCode.OK
    for text in expected:
        assert text in out
    _, document, _ = bench("show", kind, name, "--json")
    assert json.loads(document)


def test_explain_tells_hits_and_which_part_of_a_key_changed(bench: Bench) -> None:
    cell = "smoke/mpe/spread/random/rad-s/bc/seed-0"
    _, out, _ = bench("explain", cell)
    assert out.count("miss") == 4
    assert "nothing of this stage is stored" in out
    assert "record: none" in out
    bench("run", *SMOKE)
    _, out, _ = bench("explain", cell)
    assert out.count(": hit") == 4
    assert "record: ok, of these keys" in out
    _, out, _ = bench("explain", "smoke/mpe/spread/random/rad-s[low=0.5]/bc/seed-0")
    assert "dataset: hit" in out
    assert "config.low: 0.5 now, 0.8 stored" in out


def test_explain_says_where_the_source_of_a_method_has_changed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench("run", *SMOKE)
    cell = "smoke/mpe/spread/random/rad-s/bc/seed-0"
    assert "has changed since" not in bench("explain", cell)[1]
    monkeypatch.setattr("benchmark.choices.source_digest", lambda module: "another")
    assert bench("explain", cell)[1].count("the source of its method has changed since") == 2


def test_queries_answer_as_text_json_and_csv(bench: Bench, tmp_path: Path) -> None:
    bench("run", *SMOKE)
    sql = (
        "select augmenter, count(*) as n, avg(normalised) as score from runs where status = 'ok' group by 1 order by 1"
    )
    code, out, _ = bench("results", "query", sql, "--json")
    assert code == ExitCode.OK
    rows = json.loads(out)
    assert [(row["augmenter"], row["n"]) for row in rows] == [("original", 2), ("rad-s", 2)]
    _, out, _ = bench("results", "query", sql, "--csv")
    assert [row["n"] for row in csv.DictReader(io.StringIO(out))] == ["2", "2"]
    _, out, _ = bench("results", "query", "select record->>'$.cell.seed' as s from runs limit 1")
    assert out.splitlines() == ["s", "0"]


@pytest.mark.parametrize(
    "sql",
    [
        "copy runs to '{folder}/stolen.csv'",
        "select * from read_text('/etc/hostname')",
        "attach '{folder}/x.db'",
        "set enable_external_access=true",
        "install httpfs",
    ],
)
def test_queries_reach_nothing_but_the_records(bench: Bench, tmp_path: Path, sql: str) -> None:
    code, _, err = bench("results", "query", sql.format(folder=tmp_path))
    assert code == ExitCode.USAGE
    assert "The query failed" in err
    assert list(tmp_path.iterdir()) == []


def test_answers_of_any_type_are_json_and_csv(bench: Bench) -> None:
    sql = (
        "select 1.5 as a, 2::decimal as b, 'nan'::double as c, date '2026-01-02' as d, [1.5, 2] as e, null as f, "
        "interval 1 day as g, {'x': 1.25} as h, 'a\u2028\nb' as i"
    )
    code, out, _ = bench("results", "query", sql, "--json")
    (row,) = json.loads(out)
    assert code == ExitCode.OK
    assert {name: row[name] for name in "abcdefh"} == {
        "a": 1.5, "b": 2, "c": "NaN", "d": "2026-01-02", "e": [1.5, 2], "f": None, "h": {"x": 1.25},
    }  # fmt: skip
    code, out, _ = bench("results", "query", sql, "--csv")
    assert next(csv.DictReader(io.StringIO(out, newline="")))["i"] == "a\u2028\nb"


def test_an_empty_results_folder_is_an_empty_table(bench: Bench) -> None:
    code, out, _ = bench("results", "query", "select count(*) as n from runs")
    assert (code, out.split()) == (ExitCode.OK, ["n", "0"])


def test_doctor_says_what_is_there_and_fails_where_a_run_would(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = bench("doctor", "--json")
    findings = {finding["name"]: finding for finding in json.loads(out)}
    assert code == ExitCode.OK
    assert {"python", "torch", "cuda", "jaxmarl", "StarCraft II", "chromium", "disk", "mpe/spread"} <= set(findings)
    assert findings["AUGMARL_RESULTS"]["level"] == "ok"
    (tmp_path / "nobodys").mkdir()  # a folder that happens to have the name of a package
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(OPTIONAL, "nobodys", ("nothing", "pip install nobodys"))
    assert "not installed; for nothing" in bench("doctor")[1]
    (tmp_path / "blocked").write_text("a file")
    code, out, _ = bench("doctor", "--results", str(tmp_path / "blocked" / "inside"))
    assert code == ExitCode.INTERNAL
    assert "problem" in out


def test_the_cache_is_measured_and_pruned(bench: Bench, tmp_path: Path) -> None:
    bench("run", *SMOKE)
    _, out, _ = bench("cache", "size", "--json")
    assert json.loads(out)["policy"]["artefacts"] == 4
    assert json.loads(out)["checkpoints"] == {"artefacts": 0, "bytes": 0}
    code, out, _ = bench("cache", "prune", "--stage", "policy")
    assert (code, "Removed 4 artefacts" in out) == (ExitCode.OK, True)
    assert list(ArtefactStore(tmp_path / "home").stored("policy")) == []
    code, _, _ = bench("run", *SMOKE, "--force")  # evaluations are still there
    assert code == ExitCode.OK


def test_checkpoints_of_fits_that_nobody_came_back_to_are_pruned(bench: Bench, tmp_path: Path) -> None:
    for name in ("old", "young"):
        save_arrays(tmp_path / "home" / "checkpoints" / f"{name}.safetensors", {"w": np.zeros(1000)})
    os.utime(tmp_path / "home" / "checkpoints" / "old.safetensors", (0, 0))
    _, out, _ = bench("cache", "size", "--json")
    assert json.loads(out)["checkpoints"]["artefacts"] == 2
    assert json.loads(out)["checkpoints"]["bytes"] > 16_000
    code, out, _ = bench("cache", "prune")
    assert (code, "1 leftovers" in out) == (ExitCode.OK, True)
    assert [path.stem for path in (tmp_path / "home" / "checkpoints").iterdir()] == ["young"]


def test_a_reader_that_has_heard_enough_is_no_error() -> None:
    command = [sys.executable, "-m", "benchmark", "list", "augmenters"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == ExitCode.OK
