"""Methods of other packages: written by `bench plugin new`, installed, seen, checked; and packages that are broken."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmark import plugins
from benchmark.cli.root import main
from tasks.common.errors import ExitCode, UnknownNameError, UsageError

MISBEHAVING = Path(__file__).parent / "misbehaving"
REPOSITORY = Path(__file__).parents[2]
Bench = Callable[..., subprocess.CompletedProcess[str]]


def python(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter, which alone reads entry points anew; `path` goes in front of its search path."""
    search = [str(REPOSITORY), *([str(path)] if path else []), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, search)), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False, timeout=250
    )


def bench(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    return python("-c", "import sys; from benchmark.cli import main; sys.exit(main())", *arguments, path=path)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both kinds of toy plugin installed, each from a package that `bench plugin new` wrote."""
    folder = tmp_path_factory.mktemp("plugins")
    sources = []
    for name, kind in (("toy-augmenter", "augmenter"), ("toy-learner", "learner")):
        assert bench("plugin", "new", name, "--kind", kind, "--out", str(folder / "source")).returncode == 0
        sources.append(str(folder / "source" / name))
    install = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    done = python(*install, "--target", str(folder / "site"), *sources)
    assert done.returncode == 0, done.stderr
    return folder


def test_installed_plugins_are_listed_beside_ours(installed: Path) -> None:
    show = "from methods.{0}s import {1}S; print(*{1}S.names()); print({1}S.entry('toy-{0}').package)"
    for kind in plugins.KINDS:
        done = python("-c", show.format(kind, kind.upper()), path=installed / "site")
        names, package = done.stdout.strip().split("\n")
        assert f"toy-{kind}" in names.split()
        assert package == f"toy-{kind}"


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_an_installed_plugin_passes_the_contract(installed: Path, kind: str) -> None:
    done = bench("plugin", "check", f"toy-{kind}", path=installed / "site")
    assert done.returncode == ExitCode.OK, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1].startswith(f"{kind} toy-{kind}: ")
    assert lines[-1].endswith("checks passed or do not apply.")
    assert all(line.split()[0] in ("ok", "skipped") for line in lines[:-1])
    assert "ok      continuous: leaves its input unchanged" in lines


def test_the_tests_of_a_new_package_pass(installed: Path) -> None:
    tests = installed / "source" / "toy-augmenter"
    done = python(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests), "--rootdir", str(tests), path=installed / "site"
    )
    assert done.returncode == 0, done.stdout
    assert "60 passed" in done.stdout


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bad-raises", "raised RuntimeError at misbehaving_augmenters.py:"),
        ("bad-nan", "'observations' are not finite"),
        ("bad-shape", "column 'observations' has shape"),
        ("bad-dtype", "dtype float64"),
        ("bad-range", "'actions' are not in [-1.0, 1.0]"),
        ("bad-type", "returned a NoneType"),
        ("bad-amount", "for `run.budget.amount` = 7"),
        ("bad-writes", "changed the dataset it was given"),
        ("bad-seed", "two runs with one seed differ"),
        ("bad-exits", "raised SystemExit at misbehaving_augmenters.py:"),
        ("bad-learner-raises", "the plugin fell over"),
        ("bad-learner-nan", "NaN actions of replicas [0 1 2]"),
        ("bad-learner-shape", "returned actions as float32 (3, 4, 4, 2)"),
        ("bad-learner-range", "are not in [-1.0, 1.0]"),
        ("bad-learner-entangled", "seed 0 trained beside others differs"),
    ],
)
def test_the_contract_finds_what_a_method_does_wrong(misbehaving: None, name: str, message: str) -> None:
    _, checks = plugins.method_checks(name)
    failed = [result for result in plugins.run_checks(checks) if result.status == "failed"]
    assert failed
    assert any(message in result.message for result in failed), [result.message for result in failed]


def test_a_failed_check_ends_in_exit_code_4(misbehaving: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugin", "check", "bad-nan"]) == ExitCode.INVALID
    out, err = capsys.readouterr()
    assert "failed  continuous: returns a valid dataset: Augmenter 'bad-nan' returned data" in out
    assert err.startswith("Error: augmenter bad-nan: 30 of 60 checks failed. First: continuous:")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bad-import", "could not be loaded from 'misbehaving_broken:Missing': ModuleNotFoundError"),
        ("bad-import-exits", "SystemExit: 0"),
        ("bad-class", "expected a subclass of methods.base.Augmenter"),
        ("bad-nann", "Did you mean 'bad-nan'"),
        ("bad-nan[x=1]", "has no parameter 'x'"),
    ],
)
def test_a_broken_plugin_ends_in_one_clear_message(
    misbehaving: None, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    assert main(["plugin", "check", name]) == ExitCode.USAGE
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_listing_imports_no_plugin() -> None:
    code = "import sys; from methods.augmenters import AUGMENTERS as A; print('bad-import' in A.names(), len(sys.argv))"
    assert python("-c", code, path=MISBEHAVING).stdout == "True 1\n"


def test_unknown_names_are_looked_up_in_both_tables() -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'bc50'"):
        plugins.method_checks("bc5")


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("My Idea", "augmenter", "not a plugin name"),
        ("rad-s", "augmenter", "taken"),
        ("bc", "augmenter", "taken"),
        ("class", "augmenter", "word of Python"),
        ("json", "learner", "module 'json' exists"),
        ("methods", "augmenter", "module 'methods' exists"),
        ("my-idea", "task", "Choose one of: augmenter, learner"),
    ],
)
def test_new_refuses_what_would_not_work(tmp_path: Path, name: str, kind: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plugins.new_package(name, kind, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_new_never_overwrites(tmp_path: Path) -> None:
    written = plugins.new_package("my-idea", "augmenter", tmp_path)
    before = {path: path.read_bytes() for path in written}
    with pytest.raises(UsageError, match="exists"):
        plugins.new_package("my-idea", "learner", tmp_path)
    assert {path: path.read_bytes() for path in written} == before


@pytest.mark.slow
def test_installed_plugins_run_through_the_harness(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both toys end in records beside ours; a broken augmenter ends in rows with its reason, and stops nobody."""
    site = installed / "site"
    both = f"{site}{os.pathsep}{MISBEHAVING}"
    matrix = tmp_path / "plugins.yaml"
    matrix.write_text(
        "summary: toys\nprotocol: smoke\ntasks: [mpe/spread]\ndatasets: [random]\n"
        "augmenters: [toy-augmenter, 'toy-augmenter[width=0.1]', bad-nan]\nlearners: [toy-learner]\nreplicates: 2\n"
    )
    results = tmp_path / "results"
    monkeypatch.setenv("AUGMARL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AUGMARL_RESULTS", str(results))
    done = bench("run", "--matrix", str(matrix), "--executor", "inline", path=Path(both))
    assert done.returncode == ExitCode.FAILED_CELLS, done.stdout + done.stderr
    records = [json.loads(path.read_text()) for path in results.rglob("*.json")]
    found = {(record["cell"]["augmenter"], record["cell"]["seed"]): record for record in records}
    assert len(found) == 6
    for (augmenter, _), record in found.items():
        if augmenter == "bad-nan":
            assert record["status"] == "failed"
            assert "'bad-nan' returned data that break the data model" in record["failure"]["reason"]
        else:
            assert record["status"] == "ok"
            assert len(record["evaluation"]["returns"]) == record["evaluation"]["episodes"]
