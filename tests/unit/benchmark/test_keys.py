from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from benchmark.keys import Key, canonical_json, changed_parts


def test_canonical_json_does_not_depend_on_the_order_of_keys() -> None:
    assert canonical_json({"b": 1, "a": [True, None, 0.1]}) == '{"a":[true,null,0.1],"b":1}'
    assert canonical_json({"b": 1, "a": 2}) == canonical_json({"a": 2, "b": 1})


def test_whole_and_broken_numbers_are_different_values() -> None:
    assert canonical_json(1) != canonical_json(1.0)
    assert canonical_json(True) != canonical_json(1)


def test_numbers_that_json_lacks_are_refused() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json(float("nan"))


def test_configs_and_numpy_scalars_have_a_form() -> None:
    @dataclass(frozen=True)
    class Config:
        low: float = 0.8

    assert canonical_json({"config": Config(), "n": np.int64(3), "s": frozenset("ba")}) == (
        '{"config":{"low":0.8},"n":3,"s":["a","b"]}'
    )


def test_what_has_no_form_is_refused() -> None:
    with pytest.raises(TypeError, match="cannot be part of a key"):
        canonical_json(object())


def test_golden_digests() -> None:
    # If this fails, everything that anybody has cached is lost: raise KEY_VERSION and say so in the changelog.
    key = Key("augmented", {"dataset": "d" * 64, "config": {"low": 0.8, "per_agent": True}, "seed": 7, "extra": None})
    assert key.digest == GOLDEN
    assert Key("policy", key.parts).digest != key.digest


GOLDEN = "af78f3f5a3316acb51d0da33a5e0a538dc6bf51acecdfa73ca9e7a95b901b599"


def test_changed_parts_name_the_path_and_both_values() -> None:
    now = {"config": {"low": 0.5, "new": 1}, "dataset": "a" * 64}
    then = {"config": {"low": 0.8, "old": 2}, "dataset": "b" * 64}
    assert changed_parts(now, then) == [
        "config.low: 0.5 now, 0.8 stored",
        "config.new: 1 now, absent in the stored one",
        "config.old: absent now, 2 stored",
        "dataset: aaaaaaaaaaaa… now, bbbbbbbbbbbb… stored",
    ]
    assert changed_parts(now, now) == []
    assert changed_parts({"files": {}}, {}) == ["files: {} now, absent in the stored one"]
