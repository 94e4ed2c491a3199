"""Registers the misbehaving methods for one test, in this process."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from methods.augmenters import AUGMENTERS
from methods.learners import LEARNERS


@pytest.fixture
def misbehaving(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Their names are in the tables while the test runs."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "misbehaving"))
    for table in (AUGMENTERS, LEARNERS):
        monkeypatch.setattr(table, "_plugins", None)  # entry points are read once a process
    yield
    for name in [name for name in sys.modules if name.startswith("misbehaving")]:
        del sys.modules[name]
