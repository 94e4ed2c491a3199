"""How a run is watched, on a terminal and elsewhere."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from benchmark.artefacts import ArtefactStore
from benchmark.cli import progress
from benchmark.executors.base import Ended, Event, Job, Progressed, Started
from benchmark.planning import RunPlan, make_run_plan
from tests.unit.benchmark.conftest import smoke_group

GROUPS = (smoke_group(augmenter="rad-s[low=0.5]"), smoke_group(augmenter="noise"))


class Terminal(io.StringIO):
    """Says that it is one."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def plan(store: ArtefactStore, tmp_path: Path) -> RunPlan:
    return make_run_plan(GROUPS, store=store, results=tmp_path)


def events() -> list[Event]:
    job = Job(
        group=GROUPS[0],
        home="/nowhere",
        device="cpu",
        threads=1,
        timeout_seconds=1.0,
        memory_limit_bytes=None,
        origin={},
    )
    return [Started(job), Progressed(job, "policy", 1, 2, "what [/a plugin] says"), Ended(job, "done", seconds=90.0)]


def watched(plan: RunPlan, monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> str:
    clock = iter(range(0, 100_000, 100))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    with progress.make_watcher(plan, workers=1) as watch:
        for event in events():
            watch(event)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())


def test_a_terminal_shows_names_whole_what_plugins_say_and_the_time_left(
    plan: RunPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = watched(plan, monkeypatch, Terminal())
    assert "smoke/mpe/spread/random/rad-s[low=0.5]/bc" in text
    assert re.search(r"cell groups, about \S+ (s|min|h) left", text)


def test_elsewhere_a_line_a_group_says_the_same(plan: RunPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    text = watched(plan, monkeypatch, io.StringIO())
    assert text == "[1/2] smoke/mpe/spread/random/rad-s[low=0.5]/bc: done in 90.0 s (no record yet), about 2 min left\n"
