"""Every registered augmenter keeps the contract: a new one is tested the day it exists."""

import pytest

from benchmark.checks import Check
from benchmark.plugins import method_checks
from methods.augmenters import AUGMENTERS

# Variants that differ in generation alone share a fit: what concerns it is checked with the first of them.
OF_THE_FIT = ("together", "checkpoint", "afresh", "state and load_state", "input unchanged")
VARIANTS = ["noise[emit=transitions]", "rad-s[granularity=episode,per_agent=false]"]


def same_fit_as_an_earlier(name: str) -> bool:
    """Whether a registered name shares class and fit with one before it in the table."""
    if name in VARIANTS or not AUGMENTERS.load(name).trains:
        return False
    names = list(AUGMENTERS.names())
    entry, fields = AUGMENTERS.entry(name), AUGMENTERS.load(name).generation_fields
    return fields >= set(entry.params) and any(
        AUGMENTERS.entry(other).target == entry.target and fields >= set(AUGMENTERS.entry(other).params)
        for other in names[: names.index(name)]
    )


CHECKS = [
    pytest.param(check, id=f"{name}-{check.name}")
    for name in (*AUGMENTERS.names(), *VARIANTS)
    for check in method_checks(name)[1]
    if not (same_fit_as_an_earlier(name) and any(part in check.name for part in OF_THE_FIT))
]


@pytest.mark.parametrize("check", CHECKS)
def test_augmenter(check: Check) -> None:
    if reason := check.run():
        pytest.skip(reason)
