"""Every normaliser on numbers worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from methods.diffusion.normalisers import (
    CdfNormaliser,
    LimitsNormaliser,
    StandardNormaliser,
    invertible_knots,
    make_normaliser,
    restore_normaliser,
)
from tasks.common.errors import DataError, UnknownNameError
from tasks.common.seeding import make_generator

NAMES = ["cdf", "cdf_mixed", "limits", "standard"]


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)[:, None]


def encode(name: str, data: np.ndarray, *values: float) -> list[float]:
    return make_normaliser(name, data).encode(torch.from_numpy(column(*values)))[:, 0].tolist()


def decode(name: str, data: np.ndarray, *values: float) -> list[float]:
    return make_normaliser(name, data).decode(torch.from_numpy(column(*values)))[:, 0].tolist()


# Distinct values 0, 1, 3 with P(X ≤ x) = 1/4, 3/4, 1, so 2P − 1 = −0.5, 0.5, 1.
DATA = column(0, 1, 1, 3)


def test_cdf_of_the_knots_and_between_them() -> None:
    assert encode("cdf", DATA, 0, 1, 3) == [-0.5, 0.5, 1.0]
    assert encode("cdf", DATA, 0.25, 2) == [-0.25, 0.75]


def test_cdf_clips_to_what_was_observed() -> None:
    assert encode("cdf", DATA, -7, 9) == [-0.5, 1.0]
    assert decode("cdf", DATA, -1, 5) == [0.0, 3.0]


def test_cdf_inverse() -> None:
    assert decode("cdf", DATA, -0.5, 0, 0.5, 0.75, 1) == [0.0, 0.5, 1.0, 2.0, 3.0]


def test_cdf_leaves_a_constant_dimension_raw_and_decodes_its_constant() -> None:
    assert encode("cdf", column(5, 5, 5), 5, 6) == [5.0, 6.0]
    assert decode("cdf", column(5, 5, 5), 1, -1) == [5.0, 5.0]


def test_cdf_treats_every_dimension_on_its_own() -> None:
    data = np.concatenate([DATA, column(7, 7, 7, 7), column(4, 3, 2, 1)], axis=1)
    normaliser = make_normaliser("cdf", data)
    x = torch.from_numpy(data)
    assert normaliser.encode(x).is_contiguous()  # callers use `view`
    assert normaliser.decode(x).is_contiguous()
    encoded = normaliser.encode(x.view(2, 2, 3))  # any leading axes
    expected = [[[-0.5, 7, 1], [0.5, 7, 0.5]], [[0.5, 7, 0], [1, 7, -0.5]]]
    assert encoded.tolist() == expected


def test_cdf_mixed_uses_limits_for_flags_atoms_and_constants() -> None:
    assert encode("cdf_mixed", column(0, 0, 1, 1), 0, 0.25, 1) == [-1.0, -0.5, 1.0]  # two values
    assert encode("cdf_mixed", column(0, 0, 0, 2, 4), 0, 2, 4) == [-1.0, 0.0, 1.0]  # 0 in three of five rows
    assert encode("cdf_mixed", column(5, 5), 5) == [0.0]
    assert decode("cdf_mixed", column(5, 5), 0.3) == [5.0]
    assert encode("cdf_mixed", DATA, 0, 1, 3) == [-0.5, 0.5, 1.0]  # an atom of exactly half is none


def test_limits() -> None:
    assert encode("limits", DATA, 0, 1.5, 3, 6) == [-1.0, 0.0, 1.0, 3.0]
    assert decode("limits", DATA, -1, 0.5, 2) == [0.0, 2.25, 3.0]


def test_limits_shift_a_constant_dimension_alone() -> None:
    data = np.concatenate([DATA, column(5, 5, 5, 5)], axis=1)
    normaliser = LimitsNormaliser.fit(data)
    assert normaliser.encode(torch.from_numpy(data)).tolist()[3] == [1.0, 0.0]
    assert normaliser.decode(torch.tensor([[0.0, 0.7]])).tolist() == [[1.5, 5.0]]


def test_standard_and_the_dimensions_it_skips() -> None:
    data = np.concatenate([column(1, 3), column(0, 1)], axis=1)  # mean 2, deviation 1
    normaliser = StandardNormaliser.fit(data, skip_dims=[1])
    torch.testing.assert_close(normaliser.encode(torch.from_numpy(data)), torch.tensor([[-1.0, 0.0], [1.0, 1.0]]))
    torch.testing.assert_close(normaliser.scale, torch.tensor([1.00001, 1.0]), rtol=0, atol=1e-7)


@pytest.mark.parametrize("heavy", [False, True], ids=["normal", "heavy-tailed"])
def test_many_distinct_values_need_no_more_than_ten_thousand_knots(heavy: bool) -> None:
    generator = make_generator("many-values")
    data = column(*(generator.standard_t(1.5, 50_000) if heavy else generator.normal(size=50_000)))
    normaliser, x = CdfNormaliser.fit(data), torch.from_numpy(data)
    encoded = normaliser.encode(x)
    assert normaliser.values.shape[1] <= 10_000
    # Knots by probability alone would leave wide gaps in the tails, and errors of 8e-5 of the range.
    assert (normaliser.decode(encoded) - x).abs().max() <= 2e-5 * np.ptp(data)
    rank = np.searchsorted(np.sort(data[:, 0]), data[:, 0], side="right") / len(data)
    np.testing.assert_allclose(encoded[:, 0].numpy(), 2 * rank - 1, atol=1e-3)  # a knot for every 1/5000 of the rows


def test_levels_that_float32_cannot_tell_apart_are_one_knot() -> None:
    probability = np.array([0.25, 0.25 + 1e-10, 0.5, 1 - 1e-10, 1.0])
    values, levels = invertible_knots(np.arange(5, dtype=np.float32), probability)
    assert levels.tolist() == [-0.5, 0.0, 1.0]
    assert values.tolist() == [0.0, 2.0, 4.0]  # the ends stay


def test_a_slice_at_a_time_is_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_generator("slices").normal(size=(50, 3)).astype(np.float32)
    normaliser, x = CdfNormaliser.fit(data), torch.from_numpy(data)
    whole = normaliser.encode(x)
    monkeypatch.setattr("methods.diffusion.normalisers._SLICE", 7)
    assert torch.equal(normaliser.encode(x), whole)


@pytest.mark.parametrize("name", NAMES)
def test_no_rows_give_no_rows(name: str) -> None:
    normaliser = make_normaliser(name, DATA)
    assert normaliser.encode(torch.zeros(0, 8, 1)).shape == (0, 8, 1)
    assert normaliser.decode(torch.zeros(0, 8, 1)).shape == (0, 8, 1)


@pytest.mark.parametrize("name", NAMES)
def test_states_are_plain_arrays(name: str) -> None:
    normaliser = make_normaliser(name, np.concatenate([DATA, column(5, 5, 5, 5)], axis=1)).to("cpu")
    state = normaliser.state()
    assert {array.dtype.kind for array in state.values()} <= {"f", "i", "u", "b"}
    assert all(array.dtype.itemsize <= 8 for array in state.values())
    x = torch.tensor([[0.3, 5.0]])
    assert torch.equal(restore_normaliser(state).encode(x), normaliser.encode(x))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rows_that_are_not_finite_are_named(name: str, bad: float) -> None:
    data = np.zeros((4, 2), dtype=np.float32)
    data[2, 1] = bad
    with pytest.raises(DataError, match="1 of 8 values.*row 2, dimension 1.*Remove or repair"):
        make_normaliser(name, data)


def test_data_without_rows_are_refused() -> None:
    with pytest.raises(DataError, match="at least one row"):
        make_normaliser("cdf", np.zeros((0, 3), dtype=np.float32))


def test_an_unknown_name_gets_a_hint() -> None:
    with pytest.raises(UnknownNameError, match="Unknown normaliser 'cfd'.*'cdf'"):
        make_normaliser("cfd", DATA)
