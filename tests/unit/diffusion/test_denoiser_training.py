"""What the denoiser is given in training: conditions and labels of the very window it sees; and the curve it leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from methods.base import Run
from methods.diffusion import fitting, trainer
from methods.diffusion.denoiser import Denoiser
from methods.diffusion.fitting import fit_segment_models
from methods.diffusion.settings import SegmentSettings
from tasks.datasets.offline import OfflineDataset

Make = Callable[..., SegmentSettings]
Episodes = Callable[..., OfflineDataset]
Seen = list[dict[str, Tensor]]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """What the denoiser is given at every update from here on; judging takes another way."""
    calls: Seen = []
    forward = Denoiser.forward

    def recording(
        denoiser: Denoiser, x: Tensor, k: Tensor, returns: Tensor, keep: Tensor, labels: Tensor | None = None
    ) -> Tensor:
        given = {"x": x, "returns": returns, "keep": keep}
        calls.append({name: value.clone() for name, value in given.items()})
        if labels is not None:
            calls[-1]["labels"] = labels.clone()
        return forward(denoiser, x, k, returns, keep, labels)

    monkeypatch.setattr(Denoiser, "forward", recording)
    return calls


@pytest.mark.parametrize("per_agent", [True, False])
def test_every_agent_is_given_its_own_return_from_its_row_on(
    tiny: Make, episodes: Episodes, seen: Seen, per_agent: bool
) -> None:
    """First rows are clean, so they tell the step and the agent; a rotation moves both."""
    data = episodes([10, 4, 9])
    data = data.replace(rewards=-np.abs(data.rewards))  # no return above 0: they are shifted
    sizes: dict[str, Any] = {"updates": 3, "batch_size": 64, "heads": (), "condition_dropout": 0.0}
    settings = tiny(gamma=0.5, circular_shift=1.0, per_agent_returns=per_agent, **sizes)
    model = fit_segment_models(settings, data, Run(seeds=(3,)))[0]

    rewards = data.rewards if per_agent else np.tile(data.rewards.mean(axis=1, keepdims=True), 3)
    to_go = np.zeros((23, 3))
    for first, last in ((0, 9), (10, 13), (14, 22)):
        to_go[last] = rewards[last]
        for s in reversed(range(first, last)):
            to_go[s] = rewards[s] + 0.5 * to_go[s + 1]
    best, worst = to_go[[0, 10, 14]].max(), to_go[[0, 10, 14]].min()
    conditions = (to_go - worst) / (best - worst)

    x, rows = model.encode(data.observations), data.row_of_step()
    whose = {x[rows[s], i].numpy().tobytes(): (s, i) for s in range(23) for i in range(3)}
    orders = set()
    for call in seen:
        for window, given in zip(call["x"][0], call["returns"][0], strict=True):
            steps, agents = zip(*(whose[row.numpy().tobytes()] for row in window[0]), strict=True)
            assert len(set(steps)) == 1
            orders.add(agents)
            np.testing.assert_allclose(given, conditions[list(steps), list(agents)], atol=1e-5)
    assert orders == {(0, 1, 2), (1, 2, 0), (2, 0, 1)}


@pytest.mark.parametrize(("dropout", "share"), [(0.0, 1.0), (0.25, 0.75), (1.0, 0.0)])
def test_the_return_is_seen_unless_it_is_dropped(
    tiny: Make, episodes: Episodes, seen: Seen, dropout: float, share: float
) -> None:
    settings = tiny(condition_dropout=dropout, batch_size=256, updates=3, heads=())
    fit_segment_models(settings, episodes(), Run(seeds=(3,)))
    kept = float(torch.stack([call["keep"] for call in seen]).float().mean())
    assert kept == (share if share in (0, 1) else pytest.approx(share, abs=0.03))


def test_labels_are_those_of_the_replica_and_the_window(
    tiny: Make, episodes: Episodes, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = episodes()
    z = np.arange(2 * 23 * 3, dtype=np.float32).reshape(2, 23, 3)  # of replica, window and agent
    judged: list[Tensor] = []
    judge = trainer.held_out_losses

    def judging(*given: Any) -> Any:
        judged.append(given[4])
        return judge(*given)

    monkeypatch.setattr(fitting, "held_out_losses", judging)
    settings = tiny(labels=True, condition_dropout=0.0, updates=3, batch_size=32, heads=())
    models = fit_segment_models(settings, data, Run(seeds=(3, 8)), list(z))
    first = models[0].encode(data.observations)[data.row_of_step()]  # (W, N, D)
    window = {row.numpy().tobytes(): w for w, row in enumerate(first)}
    for call in seen:
        for r in range(2):
            for x, given in zip(call["x"][r], call["labels"][r], strict=True):
                expected = z[r, window[x[0].numpy().tobytes()]]
                assert given[0].tolist() == [*expected, 1, 1, 1]
                assert given[1].tolist() == [*np.roll(expected, -1), 1, 1, 1]
    assert [labels.tolist() for labels in judged] == z.tolist()


def test_the_curve_is_the_mean_between_its_points(
    tiny: Make, episodes: Episodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    updates = 0

    def counted(denoiser: Denoiser, *_: Any) -> Tensor:
        """Windows around the number of the update, ten times that in the second replica."""
        nonlocal updates
        updates += 1
        nothing = denoiser.unet.head.bias.sum() * 0
        return torch.tensor([[1.0], [10.0]]) * (updates + torch.tensor([-3.0, -1.0, 1.0, 3.0])) + nothing

    monkeypatch.setattr(trainer, "denoising_losses", counted)
    models = fit_segment_models(tiny(updates=100, heads=()), episodes(), Run(seeds=(3, 8)))
    # fifty points of two updates each: 1 and 2, 3 and 4, ...
    for scale, model in zip((1, 10), models, strict=True):
        points = np.arange(2, 101, 2)
        np.testing.assert_allclose(model.diagnosis["loss_curve"], np.stack([points, scale * (points - 0.5)], axis=1))
        assert model.diagnosis["training_loss"] == scale * 99.5
