from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest
import typer
from factory import Suite, write
from typer.testing import CliRunner

from leaderboard.command import app
from leaderboard.report import report, report_command, table_of
from leaderboard.scores import Selection
from leaderboard.serving import make_server
from tasks.common.errors import NothingSelectedError, UsageError

SMALL = Suite(datasets=("exp",), learners=("bc",), seeds=3)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(SMALL.records(), tmp_path_factory.mktemp("results"))


def invoke(*arguments: str) -> str:
    cli = typer.Typer()
    cli.command("report")(report_command)
    cli.add_typer(app, name="leaderboard")
    result = CliRunner().invoke(cli, list(arguments), env={"COLUMNS": "160"}, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_build_says_what_it_built(results: Path, tmp_path: Path) -> None:
    text = invoke("leaderboard", "build", "--results", str(results), "--out", str(tmp_path / "site"))
    assert text.splitlines() == [
        "quick · mpe-batched 1 · omar+continuous: 24 runs, 2 cells",
        f"Open {tmp_path / 'site' / 'index.html'}",
    ]
    document = json.loads(
        invoke("leaderboard", "build", "--results", str(results), "--out", str(tmp_path / "site"), "--json")
    )
    assert document["boards"][0]["runs"] == 24


def test_build_goes_into_the_results_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(SMALL.records()[:6], tmp_path)
    monkeypatch.setenv("AUGMARL_RESULTS", str(tmp_path))
    invoke("leaderboard", "build")
    assert (tmp_path / "site" / "index.html").is_file()


def test_a_matrix_has_a_site_of_its_own_with_its_cells_and_seeds_alone(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = tmp_path / "two.yaml"
    matrix.write_text(
        "protocol: quick\ntasks: [mpe/spread]\ndatasets: [exp]\naugmenters: [original, rad-s]\nlearners: [bc]\n"
        "replicates: 2\n"
    )
    copied = tmp_path / "results"
    shutil.copytree(results, copied)
    text = invoke("leaderboard", "build", "--results", str(copied), "--matrix", str(matrix))
    assert text.splitlines() == [
        "quick · mpe-batched 1 · omar+continuous: 4 runs, 1 cells",
        f"Open {copied / 'site-two' / 'index.html'}",
    ]


def test_report_prints_lift_interval_tier_and_n(results: Path) -> None:
    text = invoke("report", "--results", str(results))
    assert "n = 3 independent augmented sets" in text
    lines = text.splitlines()
    (row,) = (index for index, line in enumerate(lines) if "original *" in line)
    assert "[0.0, 0.0]" in lines[row + 1]  # the lift of `original` over itself, below its value


def test_report_as_json_is_one_document(results: Path) -> None:
    document = json.loads(invoke("report", "--results", str(results), "--task", "mpe/tag", "--json"))
    rows = document["boards"][0]["rows"]
    assert {row["task"] for row in rows} == {"mpe/tag"}
    assert {row["augmenter"]: row["tier"] for row in rows}["more-real-data"] == 1


def test_report_and_page_say_the_same(results: Path, tmp_path: Path) -> None:
    invoke("leaderboard", "build", "--results", str(results), "--out", str(tmp_path / "site"))
    (page,) = (tmp_path / "site").glob("*/leaderboard.json")
    rows = json.loads(invoke("report", "--results", str(results), "--json"))["boards"][0]["rows"]
    assert rows == json.loads(page.read_text())["rows"][: len(rows)]


@pytest.mark.parametrize("arguments", [{"protocol": "paper"}, {"selection": Selection(task="mpe/none")}])
def test_an_empty_selection_is_an_error(results: Path, arguments: dict) -> None:
    with pytest.raises(NothingSelectedError, match="24 records of protocols quick are there"):
        report(results, arguments.pop("selection", Selection()), **arguments)


def test_no_records_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NothingSelectedError, match="There is no record"):
        report(tmp_path, Selection())
    with pytest.raises(NothingSelectedError, match="There is no site"):
        CliRunner().invoke(app, ["serve", "--out", str(tmp_path)], catch_exceptions=False)


def test_names_are_text_in_the_terminal_too(results: Path) -> None:
    ((board, ranking),) = report(results, Selection())
    assert table_of(board, ranking).row_count == 4


def test_a_site_is_served_on_this_machine_only(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("hello")
    with make_server(tmp_path, 0) as server:
        assert server.server_address[0] == "127.0.0.1"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/index.html") as answer:
            assert answer.read() == b"hello"
        with pytest.raises(UsageError, match="Choose another with --port"):
            make_server(tmp_path, server.server_port)
        server.shutdown()
        thread.join()


def test_help_needs_no_statistics() -> None:
    heavy = ("numpy", "scipy", "rliable", "matplotlib", "torch", "pandas")
    code = f"import sys, leaderboard.command, leaderboard.report; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(("axis", "present"), [("task", "mpe/spread"), ("dataset", "exp"), ("learner", "bc")])
def test_a_report_of_nothing_says_which_name_no_record_has(results: Path, axis: str, present: str) -> None:
    selection = Selection(**{name: "nobody" if name == axis else None for name in ("task", "dataset", "learner")})
    with pytest.raises(NothingSelectedError, match=rf"None has the {axis} 'nobody'; they have .*{present}"):
        report(results, selection)
