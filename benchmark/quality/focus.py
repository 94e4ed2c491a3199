"""Battles: do agents that attack attack the same enemy? EAQ's example of a cooperative action."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmark.quality.family import Family, Measured
from benchmark.quality.report import Measurement
from benchmark.quality.subject import Subject, UndefinedError, Which


def measure(subject: Subject) -> Measured:
    """`focus_fire` of the sampled transitions.

    Of the agents that attack beside another attacker, the share whose enemy somebody else attacks at the same step.
    Agents count by their action; the dead never do, whatever a generated action says. Steps with one attacker leave
    no choice, and are left out. `all_on_one` in the details is EAQ's own number (Fig. 1b): of the steps at which
    every living agent attacks, and there are two or more, the share at which all attack one enemy. EAQ says "when
    all agents choose to attack"; that the dead are not waited for is inferred.
    """
    made, real = _focus(subject, "synthetic"), _focus(subject, "original")
    if made.share is None:
        return Measured({"focus_fire": Measurement.undefined("no two agents attack at the same step")})
    details: dict[str, float | int | str | None] = {
        "all_on_one": made.all_on_one,
        "original_all_on_one": real.all_on_one,
        "steps": made.steps,
        "steps_of_all": made.steps_of_all,
    }
    return Measured({"focus_fire": Measurement(value=made.share, original=real.share, details=details)})


FAMILY = Family(("focus_fire",), measure)


@dataclass(frozen=True, slots=True)
class Focus:
    """How attacks are shared.

    Attributes:
        share: of the attackers at steps with several, those whose enemy another attacks too; None without any.
        steps: with several attackers.
        all_on_one: of the steps at which all who live attack, those with one enemy for all; None without any.
        steps_of_all: such steps.
    """

    share: float | None
    steps: int
    all_on_one: float | None
    steps_of_all: int


def focus(targets: NDArray[np.int64], alive: NDArray[np.bool_]) -> Focus:
    """From the enemy that each agent attacks, (M, N), -1 for none, and who lives, (M, N)."""
    attacks = (targets >= 0) & alive
    same = (targets[:, :, None] == targets[:, None, :]) & attacks[:, :, None] & attacks[:, None, :]  # (M, N, N)
    beside = same.sum(axis=2) > 1  # (M, N), itself and another
    several = attacks.sum(axis=1) >= 2  # (M,)
    everyone = several & (attacks == alive).all(axis=1)
    on_one = same.sum(axis=2).max(axis=1) == attacks.sum(axis=1)
    return Focus(
        share=float(beside[several].sum() / attacks[several].sum()) if several.any() else None,
        steps=int(several.sum()),
        all_on_one=float(on_one[everyone].mean()) if everyone.any() else None,
        steps_of_all=int(everyone.sum()),
    )


def _focus(subject: Subject, which: Which) -> Focus:
    if subject.task.spec.n_agents < 2:
        raise UndefinedError("there is one agent alone")
    batch = subject.sampled[which]
    targets = subject.task.attacked(batch.actions)  # refuses tasks without attacks
    return focus(targets, np.ones(targets.shape, dtype=np.bool_) if batch.alive is None else batch.alive)
