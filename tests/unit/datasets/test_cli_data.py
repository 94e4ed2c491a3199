"""`bench data`, through typer's runner, with the real spread task and a cache of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from benchmark.cli.data import app
from tasks.common.errors import DataError, ExitCode, UnknownNameError, UsageError
from tasks.datasets import store


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("AUGMARL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def bench_data(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def ok(*arguments: str) -> str:
    result = bench_data(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


SMALL = ("--episodes", "8")


def test_build_prints_where_the_data_are(tmp_path: Path) -> None:
    path = Path(ok("build", "mpe/spread", "exp-m[t_imb=4]", *SMALL).strip())
    assert store.load_card(path).dataset == "exp-m"
    assert ok("build", "mpe/spread", "exp-m", *SMALL).strip() == str(path)  # the same dataset: found, not recorded
    copy = tmp_path / "copy.safetensors"
    ok("build", "mpe/spread", "exp-m", *SMALL, "--out", str(copy))
    assert copy.read_bytes() == path.read_bytes()


def test_inspect_prints_one_document(tmp_path: Path) -> None:
    result = bench_data("inspect", "mpe/spread", "exp", *SMALL, "--json", "--plot", "picture.png")
    document = json.loads(result.stdout)
    assert (document["episodes"], document["steps"]) == (8, 200)
    assert document["mean_return"] == pytest.approx(1700, abs=400)
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert "wrote picture.png" in result.stderr


def test_inspect_reads_well() -> None:
    text = ok("inspect", "mpe/spread", "one-expert", *SMALL)
    for expected in ("mpe/spread  one-expert", "mean return", "deciles", "Who acted", "agent 2", "█"):
        assert expected in text


def test_compare_orders_by_mean_return() -> None:
    rows = json.loads(ok("compare", "mpe/spread", "random", "exp", "medium", *SMALL, "--json"))
    assert [row["dataset"] for row in rows] == ["exp", "medium", "random"]
    for row in rows:
        low, high = row["mean_interval"]
        assert low < row["mean_return"] < high
    lines = ok("compare", "mpe/spread", "random", "exp", *SMALL).splitlines()
    assert [line.split()[0] for line in lines] == ["dataset", "exp", "random"]
    low, high = rows[0]["mean_interval"]
    assert f"{rows[0]['mean_return']:.2f} [{low:.2f}, {high:.2f}]" in lines[1]


def test_compare_refuses_a_bad_name_before_it_records(home: Path) -> None:
    result = bench_data("compare", "mpe/spread", "exp", "expp", *SMALL)
    assert isinstance(result.exception, UnknownNameError)
    assert not list(home.rglob("*.safetensors"))


@pytest.mark.parametrize("command", ["build", "inspect", "verify", "compare"])
def test_caches_are_where_home_says(tmp_path: Path, home: Path, command: str) -> None:
    ok(command, "mpe/spread", "random", *SMALL, "--home", str(tmp_path / "other"))
    assert len(list((tmp_path / "other").rglob("*.safetensors"))) == 1
    assert not home.exists()


@pytest.mark.parametrize("command", [("inspect",), ("export", "--to", "omar:out")])
def test_a_damaged_file_is_neither_shown_nor_exported(tmp_path: Path, command: tuple[str, ...]) -> None:
    path = tmp_path / "copy.safetensors"
    ok("build", "mpe/spread", "random", *SMALL, "--out", str(path))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    result = bench_data(command[0], str(path), *command[1:])
    assert isinstance(result.exception, DataError)
    assert "was changed or damaged" in str(result.exception)
    assert (result.stdout, list(tmp_path.glob("out*"))) == ("", [])


def test_inspect_takes_a_file() -> None:
    path = ok("build", "mpe/spread", "random", *SMALL).strip()
    assert json.loads(ok("inspect", path, "--json"))["dataset"] == "random"


def test_verify_ends_in_4_on_a_damaged_file() -> None:
    path = Path(ok("build", "mpe/spread", "random", *SMALL, "--out", "x.safetensors").strip())
    assert ok("verify", str(path)).count("ok ") == 8
    assert all(finding["ok"] for finding in json.loads(ok("verify", str(path), "--json"))["findings"])
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    result = bench_data("verify", str(path))
    assert isinstance(result.exception, DataError)
    assert result.exception.exit_code == ExitCode.INVALID
    assert "FAILED" in result.stdout


def test_verify_against_another_task() -> None:
    path = ok("build", "mpe/spread", "random", *SMALL).strip()
    result = bench_data("verify", path, "--task", "mpe/spread[variant=mpe2]")
    assert isinstance(result.exception, DataError)
    assert "another decision process" in " ".join(result.stdout.split())


def test_export_and_import_come_back_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "simple_spread" / "random" / "seed_0_data"
    ok("export", "mpe/spread", "random", "--to", f"omar:{folder}", *SMALL)
    path = Path(ok("import", f"omar:{folder}", "--task", "mpe/spread").strip())
    assert path == Path("mpe--spread--omar-random.safetensors")
    card = store.load_card(path)
    assert (card.source, card.regime, card.origin) == ("imported", "random", "seed_0_data")
    original = store.load(Path(ok("build", "mpe/spread", "random", *SMALL).strip()))
    assert (store.load(path).observations == original.observations).all()
    ok("verify", str(path))


def test_a_prey_in_the_folder_is_pointed_out(tmp_path: Path) -> None:
    ok("export", "mpe/tag", "random", "--to", f"omar:{tmp_path / 'tag'}", *SMALL)
    (tmp_path / "tag" / "obs_3.npy").write_bytes(b"")
    result = bench_data("import", f"omar:{tmp_path / 'tag'}", "--task", "mpe/tag")
    assert result.exit_code == 0
    assert "a replay will differ" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("build", "mpe/spred", "exp"), "'mpe/spread'"),
        (("build", "mpe/spread", "exxp"), "Did you mean 'exp'"),
        (("build", "mpe/spread", "exp[speed=1]"), "Unknown parameter"),
        (("inspect", "mpe/spread"), "is no dataset file"),
        (("import", "vault:x", "--task", "mpe/spread"), "Unknown dataset format"),
        (("import", "omar", "--task", "mpe/spread"), "names no format"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], message: str, home: Path) -> None:
    result = bench_data(*arguments)
    assert isinstance(result.exception, UsageError | UnknownNameError)
    assert message in str(result.exception)
    assert not home.exists()  # refused before anything was opened


def test_importing_the_commands_loads_nothing_heavy() -> None:
    code = (
        "import sys, benchmark.cli.data\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'pandas', 'pydantic', 'duckdb'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stderr) == (0, "")
