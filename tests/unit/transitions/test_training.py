"""The training loop: rates, averages, clipping, resumption, replicas that diverge."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmark.checks.check import EveryCheckpoint
from methods.base import Run
from methods.journal import Journal
from methods.transitions.training import Trained, TrainingPlan, train
from tasks.common.errors import UsageError

PLAN = TrainingPlan(updates=20, batch_size=4, learning_rate=0.1)


class Line(nn.Module):
    """One number of each network."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(groups, 1))
        self.register_buffer("fixed", torch.arange(groups, dtype=torch.float32)[:, None])


class ToZero:
    """½ slope² + slope · noise, noise drawn; replica `broken` is not a number from the start."""

    def __init__(self, replicas: int, copies: int = 1, noise: float = 0.0, broken: int | None = None) -> None:
        self.module, self.copies, self._noise = Line(replicas * copies), copies, noise
        self._replicas, self._broken, self.updates = replicas, broken, 0

    def draw(self, generator: np.random.Generator, replica: int) -> tuple[NDArray[Any], ...]:
        return (generator.standard_normal(4, dtype=np.float32),)

    def losses(self, drawn: Tensor) -> Tensor:
        noise = self._noise * drawn.mean(dim=1).repeat_interleave(self.copies)  # (G,)
        losses = self.module.slope[:, 0] ** 2 / 2 + self.module.slope[:, 0] * noise
        if self._broken is not None:
            losses = losses * torch.where(torch.arange(len(losses)) == self._broken, torch.nan, 1.0)
        return losses

    def after_update(self) -> None:
        self.updates += 1


def trained(objective: ToZero, plan: TrainingPlan = PLAN, run: Run | None = None) -> Trained:
    run = Run(seeds=(0,)) if run is None else run
    return train(objective, plan, run, Journal(run, plan.updates), stage="test")


def test_shares_of_the_rate_by_hand() -> None:
    cosine = replace(PLAN, rate="cosine")
    assert [cosine.share(done) for done in (0, 10, 20)] == pytest.approx([1, 0.5, 0])
    rising = replace(PLAN, rate="warmup-cosine", warmup=0.2)  # over 4 updates
    assert rising.share(0) == pytest.approx(0.25)
    assert rising.share(1) == pytest.approx(0.5 * cosine.share(1))
    assert rising.share(9) == pytest.approx(cosine.share(9))
    assert PLAN.share(19) == 1


def test_a_training_is_that_of_torch() -> None:
    """Adam with L2 decay and a cosine, on one number."""
    plan = replace(PLAN, rate="cosine", weight_decay=0.3, betas=(0.9, 0.99))
    slope = torch.ones(1, requires_grad=True)
    adam = torch.optim.Adam([slope], lr=0.1, betas=(0.9, 0.99), weight_decay=0.3)
    for done in range(20):
        adam.param_groups[0]["lr"] = 0.1 * plan.share(done)
        adam.zero_grad()
        (slope**2 / 2).sum().backward()
        adam.step()
    np.testing.assert_allclose(trained(ToZero(1), plan).weights["slope"], slope.detach()[None], rtol=1e-5)


def test_the_average_by_hand() -> None:
    """Every second update v ← ¾ v + ¼ w, from the first weights on."""
    weights = [1.0]
    for updates in range(1, 7):
        weights.append(float(trained(ToZero(1), replace(PLAN, updates=updates)).weights["slope"][0, 0]))
    average = 1.0
    for updates in (2, 4, 6):
        average = 0.75 * average + 0.25 * weights[updates]
    found = trained(ToZero(1), replace(PLAN, updates=6, ema_decay=0.75, ema_every=2))
    assert float(found.weights["slope"][0, 0]) == pytest.approx(average, rel=1e-5)


def test_the_average_is_a_copy_during_the_first_fifth() -> None:
    """Of 20 updates it copies after 2, and from 4 on it averages."""
    weights = {n: float(trained(ToZero(1), replace(PLAN, updates=n)).weights["slope"][0, 0]) for n in range(2, 21, 2)}
    average = weights[2]
    for updates in range(4, 21, 2):
        average = 0.75 * average + 0.25 * weights[updates]
    found = trained(ToZero(1), replace(PLAN, ema_decay=0.75, ema_every=2))
    assert float(found.weights["slope"][0, 0]) == pytest.approx(average, rel=1e-5)


def test_buffers_are_part_of_the_result_and_updates_are_followed() -> None:
    objective = ToZero(2, copies=3)
    found = trained(objective, run=Run(seeds=(0, 1)))
    assert objective.updates == 20
    np.testing.assert_array_equal(found.of_replica(1, 3)["fixed"], [[3], [4], [5]])
    assert found.curve.shape == (20, 3)
    assert found.told(1)["loss_curve"][-1][0] == 20


def test_each_network_is_clipped_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The norm of the first is cut to ½, that of the second stays. Adam would hide it: the gradients are looked at."""
    objective, seen = ToZero(1, copies=2), []
    with torch.no_grad():
        objective.module.slope.copy_(torch.tensor([[10.0], [0.25]]))

    def watched(*args: Any, **kwargs: Any) -> None:
        assert objective.module.slope.grad is not None
        seen.append(objective.module.slope.grad.clone())

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    trained(objective, replace(PLAN, updates=1, max_norm=0.5))
    np.testing.assert_allclose(seen[0], [[0.5], [0.25]], rtol=1e-4)


def test_a_replica_that_diverges_disturbs_no_other() -> None:
    run, plan = Run(seeds=(0, 1)), replace(PLAN, max_norm=1.0)
    broken, whole = (trained(ToZero(2, noise=1.0, broken=b), plan, run) for b in (0, None))
    assert np.isnan(broken.weights["slope"][0]).all()
    np.testing.assert_array_equal(broken.weights["slope"][1], whole.weights["slope"][1])
    assert broken.told(0)["training_loss"] is None


def test_a_killed_training_ends_as_if_undisturbed_and_a_finished_one_is_not_repeated() -> None:
    kept, plan = EveryCheckpoint(), replace(PLAN, ema_decay=0.9, ema_every=3)
    run = Run(seeds=(0, 1), checkpoint=kept)
    whole = trained(ToZero(2, noise=1.0), plan, run)
    assert len(kept.states) == 20
    for state in (kept.states[6], kept.states[-1]):
        objective = ToZero(2, noise=1.0)
        again = trained(objective, plan, replace(run, checkpoint=EveryCheckpoint(state)))
        np.testing.assert_array_equal(again.weights["slope"], whole.weights["slope"])
        np.testing.assert_array_equal(again.curve, whole.curve)
    assert objective.updates == 0


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(UsageError, match="rate=linear"):
        replace(PLAN, rate="linear")
    with pytest.raises(UsageError, match="learning_rate=0"):
        replace(PLAN, learning_rate=0.0)
