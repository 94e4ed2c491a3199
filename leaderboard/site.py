"""Builds the site from a results folder: everything new, then put in place at once."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmark.matrix import Matrix
from benchmark.records import RunRecord, read_records
from leaderboard.pages import cells, curves, failures, index, papers, protocol, quality, ranking
from leaderboard.pages.context import HERE, BoardSite, Site
from leaderboard.published import read_published
from leaderboard.scores import Board, group
from tasks.common.errors import NothingSelectedError, StorageError, UsageError

MARKER = "site.json"  # says that a folder is ours to replace
ASSETS = ("style.css", "tables.js")


@dataclass(frozen=True)
class Built:
    """What was built: the front page, its boards, and sentences about what was left out."""

    index: Path
    boards: tuple[Board, ...]
    skipped: tuple[str, ...]


def build(results: Path, out: Path, *, include_unpublished: bool = False, matrix: Matrix | None = None) -> Built:
    """Reads all records under `results` and replaces the site at `out`. The same records give the same bytes.

    A board asks every augmenter for every cell and seed of it. A matrix of fewer cells or replicates than others under
    the same protocol has ranks only on a board of its own.

    Args:
        results: the folder of records.
        out: the site.
        include_unpublished: protocols for tests, too.
        matrix: only the records of its cells and seeds; None: all.

    Raises:
        NothingSelectedError: if there is no record that may be published.
        RecordError: if a record is damaged, or records contradict each other.
        UsageError: if `out` holds something other than a site.
        StorageError: if the site cannot be written; the old one then stays.
    """
    boards, skipped = publishable_boards(results, include_unpublished=include_unpublished, matrix=matrix)
    if not boards:
        raise NothingSelectedError(
            " ".join(
                [f"There is nothing to publish in {results}.", *skipped, "`bench run --matrix quick` makes records."]
            )
        )
    _refuse_foreign_folder(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
            folder = Path(scratch) / "site"
            _write(Site(folder, tuple(boards), tuple(read_published(results)), skipped))
            _put_in_place(folder, out, Path(scratch) / "old")
    except OSError as error:
        raise StorageError(
            f"Could not write the site to {out}: {error.strerror or error}. The old one stays."
        ) from error
    return Built(out / "index.html", tuple(boards), skipped)


def publishable_boards(
    results: Path, *, include_unpublished: bool = False, matrix: Matrix | None = None
) -> tuple[list[Board], tuple[str, ...]]:
    """The boards of a results folder, or of a matrix in it; a sentence for each protocol that is never published."""
    shown: list[RunRecord] = []
    hidden: dict[str, int] = {}
    for record in read_records(results):
        if matrix is not None and not matrix.holds(record.cell):
            continue
        if include_unpublished or _publishable(record):
            shown.append(record)
        else:
            hidden[record.cell.protocol] = hidden.get(record.cell.protocol, 0) + 1
    skipped = tuple(
        f"Skipped {count} records of protocol {name}: it is for tests or varied, and never published."
        for name, count in sorted(hidden.items())
    )
    return group(shown), skipped


def _publishable(record: RunRecord) -> bool:
    name = record.cell.protocol.partition("[")[0]
    return name != "smoke" and record.protocol_settings.get("publishable", True) is not False


def _write(site: Site) -> None:
    boards = [BoardSite(site, board) for board in site.boards]
    for board in boards:
        for page in (ranking, cells, curves, quality, papers, failures, protocol):
            page.publish(board)
    index.publish(site, boards)
    for name in ASSETS:
        site.write(name, (HERE / "static" / name).read_text(encoding="utf-8"))
    listing = [{"folder": board.key.slug, "title": board.key.title, "runs": len(board.runs)} for board in site.boards]
    site.write_json(MARKER, {"made_by": "bench leaderboard build", "boards": listing, "skipped": site.skipped})


def _put_in_place(folder: Path, out: Path, aside: Path) -> None:
    if out.exists():
        out.rename(aside)
    try:
        folder.rename(out)
    except OSError:
        if aside.exists():
            aside.rename(out)
        raise


def _refuse_foreign_folder(out: Path) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        ours = "made_by" in json.loads((out / MARKER).read_bytes())
    except (OSError, ValueError):
        ours = False
    if not ours:
        raise UsageError(f"{out} exists and is no site of ours; building would replace it. Choose another --out.")


__all__ = ["Built", "build", "publishable_boards"]
