"""Normalisers on any data: what goes in comes out, order is kept, and the range is kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from methods.diffusion.normalisers import make_normaliser, restore_normaliser

NAMES = ["cdf", "cdf_mixed", "limits", "standard"]
Rows = NDArray[np.float32]


@st.composite
def rows(draw: st.DrawFn) -> Rows:
    """(M, D) with atoms, constant dimensions and very different scales."""
    shape = (draw(st.integers(1, 30)), draw(st.integers(1, 4)))
    few = st.sampled_from([-1.0, 0.0, 0.5])
    wide = st.floats(-1000, 1000, width=32, allow_subnormal=False)
    return draw(npst.arrays(np.float32, shape, elements=st.one_of(few, wide)))


def spans(data: Rows) -> Rows:
    """(D,) range of every dimension, or its magnitude where that is larger; at least 1."""
    return np.maximum(np.maximum(np.ptp(data, axis=0), np.abs(data).max(axis=0)), 1)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=50)
@given(data=rows())
def test_training_rows_come_back(name: str, data: Rows) -> None:
    normaliser, x = make_normaliser(name, data), torch.from_numpy(data)
    assert (np.abs(normaliser.decode(normaliser.encode(x)).numpy() - data) <= 1e-4 * spans(data)).all()


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=50)
@given(data=rows())
def test_order_is_kept(name: str, data: Rows) -> None:
    ordered = torch.from_numpy(np.sort(data, axis=0))
    encoded = make_normaliser(name, data).encode(ordered)
    assert (encoded.diff(dim=0) >= 0).all()


@pytest.mark.parametrize("name", ["cdf", "cdf_mixed", "limits"])
@settings(deadline=None, max_examples=50)
@given(data=rows(), others=st.floats(-2000, 2000, width=32))
def test_ranges_are_kept_both_ways(name: str, data: Rows, others: float) -> None:
    normaliser = make_normaliser(name, data)
    encoded = normaliser.encode(torch.from_numpy(data))
    raw = torch.from_numpy(np.ptp(data, axis=0) == 0) if name == "cdf" else torch.zeros(data.shape[1], dtype=torch.bool)
    assert (encoded[:, ~raw].abs() <= 1 + 1e-6).all()
    decoded = normaliser.decode(torch.full((data.shape[1],), others)).numpy()
    assert (decoded >= data.min(axis=0)).all()
    assert (decoded <= data.max(axis=0)).all()


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=50)
@given(data=rows())
def test_the_state_is_the_normaliser(name: str, data: Rows) -> None:
    normaliser, x = make_normaliser(name, data), torch.from_numpy(data)
    restored = restore_normaliser(normaliser.state())
    assert type(restored) is type(normaliser)
    torch.testing.assert_close(restored.encode(x), normaliser.encode(x), rtol=0, atol=0)
