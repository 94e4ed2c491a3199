"""How soon the command line answers, in fresh processes (design, section 1: under 0.5 s)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from benchmark.timing.measurements import Measurement, seconds_of, summarise

LIMIT_SECONDS = 0.5


def measure(device: str) -> Iterator[Measurement]:
    """Seconds of `bench --help` and `bench list augmenters`; `device` plays no part."""
    for arguments in (["--help"], ["list", "augmenters"]):
        command = [sys.executable, "-m", "benchmark", *arguments]

        def answer(command: list[str] = command) -> None:
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

        yield summarise(
            f"startup/bench {' '.join(arguments)}",
            seconds_of(answer, repetitions=7),
            unit="s",
            detail="a fresh process, from its start to its end",
            target=LIMIT_SECONDS,
            comparison="at most",
        )
