"""The documentation names what there is: commands, exit codes, variables, fields of records."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from benchmark.cli.lazy import COMMANDS
from benchmark.matrix import MatrixFile, matrix_names
from benchmark.protocols import PROTOCOLS
from benchmark.queries import COLUMNS
from benchmark.records import SCHEMA_VERSION, CurvePoint, Evaluation, RunRecord
from tasks.common.errors import ExitCode
from tests.unit.benchmark.conftest import RunSmoke

DOCS = Path(__file__).parents[3] / "docs"
HARNESS = (DOCS / "harness.md").read_text()
FORMAT = (DOCS / "record-format.md").read_text()


def named(text: str) -> set[str]:
    """Everything in backquotes."""
    return set(re.findall(r"`([^`\n]+)`", text))


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_is_in_the_documentation(name: str) -> None:
    assert f"bench {name}" in HARNESS
    command = COMMANDS[name].load(name)
    for child in getattr(command, "commands", {}):
        assert f"`{child}`" in HARNESS or f"bench {name} {child}" in HARNESS


def test_every_exit_code_matrix_key_and_protocol_is_described() -> None:
    for code in ExitCode:
        assert f"| {int(code)} |" in HARNESS
    for key in MatrixFile.model_fields:
        assert re.search(rf"^{key}:", HARNESS, re.MULTILINE)
    for name in (*matrix_names(), *PROTOCOLS):
        assert name in HARNESS


def test_the_numbers_of_the_protocols_are_those_of_the_code() -> None:
    for protocol in PROTOCOLS.values():
        for number in (protocol.updates, protocol.dataset_episodes.get("mpe", protocol.dataset_episodes["default"])):
            assert number is None or f"{number:,}" in HARNESS


def test_every_field_of_a_record_is_described() -> None:
    text = named(FORMAT)
    for model in (RunRecord, Evaluation, CurvePoint):
        assert set(model.model_fields) <= text
    for field in RunRecord.model_fields.values():
        for inner in nested(field.annotation):
            assert set(inner.model_fields) <= text
    assert f"`schema_version` is {SCHEMA_VERSION}" in FORMAT
    assert set(COLUMNS) <= text | {"protocol", "task", "dataset", "augmenter", "learner", "seed"}


def test_a_real_record_has_the_described_fields_and_no_other(run_smoke: RunSmoke) -> None:
    document = run_smoke()[0].model_dump(mode="json")
    text = named(FORMAT)
    assert set(document) == set(RunRecord.model_fields)
    for part in ("dataset_summary", "scores", "provenance", "artefacts", "cell"):
        assert set(document[part]) <= text, part
    assert set(document["diagnosis"]) - text == {"final_loss", "share_of_synthetic_kept"}  # what `bc` tells
    assert RunRecord.model_validate(document)


def nested(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for argument in getattr(annotation, "__args__", ()) for model in nested(argument)]
