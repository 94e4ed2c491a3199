"""`bench` as users start it: a process of its own, with workers, in folders of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[1] / "plugins"

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "AUGMARL_HOME": str(tmp_path / "home"),
        "AUGMARL_RESULTS": str(tmp_path / "results"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(
            [str(PLUGINS / "misbehaving"), str(PLUGINS / "patient"), str(Path(__file__).parent / "plugin")]
        ),
    }


def _hear_interruptions() -> None:
    """A shell's background jobs ignore SIGINT, and their children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def start(environment: dict[str, str]) -> Start:
    """Starts `bench` with these arguments."""

    def bench(*arguments: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "benchmark", *arguments],
            env={**environment, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_hear_interruptions,
        )

    return bench
