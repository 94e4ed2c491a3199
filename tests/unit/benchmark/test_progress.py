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
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    with progress.make_watcher(plan, workers=1) as watch:
        for event in events():
            clock[0] += 50.0  # the group ends after 150 s
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


def long_stage() -> list[Event]:
    """A generation that goes on at 2,000,000 of 5,000,000, and draws 400,000 more between two reports."""
    job = events()[0].job
    steps = range(2_000_000, 5_000_001, 400_000)
    return [Started(job), *(Progressed(job, "augmented", done, 5_000_000, "synther: transitions") for done in steps)]


def test_a_stage_that_takes_long_tells_what_is_left_by_its_own_speed(
    plan: RunPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    paces, told, clock = progress._StagePaces(), [], [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    for event in long_stage()[1:]:
        assert isinstance(event, Progressed)
        told.append(paces.remaining(event))
        clock[0] += 240.0
    assert told[0] == ""
    assert told[1] == ", about 26 min left"  # 2.6 million at 400,000 in 240 s
    assert told[-1] == ", about 2 min left"
    first = long_stage()[1]
    assert isinstance(first, Progressed)
    assert paces.remaining(first) == ""  # it has begun again


def test_elsewhere_a_long_stage_has_a_line_now_and_then(
    plan: RunPlan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with progress.make_watcher(plan, workers=1) as watch:
        for event in long_stage():
            watch(event)
            clock[0] += 240.0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2  # of 33 minutes
    assert re.search(r"bc augmented: synther: transitions, 2,800,000 of 5,000,000, about 2\d min left$", lines[0])
