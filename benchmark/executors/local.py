"""Jobs as processes of this machine: one a cell group, killed whole on a time-out or over a memory limit."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from benchmark.executors.base import Ended, EndKind, Event, Job, Progressed, Recorded, Started, job_to_json
from benchmark.memory import resident_bytes
from benchmark.records import RunRecord

_POLL_SECONDS = 0.1
_GRACE_SECONDS = 3.0  # a worker that watches its deadline stops by itself, and says where
_LINGER_SECONDS = 5.0  # for a worker that is done, or gone, while a child or a thread of a method holds its output
_TAIL_LINES = 20
_TAIL_BYTES = 16_384


class LocalExecutor:
    """Runs up to `workers` jobs at a time, each isolated in its own process group.

    Args:
        workers: processes at once.
        command: what starts a worker; tests replace it.
    """

    def __init__(self, workers: int, command: Sequence[str] = (sys.executable, "-m", "benchmark.worker")) -> None:
        self.workers = max(1, workers)
        self.command = tuple(command)

    def run(self, jobs: Sequence[Job]) -> Iterator[Event]:
        """Events of all jobs; closing the iterator kills every process that it started."""
        waiting, running = deque(jobs), list[_Process]()
        lines: queue.Queue[tuple[_Process, str | None]] = queue.Queue()
        try:
            while waiting or running:
                while waiting and len(running) < self.workers:
                    process = _Process.start(waiting.popleft(), self.command, lines)
                    running.append(process)
                    yield Started(process.job)
                with suppress(queue.Empty):
                    process, line = lines.get(timeout=_POLL_SECONDS)
                    if process not in running:  # what a child says that outlived its worker
                        continue
                    if line is None:  # the worker closed its end: it is over
                        running.remove(process)
                        yield process.end()
                    else:
                        event = process.read(line)
                        if event is not None:
                            yield event
                for process in list(running):
                    process.enforce_limits()
                    if process.abandoned:
                        running.remove(process)
                        yield process.end()
        finally:
            for process in running:
                process.kill()
                process.close()


@dataclass(eq=False)
class _Process:
    """A worker and what is known of it. `over_since`: when it was first seen to be done or gone."""

    job: Job
    handle: subprocess.Popen[str]
    log: IO[bytes]
    started: float
    stage: str = "start"
    verdict: EndKind | None = None
    reason: str = ""
    over_since: float | None = None
    reader: threading.Thread | None = None

    @classmethod
    def start(cls, job: Job, command: Sequence[str], lines: queue.Queue[tuple[_Process, str | None]]) -> _Process:
        log = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `close`
        threads = str(job.threads)
        environment = {
            **os.environ,
            **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads),
            "AUGMARL_HOME": job.home,
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # what CUDA needs to be deterministic
            "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", str(Path(job.home) / "compiled")),
            "PYTHONUNBUFFERED": "1",
        }
        handle = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
            start_new_session=True,  # a group of its own: Ctrl-C reaches the driver alone, and one kill ends all
        )
        process = cls(job, handle, log, time.monotonic())
        assert handle.stdin is not None  # a pipe
        with suppress(BrokenPipeError):
            handle.stdin.write(job_to_json(job) + "\n")
            handle.stdin.flush()

        def forward() -> None:
            assert handle.stdout is not None  # a pipe
            with handle.stdout:  # closed here: closing what another thread reads would wait for it
                for line in handle.stdout:
                    lines.put((process, line))
            lines.put((process, None))

        process.reader = threading.Thread(target=forward, daemon=True)
        process.reader.start()
        return process

    @property
    def abandoned(self) -> bool:
        """Whether killing its group did not end its output: a child has left the group, and nobody waits for it."""
        return self.over_since is not None and time.monotonic() - self.over_since > 2 * _LINGER_SECONDS

    def read(self, line: str) -> Event | None:
        """The event of one line; None if it only concerns this class."""
        try:
            event: dict[str, Any] = json.loads(line)
            kind = event.pop("type")
        except (ValueError, KeyError, AttributeError, TypeError):
            return None  # half a line of a worker that was killed
        match kind:
            case "progress":
                self.stage = event["stage"]
                return Progressed(self.job, **event)
            case "record":
                return Recorded(self.job, RunRecord.model_validate(event["record"]))
            case "done":
                self.verdict = "done"
            case "fatal":
                self.verdict = "fatal" if event["kind"] == "StorageError" else "crashed"
                self.reason = event["reason"]
        return None

    def enforce_limits(self) -> None:
        """Kills the process group once it is over its time or its memory, or lingers when it is over."""
        if self.verdict is not None or self.handle.poll() is not None:
            self.over_since = self.over_since or time.monotonic()
            if time.monotonic() - self.over_since > _LINGER_SECONDS:
                self.kill()
            return
        seconds, limit = time.monotonic() - self.started, self.job.memory_limit_bytes
        if seconds > self.job.timeout_seconds + _GRACE_SECONDS:
            self.verdict = "timeout"
            self.reason = (
                f"Stopped after {seconds:.0f} s, the time limit of a cell group. Raise --timeout, or make it smaller."
            )
            self.kill()
        elif limit is not None:
            used = resident_bytes(self.handle.pid)
            if used > limit:
                self.verdict = "oom"
                self.reason = (
                    f"Stopped at {used / 2**20:.0f} MiB of memory; the limit is {limit / 2**20:.0f} MiB "
                    "(--memory-limit)."
                )
                self.kill()

    def end(self) -> Ended:
        """How it ended, once its output is closed."""
        status = self._wait()
        self.kill()  # what the worker may have left behind
        kind, reason = self.verdict, self.reason
        if kind is None or (kind == "done" and status not in (0, -signal.SIGKILL)):  # we kill those that linger
            kind, reason = "crashed", _reason_of(status)
        tail = self._tail()
        self.close()
        return Ended(self.job, kind, self.stage, reason, tail, time.monotonic() - self.started)

    def kill(self) -> None:
        """Ends the worker and everything it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.handle.pid, signal.SIGKILL)

    def close(self) -> None:
        """Reaps the process and closes its files."""
        self._wait()
        if self.handle.stdin is not None:
            with suppress(OSError, ValueError):
                self.handle.stdin.close()
        if self.reader is not None:
            self.reader.join(timeout=1.0)
        self.log.close()

    def _wait(self) -> int:
        try:
            return self.handle.wait(timeout=10)
        except subprocess.TimeoutExpired:  # it closed its output and stays: a plugin's thread, for example
            self.kill()
            return self.handle.wait()

    def _tail(self) -> tuple[str, ...]:
        size = self.log.seek(0, os.SEEK_END)
        self.log.seek(max(0, size - _TAIL_BYTES))
        return tuple(self.log.read().decode(errors="replace").splitlines()[-_TAIL_LINES:])


def _reason_of(status: int) -> str:
    if status >= 0:
        return f"The worker ended with exit status {status} before it was done."
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    hint = " The system may have run out of memory." if name == "SIGKILL" else ""
    return f"The worker was ended by {name}.{hint}"
