"""Settings of diffusion models: what is refused, what a protocol fixes, how they are stored."""

from __future__ import annotations

from typing import Any

import pytest

from methods.base import DiffusionBudget
from methods.diffusion.settings import SegmentSettings
from tasks.common.errors import UsageError


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"horizon": 1}, "horizon=1, expected 2"),
        ({"updates": 0}, "updates=0"),
        ({"ema_decay": 1.5}, "ema_decay=1.5"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"returns_scale": -1.0}, "returns_scale=-1.0"),
        ({"dynamics_scope": "team"}, "dynamics_scope=team, expected joint or per_agent"),
        ({"action_normaliser": "cdf"}, "action_normaliser=cdf"),
        ({"heads": ("inverse", "oracle")}, "oracle"),
        ({"labels": True, "circular_shift": 0.1}, "labels and circular_shift"),
    ],
)
def test_values_without_a_meaning_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SegmentSettings(**given)


def test_a_protocol_fixes_compute_and_nothing_else() -> None:
    own = SegmentSettings(heads=("inverse",), gamma=0.9)
    assert own.within(DiffusionBudget()) == own
    budget = DiffusionBudget(
        width=32, updates=1_000, batch_size=16, learning_rate=1e-3, ema_every=1, head_updates=50, sampler="ddim"
    )
    assert own.within(budget) == SegmentSettings(
        heads=("inverse",),
        gamma=0.9,
        width=32,
        updates=1_000,
        batch_size=16,
        learning_rate=1e-3,
        ema_every=1,
        ema_start=200,
        head_updates=50,
    )
    assert own.within(DiffusionBudget(updates=500_000)).ema_start == 2_000


def test_settings_are_stored_as_bytes() -> None:
    own = SegmentSettings(heads=("inverse", "reward"), returns_scale=3.5, labels=True)
    assert SegmentSettings.from_array(own.array()) == own
