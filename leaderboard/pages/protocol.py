"""What was measured with what: protocol, engine, methods, data, hardware and versions, read off the records."""

from __future__ import annotations

import json
from collections import Counter

from benchmark.records import Method, RunRecord
from leaderboard.pages.context import BoardSite

Table = list[tuple[str, str]]


def publish(site: BoardSite) -> None:
    """Writes `protocol.html` of a board."""
    board = site.board
    records = [run for name in board.augmenters for run in board.records(name)]
    site.render(
        "protocol.html.jinja",
        "protocol.html",
        settings=_settings(records),
        tasks=sorted({(r.cell.task, r.engine, r.engine_version, r.variant, r.team_reward) for r in records}),
        augmenters=_methods([r.augmenter for r in records]),
        learners=_methods([r.learner for r in records]),
        data=_data(records),
        machines=_counted([_machine(r) for r in records]),
        versions=_counted([_versions(r) for r in records]),
        commits=_counted([_commit(r) for r in records]),
        first=min(r.provenance.started for r in records),
        last=max(r.provenance.finished for r in records),
        n_records=len(records),
    )


def _settings(records: list[RunRecord]) -> Table:
    values: dict[str, list[str]] = {}
    for record in records:
        for name, value in record.protocol_settings.items():
            text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
            if text not in values.setdefault(name, []):
                values[name].append(text)
    return [(name, " or ".join(sorted(texts))) for name, texts in sorted(values.items())]


def _methods(methods: list[Method | None]) -> list[tuple[str, int, str]]:
    """Name, version and config of every method that ran."""
    return sorted(
        {
            (m.name, m.version, ", ".join(f"{key}={value}" for key, value in sorted(m.config.items())))
            for m in methods
            if m is not None
        }
    )


def _data(records: list[RunRecord]) -> list[tuple[str, str, str, str]]:
    """Task, dataset, digest of the card, and the summary of the replicate with the lowest seed of `original`."""
    rows: dict[tuple[str, str, str], str] = {}
    for record in sorted(records, key=lambda r: (r.cell.augmenter != "original", r.cell.seed)):
        digest = (record.artefacts.dataset_card_sha256 or "")[:12]
        summary = ", ".join(f"{name} {value:g}" for name, value in sorted(record.dataset_summary.items()))
        rows.setdefault((record.cell.task, record.cell.dataset, digest), summary)
    return [(*key, summary) for key, summary in sorted(rows.items())]


def _counted(texts: list[str]) -> list[tuple[str, int]]:
    return sorted(Counter(texts).items())


def _machine(record: RunRecord) -> str:
    p = record.provenance
    gpu = f", {p.gpu}" if p.gpu else ""
    memory = p.memory_bytes / 2**30
    ran = f"ran on {p.device}, {p.torch_threads} thread(s)"
    return f"{p.cpu}, {p.cpu_count} cores, {memory:.0f} GiB{gpu}; {p.platform}; {ran}"


def _versions(record: RunRecord) -> str:
    p = record.provenance
    libraries = ", ".join(f"{name} {version}" for name, version in sorted(p.libraries.items()))
    return f"AugMARL {p.augmarl}, Python {p.python}, {libraries}"


def _commit(record: RunRecord) -> str:
    p = record.provenance
    return (p.commit or "unknown") + (" with uncommitted changes" if p.dirty else "")
