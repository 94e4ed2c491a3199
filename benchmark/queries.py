"""Records as a table: DuckDB over one row a run, read-only and without access to anything else."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from benchmark.records import RunRecord, read_records
from tasks.common.errors import UsageError

COLUMNS: dict[str, str] = {
    "cell": "VARCHAR",
    "protocol": "VARCHAR",
    "task": "VARCHAR",
    "dataset": "VARCHAR",
    "augmenter": "VARCHAR",
    "learner": "VARCHAR",
    "seed": "BIGINT",
    "status": "VARCHAR",
    "engine": "VARCHAR",
    "variant": "VARCHAR",
    "normalised": "DOUBLE",
    "mean_return": "DOUBLE",
    "win_rate": "DOUBLE",
    "scores": "JSON",
    "diagnosis": "JSON",
    "dataset_mean_return": "DOUBLE",
    "synthetic_share": "DOUBLE",
    "wall_seconds": "DOUBLE",
    "peak_memory_bytes": "BIGINT",
    "timings": "JSON",
    "commit": "VARCHAR",
    "device": "VARCHAR",
    "finished": "VARCHAR",
    "reason": "VARCHAR",
    "record": "JSON",
}
"""Columns of the table `runs`; `record` is the whole document."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows of a query."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def query(sql: str, results: Path) -> Answer:
    """The answer to one SQL statement about the table `runs`.

    Raises:
        UsageError: if the statement fails (the message is DuckDB's), or if it is not exactly one.
        RecordError: if a record cannot be read.
    """
    import duckdb

    connection = duckdb.connect(":memory:")
    try:
        columns = ", ".join(f'"{name}" {kind}' for name, kind in COLUMNS.items())
        connection.execute(f"CREATE TABLE runs ({columns})")
        rows = [_row(record) for record in read_records(results)]
        if rows:
            places = ", ".join("?" * len(COLUMNS))
            connection.executemany(f"INSERT INTO runs VALUES ({places})", rows)
        connection.execute("SET enable_external_access=false")  # from here on: no files, no network, no extensions
        connection.execute("SET lock_configuration=true")
        statements = connection.extract_statements(sql)
        if len(statements) != 1:
            raise UsageError(f"The query has {len(statements)} statements. Give exactly one.")
        answer = connection.execute(statements[0])
        description = answer.description or []
        return Answer(tuple(column[0] for column in description), answer.fetchall())
    except duckdb.Error as error:
        raise UsageError(f"The query failed: {error} The table is `runs`, with {', '.join(COLUMNS)}.") from error
    finally:
        connection.close()


def _row(record: RunRecord) -> list[Any]:
    cell, scores = record.cell, record.scores
    costs = record.timings.values()
    peaks = [timing.peak_memory_bytes for timing in costs if timing.peak_memory_bytes is not None]
    values: dict[str, Any] = {
        "cell": cell.name,
        **cell.model_dump(),
        "status": record.status,
        "engine": record.engine,
        "variant": record.variant,
        "normalised": scores.get("normalised"),
        "mean_return": scores.get("return"),
        "win_rate": scores.get("win_rate"),
        "scores": json.dumps(scores),
        "diagnosis": json.dumps(record.diagnosis),
        "dataset_mean_return": record.dataset_summary.get("mean_return"),
        "synthetic_share": record.dataset_summary.get("synthetic_share"),
        "wall_seconds": sum(timing.wall_seconds / timing.together for timing in costs),
        "peak_memory_bytes": max(peaks, default=None),
        "timings": json.dumps({stage: timing.model_dump() for stage, timing in record.timings.items()}),
        "commit": record.provenance.commit,
        "device": record.provenance.device,
        "finished": record.provenance.finished,
        "reason": record.failure.reason if record.failure else None,
        "record": record.model_dump_json(),
    }
    return [values[name] for name in COLUMNS]


def as_documents(answer: Answer) -> list[dict[str, Any]]:
    """The answer as plain JSON values, one object a row.

    Numbers that JSON lacks are the words `NaN`, `Infinity` and `-Infinity`; moments are ISO 8601; columns of type JSON
    are their text.

    Raises:
        UsageError: if two columns share a name, since an object has each name once.
    """
    twice = next((name for i, name in enumerate(answer.columns) if name in answer.columns[:i]), None)
    if twice is not None:
        raise UsageError(f"Two columns are called {twice!r}. Rename one with `as`, or ask for --csv.")
    return [dict(zip(answer.columns, map(_plain, row), strict=True)) for row in answer.rows]


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def as_csv(answer: Answer) -> str:
    """The answer as CSV, with a header."""
    import csv
    import io

    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(answer.columns)
    writer.writerows(answer.rows)
    return buffer.getvalue()
