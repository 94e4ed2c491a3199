"""`bench` in processes forked from one that has everything imported: tests that start dozens need no dozen imports."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "benchmark.cli.root",
        "benchmark.cli.run",
        "benchmark.executors.inline",
        "benchmark.pipeline",
        "methods.learners.bc",
        "torch._dynamo",  # torch's optimisers import it when the first is made, which takes seconds
    ]
)


def start_bench(arguments: tuple[str, ...], environment: Mapping[str, str]) -> ForkServerProcess:
    """Starts `bench` with these arguments and variables, printing nothing; what it does is all in one process."""
    process = _CONTEXT.Process(target=_bench, args=(arguments, dict(environment)))
    process.start()
    return process


def _bench(arguments: tuple[str, ...], environment: dict[str, str]) -> None:
    os.environ.update(environment)
    with Path(os.devnull).open("w") as nowhere:
        sys.stdout = sys.stderr = nowhere
        from benchmark.cli.root import main

        sys.exit(main(list(arguments)))
