"""What every page is made from, and where it is written."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2

from leaderboard.published import PublishedValue
from leaderboard.ranking import Ranking, rank, selections
from leaderboard.scores import CONTROLS, Board, Selection
from leaderboard.statistics import Estimate
from tasks.common.files import write_bytes

HERE = Path(__file__).parent
Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Site:
    """A site under construction.

    Attributes:
        folder: where files go. boards: what is published. skipped: sentences about what is not.
    """

    folder: Path
    boards: tuple[Board, ...]
    published: tuple[PublishedValue, ...]
    skipped: tuple[str, ...] = ()

    @cached_property
    def _environment(self) -> jinja2.Environment:
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        environment.filters.update(number=number, interval=interval, estimate=estimate_text)
        environment.globals.update(controls=CONTROLS)
        return environment

    def render(self, template: str, path: str, **values: object) -> None:
        """Writes a page from a template. `path` is relative to the site; `root` leads back from it."""
        root = "../" * path.count("/")
        text = self._environment.get_template(template).render(root=root, page=path.rpartition("/")[2], **values)
        self.write(path, text)

    def write(self, path: str, text: str) -> None:
        """Writes a file of the site."""
        write_bytes(self.folder / path, text.encode())

    def write_json(self, path: str, document: object) -> None:
        """Writes a JSON document; a NaN in it is an error."""
        self.write(path, json.dumps(document, indent=1, allow_nan=False) + "\n")

    def write_csv(self, path: str, rows: Sequence[Mapping[str, Scalar]]) -> None:
        """Writes rows with equal keys; empty for None."""
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self.write(path, buffer.getvalue())


@dataclass(frozen=True)
class BoardSite:
    """One board of a site, with its rankings computed once."""

    site: Site
    board: Board

    @cached_property
    def rankings(self) -> dict[Selection, Ranking]:
        """The ranking of every selection, `all` first."""
        return {selection: rank(self.board, selection) for selection in selections(self.board)}

    @property
    def overall(self) -> Ranking:
        """The ranking of the whole board."""
        return self.rankings[Selection()]

    def render(self, template: str, name: str, **values: Any) -> None:
        """Writes a page into the board's folder."""
        self.site.render(template, f"{self.board.key.slug}/{name}", board=self.board, **values)

    def path(self, name: str) -> str:
        """Where a file of this board lies."""
        return f"{self.board.key.slug}/{name}"


def number(value: float | None, digits: int = 1) -> str:
    """A number for a table: real minus sign, no negative zero, a dash for nothing."""
    if value is None:
        return "–"
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else f"{0:.{digits}f}"


def interval(estimate: Estimate | None, digits: int = 1) -> str:
    """`[low, high]`, or nothing where there is no interval."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    return f"[{number(estimate.low, digits)}, {number(estimate.high, digits)}]"


def estimate_text(estimate: Estimate | None, digits: int = 1) -> str:
    """`value [low, high]`."""
    if estimate is None:
        return "–"
    return f"{number(estimate.value, digits)} {interval(estimate, digits)}".strip()
