"""Variants of learners keep the contract too, on the kinds of data that they differ on."""

from __future__ import annotations

import pytest

from benchmark.checks import Check
from benchmark.plugins import method_checks

DISCRETE, DEATHS = "discrete: ", "states-and-deaths: "
OMAR = tuple(DISCRETE + start for start in ("R seeds", "a diverged", "a policy acts the same", "a training goes on"))
VARIANTS: dict[str, tuple[str, ...]] = {
    "bcq[memory=none]": (DEATHS,),
    "bcq[filter_at_eval=false]": (DISCRETE,),
    "bcq[normalise=true]": (DISCRETE,),
    "cfcql[memory=none]": (DISCRETE, DEATHS),
    "cfcql[weights=uniform,normalise=true]": (DISCRETE, DEATHS),
    "cql[per_timestep_updates=true,critic_hidden=8]": OMAR,
    "icq[memory=none]": (DISCRETE, DEATHS),
    "omar[memory=none]": OMAR,
    "omiga[memory=gru,hidden=16,gru_hidden=8,mixer_relu=false]": (DISCRETE, DEATHS),
    "qmix-bcq[memory=none]": (DISCRETE, DEATHS),
    "qmix-bcq[filter_at_eval=true]": (DISCRETE, DEATHS),
    "qmix-cql[memory=none]": (DISCRETE, DEATHS),
    "qmix-cql[normalise=true]": (DISCRETE, DEATHS),
    "td3bc[memory=none]": (DEATHS,),
    "td3bc[form=tau]": (DISCRETE,),
    "td3bc[normalise=true]": (DISCRETE,),
}
CHECKS = [
    pytest.param(check, id=f"{name}-{check.name}")
    for name, starts in VARIANTS.items()
    for check in method_checks(name)[1]
    if check.name.startswith(starts)
]


@pytest.mark.parametrize("check", CHECKS)
def test_variants_keep_the_contract(check: Check) -> None:
    assert check.run() is None
