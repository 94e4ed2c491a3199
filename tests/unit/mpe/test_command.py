"""`bench policy`: what a user types and reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmark.behaviour import references
from benchmark.behaviour.command import app
from tasks.common.errors import UsageError
from tasks.mpe.task import MPETask


def test_evaluate_prints_the_return() -> None:
    result = CliRunner().invoke(app, ["evaluate", "mpe/spread", "--level", "medium", "--episodes", "40"])
    assert result.exit_code == 0
    assert result.stdout.startswith("mpe/spread medium: team return 1")
    assert "over 40 episodes" in result.stdout


def test_evaluate_of_a_missing_policy_names_the_command() -> None:
    result = CliRunner().invoke(app, ["evaluate", "mpe/tag[prey=scripted]", "--episodes", "2"])
    assert isinstance(result.exception, UsageError)
    assert "bench policy train 'mpe/tag[prey=scripted]'" in str(result.exception)


def test_prey_of_a_task_without_one_is_refused() -> None:
    result = CliRunner().invoke(app, ["train", "mpe/spread", "--prey"])
    assert isinstance(result.exception, UsageError)


def test_references_are_rewritten_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped: list[MPETask] = references.shipped_tasks()[:1]
    monkeypatch.setattr(references, "shipped_tasks", lambda: shipped)
    path = tmp_path / "references.json"
    first = references.measure_references("mpe", 20, path)
    content = path.read_bytes()
    assert references.measure_references("mpe", 20, path) == first
    assert path.read_bytes() == content
