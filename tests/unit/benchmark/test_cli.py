"""The command line in this process: what each command prints and returns."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.text import Text

from benchmark.cli.lazy import COMMANDS
from benchmark.records import RunRecord
from tasks.common.errors import ExitCode
from tests.unit.benchmark.conftest import Bench, smoke_group

SMOKE = ("--matrix", "smoke", "--executor", "inline", "--device", "cpu")


def plan_of(bench: Bench, *arguments: str) -> dict[str, int]:
    code, out, _ = bench("plan", "--matrix", "smoke", "--json", *arguments)
    assert code == ExitCode.OK
    summary: dict[str, int] = json.loads(out)["summary"]
    return summary


# -- running -------------------------------------------------------------------------------------------------------


def test_a_dry_run_a_run_and_a_plan_afterwards(bench: Bench, tmp_path: Path) -> None:
    code, out, _ = bench("run", *SMOKE, "--dry-run")
    assert code == ExitCode.OK
    assert "4 cells: 0 cached, 4 to run, 0 skipped" in out
    assert not (tmp_path / "results").exists()

    code, out, err = bench("run", *SMOKE)
    assert code == ExitCode.OK
    assert "[2/2]" in err
    assert re.search(r"^rad-s +\S+ +2 +0$", out, re.MULTILINE)
    assert str(tmp_path / "results" / "runs") in out
    assert "bench leaderboard build" in out
    assert len(list((tmp_path / "results").rglob("seed-*.json"))) == 4
    assert plan_of(bench) == {"cached": 4, "run": 0, "skipped": 0}

    code, out, _ = bench("plan", "--matrix", "smoke", "--force")
    assert "Estimated time" in out
    assert "stored: 2 dataset" in out


def test_json_is_one_document_on_standard_output(bench: Bench) -> None:
    code, out, err = bench("run", *SMOKE, "--json", "--only", "augmenter=rad-s", "--only", "seed=1")
    document = json.loads(out)
    assert code == ExitCode.OK
    assert [record["cell"] for record in document["records"]] == ["smoke/mpe/spread/random/rad-s/bc/seed-1"]
    assert "1 to run" in err


def test_a_plan_counts_the_fits_that_variants_and_learners_share(
    bench: Bench, patient_log: object, tmp_path: Path
) -> None:
    matrix = tmp_path / "mine.yaml"
    matrix.write_text(
        "protocol: smoke\ntasks: [mpe/spread]\ndatasets: [random]\nreplicates: 2\n"
        'augmenters: [original, patient, "patient[shift=1.0]"]\nlearners: [bc, bc50]\n'
    )
    _, out, _ = bench("plan", "--matrix", str(matrix))
    assert "2 fits of augmenters for 8 cells" in out
    _, out, _ = bench("plan", "--matrix", str(matrix), "--json")
    assert json.loads(out)["fits"] == {"missing": 2, "cells": 8}
    bench("run", "--matrix", str(matrix), "--executor", "inline", "--only", "augmenter=patient", "--only", "seed=0")
    _, out, _ = bench("plan", "--matrix", str(matrix), "--json")
    assert json.loads(out)["fits"] == {"missing": 1, "cells": 4}


def test_what_a_run_recommends_finds_its_records(bench: Bench) -> None:
    _, out, _ = bench("run", *SMOKE, "--protocol", "smoke[updates=3]", "--only", "seed=0")
    (command,) = re.findall(r"Ranking: bench (.*)", out)
    code, out, _ = bench(*shlex.split(command))
    assert (code, "smoke[updates=3]" in out) == (ExitCode.OK, True)


def test_another_protocol_gives_other_cells(bench: Bench) -> None:
    code, out, _ = bench("plan", "--matrix", "smoke", "--protocol", "smoke[updates=3]")
    assert code == ExitCode.OK
    assert "smoke[updates=3]/mpe/spread/random/original/bc" in out


def test_failed_cells_give_exit_code_3_and_keep_the_others(bench: Bench, misbehaving: None, tmp_path: Path) -> None:
    matrix = tmp_path / "mine.yaml"
    matrix.write_text(
        "protocol: smoke\ntasks: [mpe/spread]\ndatasets: [random]\nlearners: [bc]\nreplicates: 1\n"
        "augmenters: [bad-raises, original]\n"
    )
    code, out, err = bench("run", "--matrix", str(matrix), "--executor", "inline")
    assert code == ExitCode.FAILED_CELLS
    assert "failed: smoke/mpe/spread/random/bad-raises/bc/seed-0: RuntimeError: the plugin fell over" in err
    assert re.search(r"^original +\S+ +1 +0$", out, re.MULTILINE)
    assert re.search(r"^bad-raises +- +0 +1$", out, re.MULTILINE)
    code, _, _ = bench("run", "--matrix", str(matrix), "--executor", "inline", "--no-retry")
    assert code == ExitCode.OK  # nothing was run


def test_a_run_of_skipped_cells_alone_selects_nothing(bench: Bench, tmp_path: Path) -> None:
    matrix = tmp_path / "mine.yaml"
    matrix.write_text(
        "protocol: smoke\ntasks: [mpe/spread]\ndatasets: [random]\nlearners: [bc]\nreplicates: 1\n"
        "augmenters: [original]\nexclude: [{learner: bc, reason: not today}]\n"
    )
    code, _, err = bench("run", "--matrix", str(matrix), "--executor", "inline")
    assert code == ExitCode.NOTHING_SELECTED
    assert "Every cell was skipped" in err
    _, out, _ = bench("plan", "--matrix", str(matrix))
    assert "1 skipped (excluded: not today)" in out


def test_a_full_disk_is_one_message_and_exit_code_1(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    code, _, err = bench("run", *SMOKE)
    assert code == ExitCode.INTERNAL
    assert err.count("Error:") == 1
    assert "No space left on device" in err
    assert "Traceback" not in err


def test_being_told_to_terminate_is_an_interruption_from_the_first_moment(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def terminated(name: str) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("benchmark.cli.selected.load_matrix", terminated)
    assert bench("run", *SMOKE)[0] == ExitCode.INTERRUPTED
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_interruption_is_exit_code_130(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("benchmark.driver.run_plan", interrupted)
    code, _, err = bench("run", *SMOKE)
    assert code == ExitCode.INTERRUPTED
    assert "resumes" in err


# -- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("run", "--matrix", "quickk"), ExitCode.USAGE, "Did you mean 'quick' or 'quickstart'"),
        (("run", "--matrix", "smoke", "--executor", "locl"), ExitCode.USAGE, "'local'"),
        (("run", "--matrix", "smoke", "--device", "tpu"), ExitCode.USAGE, "auto, cpu, cuda"),
        (("run", "--matrix", "smoke", "--jobs", "0"), ExitCode.USAGE, "jobs"),
        (("run",), ExitCode.USAGE, "--matrix"),
        (("run", "--matrix", "smoke", "--only", "learner=td3"), ExitCode.NOTHING_SELECTED, "learner: bc"),
        (("plan", "--matrix", "smoke", "--protocol", "smoky"), ExitCode.USAGE, "'smoke'"),
        (("explain", "smoke/mpe/spread/random/rad-z/bc/seed-0"), ExitCode.USAGE, "'rad-s'"),
        (("explain", "rad-s"), ExitCode.USAGE, "is no cell"),
        (("show", "augmenter", "rad-z"), ExitCode.USAGE, "Did you mean"),
        (("show", "dataset", "expp"), ExitCode.USAGE, "Did you mean 'exp'"),
        (("list", "cells"), ExitCode.USAGE, "tasks"),
        (("results", "query", "select nothing from nowhere"), ExitCode.USAGE, "The table is `runs`"),
        (("results", "query", "select 1", "--json", "--csv"), ExitCode.USAGE, "exclude each other"),
        (("cache", "prune", "--stage", "policyy"), ExitCode.USAGE, "'policy'"),
        (("results", "query", ""), ExitCode.USAGE, "0 statements. Give exactly one"),
        (("results", "query", "select 1; select 2"), ExitCode.USAGE, "2 statements"),
        (("results", "query", "select 1 as a, 2 as a", "--json"), ExitCode.USAGE, "Two columns are called 'a'"),
        (("show", "dataset", "exp-m[t_im=4]"), ExitCode.USAGE, "'t_imb'"),
        (("run", "--matrix", "smoke", "--timeout", "0"), ExitCode.USAGE, "--timeout"),
        (("run", "--matrix", "smoke", "--memory-limit", "0"), ExitCode.USAGE, "--memory-limit"),
        (("explain", "smoke/mpe/spread/random/rad-s/bc/seed-٣"), ExitCode.USAGE, "is no cell"),
        (("rnu",), ExitCode.USAGE, "Unknown command 'rnu'. Did you mean 'run'"),
        (("--nonsense",), ExitCode.USAGE, "nonsense"),
    ],
)
def test_wrong_usage_is_one_message_and_its_code(
    bench: Bench, arguments: tuple[str, ...], code: ExitCode, message: str
) -> None:
    returned, out, err = bench(*arguments)
    assert returned == code
    assert message in " ".join(err.split())
    assert "Traceback" not in err
    assert out == ""


def test_a_record_of_a_newer_schema_is_exit_code_4(bench: Bench, tmp_path: Path) -> None:
    path = smoke_group().cell(0).path(tmp_path / "results")
    path.parent.mkdir(parents=True)
    path.write_text('{"schema_version": 99}')
    for command in (("plan", "--matrix", "smoke"), ("run", *SMOKE), ("results", "query", "select 1")):
        code, _, err = bench(*command)
        assert code == ExitCode.INVALID
        assert "schema 99" in err
    assert path.read_text() == '{"schema_version": 99}'


def test_a_plugin_that_ends_the_program_is_no_success(bench: Bench, misbehaving: None, tmp_path: Path) -> None:
    matrix = tmp_path / "mine.yaml"
    matrix.write_text(
        "protocol: smoke\ntasks: [mpe/spread]\ndatasets: [random]\nlearners: [bc]\nreplicates: 2\n"
        "augmenters: [bad-exits, original]\n"
    )
    code, out, err = bench("run", "--matrix", str(matrix), "--executor", "inline", "--json")
    statuses = {record["cell"].split("/")[-3]: record["status"] for record in json.loads(out)["records"]}
    assert (code, statuses) == (ExitCode.FAILED_CELLS, {"bad-exits": "failed", "original": "ok"})
    assert "sys.exit(0)" in err
    assert "printed by the plugin" in err
    code, out, err = bench("show", "augmenter", "bad-import-exits", "--json")
    assert (code, out) == (ExitCode.USAGE, "")
    assert "SystemExit: 0" in err


def test_whatever_ends_the_program_is_an_internal_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(name: str) -> None:
        raise SystemExit(0)

    monkeypatch.setattr("benchmark.cli.selected.load_matrix", leave)
    code, _, err = bench("plan", "--matrix", "smoke")
    assert code == ExitCode.INTERNAL
    assert "sys.exit(0)" in err


def test_an_internal_error_is_one_message_and_a_traceback_on_request(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmark.matrix.load_matrix", lambda name: 1 / 0)
    monkeypatch.setattr("benchmark.cli.selected.load_matrix", lambda name: 1 / 0)
    code, _, err = bench("plan", "--matrix", "smoke")
    assert code == ExitCode.INTERNAL
    assert "ZeroDivisionError" in err
    assert "Traceback" not in err
    code, _, err = bench("--debug", "plan", "--matrix", "smoke")
    assert code == ExitCode.INTERNAL
    assert "Traceback" in err


# -- environment ----------------------------------------------------------------------------------------------------


def test_flags_have_environment_variables(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AUGMARL_MATRIX", "smoke")
    monkeypatch.setenv("AUGMARL_ONLY", "augmenter=rad-s seed=0")
    monkeypatch.setenv("AUGMARL_JSON", "1")
    monkeypatch.setenv("AUGMARL_RESULTS", str(tmp_path / "elsewhere"))
    code, out, _ = bench("plan")
    assert (code, json.loads(out)["summary"]["run"]) == (ExitCode.OK, 1)
    monkeypatch.setenv("AUGMARL_EXECUTOR", "inline")
    bench("run", "--only", "augmenter=original")
    assert len(list((tmp_path / "elsewhere").rglob("seed-*.json"))) == 2


def leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, by how it is called."""
    children = getattr(command, "commands", {})
    for name, child in children.items():
        yield from leaves(child, (*path, name))
    if not children:
        yield path, command


LEAVES = [leaf for name in COMMANDS for leaf in leaves(COMMANDS[name].load(name), (name,))]


@pytest.mark.parametrize(("path", "command"), LEAVES, ids=[" ".join(path) for path, _ in LEAVES])
def test_every_command_has_help_and_a_variable_for_every_flag(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, path: tuple[str, ...], command: Any
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    code, out, _ = bench(*path, "--help")
    assert code == ExitCode.OK
    assert command.help
    for text in (command.help, *(getattr(p, "help", None) for p in command.params)):
        shown = Text.from_markup(text or "").plain
        assert shown.count("]") == (text or "").count("]"), "brackets taken for markup: write \\["
    flags = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    assert out.count("env var: AUGMARL_") == len(flags)


def test_the_version_is_printed(bench: Bench) -> None:
    code, out, _ = bench("--version")
    assert (code, out.split()[0]) == (ExitCode.OK, "augmarl")


def test_the_help_lists_every_command(bench: Bench) -> None:
    code, out, _ = bench("--help")
    assert code == ExitCode.OK
    for name in COMMANDS:
        assert name in out


def test_records_name_no_folder_of_this_machine(bench: Bench, tmp_path: Path) -> None:
    bench("run", *SMOKE)
    for path in (tmp_path / "results").rglob("seed-*.json"):
        assert RunRecord.model_validate_json(path.read_bytes()).status == "ok"
        assert str(tmp_path) not in path.read_text()
        assert str(Path.home()) + "/" not in path.read_text()


def test_recommended_commands_look_at_the_same_cells_and_records(tmp_path: Path) -> None:
    from benchmark.cli.run import _Flags

    assert _Flags("quick", None, None).of_cells() == "--matrix quick"
    flags = _Flags("my matrix.yaml", "smoke", tmp_path)
    assert flags.of_cells() == f"--matrix 'my matrix.yaml' --protocol smoke --results {tmp_path}"
    assert flags.of_results() == f" --results {tmp_path}"
