"""What every model of transitions is configured by, and what a protocol changes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from methods.base import Run, require
from methods.transitions.rows import HeadSettings
from methods.transitions.training import TrainingPlan

DONE = ("auto", "always", "never")
_HEAD_RATE = 3e-3  # inferred; rises for 5% of the updates, then falls to 0
_HEAD_BATCH = 256  # inferred


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitionConfig:
    """A model of transitions and what is made of them; subclasses fill in their papers' numbers."""

    width: int = 256  # of hidden layers
    updates: int = 100_000
    batch_size: int | None = None  # transitions
    learning_rate: float = 3e-4
    model_done: str = "auto"  # a true end is part of a token: where the data have one, "always" or "never"
    append_state: bool = False  # the state is part of every token (INS, App. K.1); else a head predicts it (inferred)
    head_hidden: int = 256  # of the auxiliary networks (inferred)
    head_updates: int = 20_000  # same; a protocol's updates take their place

    amount: int = 5_000_000  # transitions, where the protocol names no amount; INS, Sec. 5.1; SynthER's repository
    rows_at_once: int = 8_192  # transitions generated together (inferred; SynthER's repository: 100,000)

    def __post_init__(self) -> None:
        for name in ("width", "updates", "head_hidden", "head_updates", "rows_at_once"):
            value = getattr(self, name)
            require(value >= 1, "transitions", f"{name}={value}", "a whole number, 1 or more")
        batch = self.batch_size
        require(batch is None or batch >= 1, "transitions", f"batch_size={batch}", "a whole number, 1 or more")
        require(self.amount >= 0, "transitions", f"amount={self.amount}", "a whole number, 0 or more")
        require(self.learning_rate > 0, "transitions", f"learning_rate={self.learning_rate}", "a number above 0")
        require(self.model_done in DONE, "transitions", f"model_done={self.model_done}", " or ".join(DONE))


TRANSITION_GENERATION_FIELDS = frozenset(("amount", "rows_at_once"))
TRANSITION_TINY: Mapping[str, Any] = {
    "width": 16,
    "updates": 3,
    "batch_size": 4,
    "head_hidden": 8,
    "head_updates": 2,
    "amount": 50,
    "rows_at_once": 32,
}


def head_settings(config: TransitionConfig, run: Run) -> HeadSettings:
    """Of the auxiliary networks, with what the protocol fixes in its place."""
    budget = run.budget.transition
    return HeadSettings(
        hidden=config.head_hidden,
        updates=budget.updates or config.head_updates,
        batch_size=budget.batch_size or _HEAD_BATCH,
        learning_rate=budget.learning_rate or _HEAD_RATE,
    )


def within(plan: TrainingPlan, run: Run) -> TrainingPlan:
    """A plan with what the protocol fixes in its place.

    The average of the weights spans the same share of a shorter training (inferred).
    """
    budget = run.budget.transition
    updates = budget.updates or plan.updates
    return replace(
        plan,
        updates=updates,
        batch_size=budget.batch_size or plan.batch_size,
        learning_rate=budget.learning_rate or plan.learning_rate,
        ema_every=max(1, min(plan.ema_every, round(plan.ema_every * updates / plan.updates), updates // 100)),
    )
