"""Every registered learner keeps the contract: a new one is tested the day it exists."""

import pytest

from benchmark.checks import Check
from benchmark.plugins import method_checks
from methods.learners import LEARNERS

VARIANTS = ["bc[memory=none]", "bc[memory=gru]", "bc[shared=true]", "bc[max_grad_norm=0.5]"]
CHECKS = [
    pytest.param(check, id=f"{name}-{check.name}")
    for name in (*LEARNERS.names(), *VARIANTS)
    for check in method_checks(name)[1]
]


@pytest.mark.parametrize("check", CHECKS)
def test_learner(check: Check) -> None:
    if reason := check.run():
        pytest.skip(reason)
