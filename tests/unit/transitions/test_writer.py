"""Writing transitions chunk by chunk: the same in memory and in a file."""

from __future__ import annotations

import numpy as np
import pytest

from benchmark.checks import sample_dataset
from methods.synthesis.emit import as_transitions
from methods.transitions.writer import TransitionWriter
from tasks.common.errors import MethodError
from tasks.datasets.offline import concatenate


@pytest.mark.parametrize("limit", [0, 10**9])
@pytest.mark.parametrize("shape", ["continuous", "states-and-deaths", "one-agent"])
def test_chunks_become_one_dataset(shape: str, limit: int) -> None:
    data = sample_dataset(shape).without_privileged()
    parts = [as_transitions(data, np.arange(start, start + size)) for start, size in ((0, 7), (7, 1), (8, 12))]
    writer = TransitionWriter(data.spec, 20, limit=limit)
    for part in parts:
        writer.add(part)
    found, expected = writer.dataset(), concatenate(parts)
    found.validate()
    assert isinstance(found.observations, np.memmap) == (limit == 0)
    assert found.columns().keys() == expected.columns().keys()
    for name, column in expected.columns().items():
        np.testing.assert_array_equal(getattr(found, name), column)


def test_nothing_wanted_is_an_empty_dataset() -> None:
    assert TransitionWriter(sample_dataset("discrete").spec, 0).dataset().n_episodes == 0


def test_too_many_too_few_and_longer_episodes_are_refused() -> None:
    data = sample_dataset("continuous").without_privileged()
    writer = TransitionWriter(data.spec, 5)
    with pytest.raises(MethodError, match="no more than are missing"):
        writer.add(as_transitions(data, np.arange(6)))
    with pytest.raises(MethodError, match="episodes of one step"):
        TransitionWriter(data.spec, 1000).add(data)
    writer.add(as_transitions(data, np.arange(3)))
    with pytest.raises(MethodError, match="3 of 5 transitions"):
        writer.dataset()
