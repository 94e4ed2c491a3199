"""A timing record: the measurements of one `bench timing`, with where they were taken."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from rich.table import Table

from benchmark.provenance import collect_provenance
from benchmark.records import Provenance
from benchmark.timing.measurements import Measurement
from tasks.common.files import write_bytes

SCHEMA_VERSION = 1


class TimingRecord(BaseModel):
    """All measurements of one call."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA_VERSION
    provenance: Provenance
    measurements: list[Measurement]


def make_record(measurements: list[Measurement], device: str) -> TimingRecord:
    """The record of these measurements, taken just now on this machine."""
    return TimingRecord(provenance=collect_provenance(device), measurements=measurements)


def save(record: TimingRecord, results: Path) -> Path:
    """Writes the record under `results/timings`, named by the minute it was taken. Raises StorageError."""
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    path = results / "timings" / f"{moment}-{record.provenance.device.replace(':', '-')}.json"
    write_bytes(path, (record.model_dump_json(indent=1) + "\n").encode())
    return path


def as_table(measurements: list[Measurement]) -> Table:
    """The measurements as a terminal table; what exactly was run is in the JSON form."""
    table = Table(box=None, header_style="bold")
    table.add_column("measurement", overflow="fold")
    for column in ("median", "range", "target", ""):
        table.add_column(column, no_wrap=True, justify="left" if column in ("target", "") else "right")
    marks = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}
    for m in measurements:
        target = "" if m.target is None else f"{'≥' if m.comparison == 'at least' else '≤'} {m.target:g} {m.unit}"
        table.add_row(m.name, f"{_short(m.value)} {m.unit}", f"{_short(m.low)}-{_short(m.high)}", target, marks[m.met])
    return table


def _short(value: float) -> str:
    if abs(value) >= 1e4:
        return f"{value / 1e3:,.0f}k"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
