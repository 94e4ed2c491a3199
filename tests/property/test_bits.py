"""Bits of any kind become an action that is available, the nearest of them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from methods.synthesis.bits import action_codes, decode_bits


@given(data=st.data(), n_actions=st.integers(1, 40))
def test_the_action_is_available_and_none_that_is_lies_nearer(data: st.DataObject, n_actions: int) -> None:
    codes = action_codes(n_actions).astype(np.float64)
    elements = st.floats(-3, 3, width=32)
    bits = data.draw(npst.arrays(np.float32, (4, codes.shape[1]), elements=elements))
    available = data.draw(npst.arrays(np.bool_, (4, n_actions)))
    chosen = decode_bits(bits, available)
    for row, action in enumerate(chosen):
        allowed = available[row] if available[row].any() else np.ones(n_actions, dtype=np.bool_)
        distances = np.square(codes - bits[row]).sum(axis=1)
        assert allowed[action]
        assert distances[action] <= distances[allowed].min() + 1e-4
