"""The executor against small workers that misbehave: scripts without torch, so that each takes milliseconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from benchmark.executors.base import Ended, Event, Job, Progressed, Started, job_from_json, job_to_json
from benchmark.executors.local import LocalExecutor
from tests.unit.benchmark.conftest import smoke_group

PROLOGUE = "import json, os, signal, subprocess, sys, time; job = json.loads(sys.stdin.readline())\n"
SEND = "print(json.dumps(dict({0})), flush=True)\n"


def job(timeout: float = 20.0, memory: int | None = None, **axes: str) -> Job:
    return Job(
        group=smoke_group(**axes),
        home="/nowhere",
        device="cpu",
        threads=1,
        timeout_seconds=timeout,
        memory_limit_bytes=memory,
        origin={},
    )


def run(body: str, jobs: Sequence[Job] | None = None, workers: int = 1) -> list[Event]:
    executor = LocalExecutor(workers, (sys.executable, "-c", PROLOGUE + body))
    return list(executor.run([job()] if jobs is None else jobs))


def the_end(events: list[Event]) -> Ended:
    (ended,) = [event for event in events if isinstance(event, Ended)]
    return ended


def test_jobs_travel_as_text() -> None:
    assert job_from_json(job_to_json(job())) == job()


def test_events_come_in_order_and_prints_do_not_disturb_them() -> None:
    events = run(
        "print('noise', file=sys.stderr)\n"
        + SEND.format("type='progress', stage='policy', done=1, total=2, message='m'")
        + "print('not json')\n"
        + SEND.format("type='done'")
    )
    assert [type(event) for event in events] == [Started, Progressed, Ended]
    assert the_end(events).kind == "done"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL. The system may have run out of memory"),
        ("sys.exit(7)", "exit status 7"),
        ("raise ValueError('boom')", "exit status 1"),
        (SEND.format("type='done'") + "sys.exit(3)", "exit status 3"),
        (SEND.format("type='fatal', kind='KeyError', reason='boom'") + "sys.exit(1)", "boom"),
    ],
)
def test_a_worker_that_dies_is_a_crash_with_its_reason(body: str, reason: str) -> None:
    ended = the_end(run(body))
    assert ended.kind == "crashed"
    assert reason in ended.reason


def test_the_last_lines_of_the_log_are_kept_and_the_stage_is_named() -> None:
    body = SEND.format("type='progress', stage='policy', done=1, total=2, message='m'")
    body += "[print(f'line {i}', file=sys.stderr) for i in range(100)]\nraise ValueError('boom')"
    ended = the_end(run(body))
    assert ended.stage == "policy"
    assert len(ended.log_tail) == 20
    assert ended.log_tail[-1] == "ValueError: boom"


def test_a_full_disk_is_fatal() -> None:
    ended = the_end(run(SEND.format("type='fatal', kind='StorageError', reason='full'") + "sys.exit(1)"))
    assert (ended.kind, ended.reason) == ("fatal", "full")


def test_a_worker_over_its_time_is_killed_with_all_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmark.executors.local._GRACE_SECONDS", 0.0)
    pid_file = tmp_path / "pid"
    body = f"child = subprocess.Popen(['sleep', '60']); open({str(pid_file)!r}, 'w').write(str(child.pid))\n"
    ended = the_end(run(body + "time.sleep(60)", [job(timeout=1.0)]))
    assert ended.kind == "timeout"
    assert "--timeout" in ended.reason
    assert_gone(int(pid_file.read_text()))


def test_a_worker_over_its_memory_is_killed() -> None:
    body = "hog = bytearray(200 * 2**20)\nfor i in range(0, len(hog), 4096): hog[i] = 1\ntime.sleep(60)"
    ended = the_end(run(body, [job(memory=120 * 2**20)]))
    assert ended.kind == "oom"
    assert "120 MiB" in ended.reason


def test_memory_within_the_limit_is_no_problem() -> None:
    assert the_end(run("time.sleep(0.3)\n" + SEND.format("type='done'"), [job(memory=120 * 2**20)])).kind == "done"


def test_children_that_a_worker_leaves_behind_are_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    body = "child = subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL); "
    body += f"open({str(pid_file)!r}, 'w').write(str(child.pid))\n"
    assert the_end(run(body + SEND.format("type='done'"))).kind == "done"
    assert_gone(int(pid_file.read_text()))


def test_closing_the_events_kills_what_still_runs(tmp_path: Path) -> None:
    executor = LocalExecutor(2, (sys.executable, "-c", PROLOGUE + "time.sleep(60)"))
    others = set(psutil.Process().children())
    events = executor.run([job(), job(learner="bc50"), job(augmenter="noise")])
    assert isinstance(next(events), Started)
    assert isinstance(next(events), Started)
    mine = set(psutil.Process().children()) - others
    assert len(mine) >= 2
    events.close()  # type: ignore[attr-defined]  # a generator
    for child in mine:
        assert_gone(child.pid)


def test_no_more_than_the_workers_run_at_once() -> None:
    jobs = [job(), job(learner="bc50"), job(augmenter="noise")]
    events = run("time.sleep(0.2)\n" + SEND.format("type='done'"), jobs, workers=2)
    running, most = 0, 0
    for event in events:
        running += isinstance(event, Started)
        running -= isinstance(event, Ended)
        most = max(most, running)
    assert most == 2
    assert sum(isinstance(event, Ended) for event in events) == 3


def test_one_crash_does_not_stop_the_others() -> None:
    jobs = [job(), job(learner="bc50")]
    body = "if job['group']['learner'] == 'bc': os.kill(os.getpid(), 9)\n" + SEND.format("type='done'")
    kinds = {event.job.group.learner: event.kind for event in run(body, jobs) if isinstance(event, Ended)}
    assert kinds == {"bc": "crashed", "bc50": "done"}


def assert_gone(pid: int) -> None:
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} is still there")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (SEND.format("type='done'"), "done"),
        ("os.kill(os.getpid(), signal.SIGKILL)\n", "crashed"),
        (
            SEND.format("type='done'") + "import threading; threading.Thread(target=time.sleep, args=(60,)).start()",
            "done",
        ),
    ],
)
@pytest.mark.parametrize("leaves_the_group", [False, True])
def test_a_child_or_thread_that_holds_the_output_keeps_nobody_waiting(
    body: str, kind: str, leaves_the_group: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmark.executors.local._LINGER_SECONDS", 0.3)
    pid_file = tmp_path / "pid"
    fork = (
        "if os.fork() == 0:\n"
        f"    if {leaves_the_group}: os.setsid()\n"
        f"    open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(60); os._exit(0)\n"
        f"while not os.path.exists({str(pid_file)!r}) or not open({str(pid_file)!r}).read(): time.sleep(0.01)\n"
    )
    started = time.monotonic()
    ended = the_end(run(fork + body))
    assert ended.kind == kind
    assert time.monotonic() - started < 10
    if leaves_the_group:
        psutil.Process(int(pid_file.read_text())).kill()
    assert_gone(int(pid_file.read_text()))


def test_lines_that_are_no_events_are_left_out() -> None:
    assert the_end(run("print('3'); print('[1]'); print('{}')\n" + SEND.format("type='done'"))).kind == "done"
