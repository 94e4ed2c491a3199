"""Names with parameters: one canonical spelling, round trips, clear refusals."""

from __future__ import annotations

import copy

import pytest

from tasks.common.errors import UsageError
from tasks.common.selector import Selector, format_scalar, parse_scalar


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("exp", "exp"),
        ("exp-m[]", "exp-m"),
        ("exp-m[t_imb=4]", "exp-m[t_imb=4]"),
        (" mpe/spread[variant=mpe2, actions=discrete] ", "mpe/spread[actions=discrete,variant=mpe2]"),
        ("rad-s[low=0.90,per_agent=FALSE]", "rad-s[low=0.9,per_agent=false]"),
        ("omar@mastars[tau=0.50]", "omar@mastars[tau=0.5]"),
    ],
)
def test_equal_requests_have_one_spelling(written: str, canonical: str) -> None:
    selector = Selector.parse(written)
    assert str(selector) == canonical
    assert Selector.parse(canonical) == selector
    assert hash(Selector.parse(canonical)) == hash(selector)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("exp[t_imb]", "'t_imb'"),
        ("exp[t_imb=4", "is not a name"),
        ("exp[t_imb=4,t_imb=6]", "given twice"),
        ("", "is not a name"),
        ("exp[path=../../etc]", "is not a parameter"),
        ("<script>", "is not a name"),
        ("omar@", "is not a name"),
        ("omar@a@b", "is not a name"),
    ],
)
def test_malformed_text_is_refused_with_the_offending_part(text: str, complaint: str) -> None:
    with pytest.raises(UsageError, match="Expected|Give") as caught:
        Selector.parse(text)
    assert complaint in str(caught.value)


def test_slug_is_one_folder_name() -> None:
    assert Selector.parse("mpe/spread[variant=mpe2]").slug == "mpe--spread[variant=mpe2]"


def test_scalars_keep_their_type() -> None:
    assert [parse_scalar(text) for text in ("4", "0.5", "true", "1e-4", "mpe2")] == [4, 0.5, True, 1e-4, "mpe2"]
    assert type(parse_scalar("4")) is int
    assert format_scalar(True) == "true"


def test_a_selector_can_be_copied() -> None:
    selector = Selector.parse("exp-m[t_imb=4]")
    assert copy.deepcopy(selector) == selector
