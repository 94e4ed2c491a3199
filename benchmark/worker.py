"""One cell group in a process of its own: `python -m benchmark.worker`, started by an executor.

The job comes as one line of JSON on standard input, which then stays open: when it ends, the driver is gone and the
worker leaves too. Events go out as lines of JSON on the file that was standard output; whatever else is printed goes
to standard error, the log.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
import threading
import time
from typing import IO, Any

from benchmark.executors.base import Job, job_from_json
from benchmark.memory import keep_freed_memory

_REPORT_SECONDS = 0.5


def main() -> int:
    """Runs the job on standard input; returns the exit status."""
    events = _take_over_standard_output()
    keep_freed_memory()
    job = job_from_json(sys.stdin.readline())
    _die_with_the_driver()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    channel = _Channel(events)
    try:
        _run(job, channel)
    except Exception as error:  # the last line of defence: the driver must hear of everything
        from tasks.common.errors import AugMARLError

        logging.getLogger(__name__).exception("The worker failed")
        shown = str(error) if isinstance(error, AugMARLError) else f"{type(error).__name__}: {error}"
        channel.send(type="fatal", kind=type(error).__name__, reason=shown)
        return 1
    channel.send(type="done")
    return 0


def _run(job: Job, channel: _Channel) -> None:
    import torch

    from benchmark.executors.inline import run_job

    torch.use_deterministic_algorithms(True, warn_only=True)
    run_job(job, channel.progress, channel.record)


class _Channel:
    """Events to the driver, progress at most twice a second."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._last = 0.0

    def send(self, **event: Any) -> None:
        self._stream.write(json.dumps(event) + "\n")
        self._stream.flush()

    def progress(self, stage: str, done: int, total: int, message: str) -> None:
        if time.monotonic() - self._last >= _REPORT_SECONDS:
            self._last = time.monotonic()
            self.send(type="progress", stage=stage, done=done, total=total, message=message)

    def record(self, record: Any) -> None:
        self.send(type="record", record=record.model_dump(mode="json"))


def _take_over_standard_output() -> IO[str]:
    """The old standard output, for events alone; prints of methods and libraries go to the log from now on."""
    private = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(private, "w", encoding="utf-8")


def _die_with_the_driver() -> None:
    """Ends this process when the driver does, even one killed by SIGKILL."""
    if sys.platform == "linux":  # also while a library holds the interpreter
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

    def watch() -> None:
        while os.read(0, 4096):  # not `sys.stdin`, whose lock would break the interpreter's own end
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="driver-watch").start()


if __name__ == "__main__":
    sys.exit(main())
