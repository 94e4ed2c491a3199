from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from benchmark.diagnosis import MAX_ENTRIES, MAX_TEXT, compact, merged, plain
from tasks.common.errors import MethodError


def test_numbers_of_any_kind_become_plain_and_what_json_lacks_becomes_null() -> None:
    told = {
        "rate": np.float32(0.5),
        "count": np.int64(3),
        "flag": np.bool_(True),
        "nan": float("nan"),
        "infinite": np.float64("inf"),
        "list": (1, float("-inf"), np.array([1.0, np.nan])),
        "tensor": torch.tensor([1.5]),
        "nested": {"text": "ddim", "none": None},
    }
    found = plain(told, "madiff")
    assert found == {
        "rate": 0.5,
        "count": 3,
        "flag": True,
        "nan": None,
        "infinite": None,
        "list": [1, None, [1.0, None]],
        "tensor": [1.5],
        "nested": {"text": "ddim", "none": None},
    }
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ([1], "madiff: `diagnosis` returned a list, expected a dict"),
        ({"a": {"b": object()}}, r"`diagnosis`\.a\.b is a object"),
        ({"a": [b"x"]}, r"`diagnosis`\.a\[0\] is a bytes"),
        ({"a": {3: 1}}, r"`diagnosis`\.a has the key 3, a int"),
        ({"a": 1j}, "is a complex"),
    ],
)
def test_what_has_no_form_is_refused_with_its_place(told: Any, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        plain(told, "madiff")


def test_both_are_merged_entry_by_entry_and_the_second_counts() -> None:
    first, second = {"loss": 1, "seconds": {"fit": 2}, "x": {"y": 1}}, {"seconds": {"sampling": 3}, "x": 4}
    assert merged(first, second) == {"loss": 1, "seconds": {"fit": 2, "sampling": 3}, "x": 4}
    assert first == {"loss": 1, "seconds": {"fit": 2}, "x": {"y": 1}}


def test_long_lists_are_left_out_and_long_texts_cut() -> None:
    told = {
        "long": [0] * (MAX_ENTRIES + 1),
        "short": [0] * MAX_ENTRIES,
        "text": "x" * (MAX_TEXT + 1),
        "n": {"long": []},
    }
    assert compact(told) == {
        "short": [0] * MAX_ENTRIES,
        "text": "x" * MAX_TEXT + f" … ({MAX_TEXT + 1} characters)",
        "n": {"long": []},
    }
