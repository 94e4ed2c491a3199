"""How often a nominal 95% interval covers the truth: the simulation behind the table in docs/statistics.md.

    python -m leaderboard.coverage              # prints the table; --save writes results/statistics/coverage.csv

A suite has R augmented sets in each of G pairs of task and dataset, and two learners trained on every set. Half of
the variance of a score comes from the set, half from the learner; the truth is known.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from leaderboard import statistics
from tasks.common.files import write_bytes
from tasks.common.seeding import make_generator

LEARNERS = 2
TRUTH = 2.0
SUITES = 1000
RESAMPLES = 500
SHAPES = [(replicates, pairs) for replicates in (2, 3, 5, 10) for pairs in (1, 12)]
FILE = Path("statistics") / "coverage.csv"


@dataclass(frozen=True, slots=True)
class Coverage:
    """Shares of suites whose interval of the mean holds the truth, by kind of interval.

    Attributes:
        n: augmented sets (R). pairs: of task and dataset (G).
        apart: percentile intervals that resample the learners of one set independently of each other, as if
            they were replicates.
    """

    n: int
    pairs: int
    percentile: float
    expanded: float
    apart: float


def simulate(n: int, pairs: int, suites: int = SUITES, resamples: int = RESAMPLES) -> Coverage:
    """Draws suites of one shape and counts; the same arguments give the same counts."""
    generator = make_generator("coverage", n, pairs)
    together = np.repeat(np.arange(pairs), LEARNERS)  # (C,), the stratum of each cell
    apart = np.arange(pairs * LEARNERS)
    hits = np.zeros(3)
    for _ in range(suites):
        augmented = generator.normal(size=(n, pairs))[:, together]  # (R, C)
        scores = TRUTH + augmented + generator.normal(size=augmented.shape)
        joint = statistics.Resampling.draw(n, together, generator, resamples)
        separate = statistics.Resampling.draw(n, apart, generator, resamples)
        intervals = (
            statistics.estimate(scores, statistics.mean, joint),
            statistics.estimate(scores, statistics.mean, joint, expanded=True),
            statistics.estimate(scores, statistics.mean, separate),
        )
        hits += [i.low is not None and i.high is not None and i.low <= TRUTH <= i.high for i in intervals]
    percentile, expanded, drawn_apart = (float(share) for share in hits / suites)
    return Coverage(n, pairs, percentile, expanded, drawn_apart)


def as_markdown(rows: list[Coverage]) -> Iterator[str]:
    """The rows of the table in the documentation."""
    for row in rows:
        yield f"| {row.n} | {row.pairs} | {row.percentile:.0%} | {row.expanded:.0%} | {row.apart:.0%} |"


def main(
    save: Annotated[bool, typer.Option("--save", help="Write the table into the results folder.")] = False,
    results: Annotated[Path, typer.Option(envvar="AUGMARL_RESULTS", help="Folder of all results.")] = Path("results"),
) -> None:
    """Simulate how often nominal 95% intervals cover the truth."""
    rows = [simulate(n, pairs) for n, pairs in SHAPES]
    for line in as_markdown(rows):
        typer.echo(line)
    if save:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(asdict(rows[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
        write_bytes(results / FILE, text.getvalue().encode())


if __name__ == "__main__":
    typer.run(main)
