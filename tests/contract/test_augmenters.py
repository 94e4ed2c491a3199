"""Every registered augmenter keeps the contract: a new one is tested the day it exists."""

import pytest

from benchmark.checks import Check
from benchmark.plugins import method_checks
from methods.augmenters import AUGMENTERS

VARIANTS = ["noise[emit=transitions]", "rad-s[granularity=episode,per_agent=false]"]
CHECKS = [
    pytest.param(check, id=f"{name}-{check.name}")
    for name in (*AUGMENTERS.names(), *VARIANTS)
    for check in method_checks(name)[1]
]


@pytest.mark.parametrize("check", CHECKS)
def test_augmenter(check: Check) -> None:
    if reason := check.run():
        pytest.skip(reason)
