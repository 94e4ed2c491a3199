"""EAQ's loss against plain loops, and what training draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark.checks.check import EveryCheckpoint
from methods.base import EpisodeBudget, Run
from methods.diffusion.episodes.fitting import fit_episode_models
from methods.diffusion.episodes.matrix import EpisodeMatrix, EpisodeSignals, Moments
from methods.diffusion.episodes.settings import EpisodeSettings
from methods.diffusion.episodes.training import EpisodeTraining, clean_estimate, episode_losses, judge_episodes
from methods.diffusion.schedule import LinearSchedule
from methods.journal import Journal
from tasks.common.errors import UnknownNameError, UsageError
from tasks.common.seeding import make_generator
from tasks.datasets.offline import OfflineDataset

Episodes = Callable[..., OfflineDataset]
R, B, L, F = 2, 4, 6, 5
VALUE = F - 2


def tiny(**given: Any) -> EpisodeSettings:
    sizes = {"width": 8, "updates": 6, "batch_size": 4, "diffusion_steps": 10, "learning_rate": 1e-3}
    return EpisodeSettings(**{**sizes, "head_hidden": 8, "head_updates": 3, **given})


def drawn(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    clean, predicted = (torch.randn(R, B, L, F, generator=g, dtype=torch.float64) for _ in range(2))
    lengths = torch.tensor([[1, 6, 3, 2], [4, 4, 5, 1]])
    return clean, predicted, torch.arange(L) < lengths[..., None]


def plain_loss(clean: Any, predicted: Any, steps: Any, lambda_q: float) -> list[float]:
    """Eq. 5 in loops."""

    def mean_q(signal: Any, counted: Any) -> float:
        total, count = 0.0, 0
        for t in range(L):
            if counted[t]:
                total, count = total + float(signal[t, VALUE]), count + 1
        return total / count

    losses = []
    for r in range(R):
        best = max(mean_q(clean[r, b], steps[r, b]) for b in range(B))
        total = 0.0
        for b in range(B):
            error = sum(
                (float(predicted[r, b, t, c]) - float(clean[r, b, t, c])) ** 2 for t in range(L) for c in range(F)
            ) / (L * F)
            total += error + lambda_q * max(0.0, best - mean_q(predicted[r, b], steps[r, b]))
        losses.append(total / B)
    return losses


@pytest.mark.parametrize("lambda_q", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("padded", [False, True])
def test_the_loss_in_plain_loops(lambda_q: float, padded: bool) -> None:
    clean, predicted, steps = drawn()
    steps = torch.ones_like(steps) if padded else steps
    found = episode_losses(clean, predicted, steps, VALUE).total(lambda_q)
    np.testing.assert_allclose(found.numpy(), plain_loss(clean, predicted, steps, lambda_q), rtol=1e-12)


def test_without_lambda_the_loss_is_the_mean_squared_error() -> None:
    clean, predicted, steps = drawn(1)
    found = episode_losses(clean, predicted, steps, VALUE).total(0.0)
    assert torch.equal(found, (predicted - clean).square().flatten(2).mean(dim=2).mean(dim=1))


def test_predictions_as_good_as_the_best_of_the_batch_pay_nothing() -> None:
    clean, predicted, steps = drawn(2)
    best = ((clean[..., VALUE] * steps).sum(-1) / steps.sum(-1)).amax(dim=1)
    predicted[..., VALUE] = (best[:, None, None] + 1e-9).expand(R, B, L)
    predicted.requires_grad_(True)
    losses = episode_losses(clean, predicted, steps, VALUE)
    assert losses.gap.eq(0).all()
    losses.gap.sum().backward()
    assert predicted.grad is not None
    assert predicted.grad.eq(0).all()


def test_the_gap_pulls_values_up_where_they_count_and_nothing_else() -> None:
    clean, predicted, steps = drawn(3)
    predicted[..., VALUE] = -10.0
    predicted.requires_grad_(True)
    episode_losses(clean, predicted, steps, VALUE).gap.sum().backward()
    assert predicted.grad is not None
    expected = torch.zeros(R, B, L, F, dtype=torch.float64)
    expected[..., VALUE] = -steps.double() / steps.sum(dim=-1, keepdim=True)
    torch.testing.assert_close(predicted.grad, expected)


def test_the_best_of_a_replica_is_of_its_own_batch() -> None:
    clean, predicted, steps = drawn(4)
    before = episode_losses(clean, predicted, steps, VALUE).gap
    clean[1, 0, :, VALUE] = 100.0
    after = episode_losses(clean, predicted, steps, VALUE).gap
    assert torch.equal(before[0], after[0])
    assert (after[1] > 50).all()


class Recording(torch.nn.Module):
    """Predicts zeros, and remembers what it was shown."""

    def __init__(self, replicas: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(replicas, 1))
        self.shown: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, k: Tensor) -> Tensor:
        self.shown.append((x.clone(), k))
        return self.weight[:, :, None, None] * x


def signals_of(data: OfflineDataset) -> EpisodeSignals:
    matrix, rows = EpisodeMatrix.fit(data, gamma=0.99, multiple=8, with_state=False, device="cpu")
    return EpisodeSignals(data, matrix, rows)


def test_training_shows_taught_episodes_with_noise(episodes: Episodes) -> None:
    data, settings = episodes((3, 7, 5)), tiny(diffusion_steps=1_000, batch_size=64)
    signals, network, run = signals_of(data), Recording(2), Run(seeds=(1, 2))
    taught = [np.array([0]), np.array([1, 2])]
    training = EpisodeTraining(settings, cast(Any, network), signals, taught, run, Journal(run, 10))
    chunk = training.draw()
    losses = training.losses(chunk, 0)
    assert sorted(set(chunk.episodes[0].flatten().tolist())) == [0]
    assert sorted(set(chunk.episodes[1].flatten().tolist())) == [1, 2]
    x, k = network.shown[0]
    schedule = LinearSchedule(1_000)
    clean = signals.signals(chunk.episodes[:, 0])
    for r in range(2):
        for b in range(0, 64, 9):
            level = schedule.exact_alpha_bars[int(k[r, b])]
            expected = level**0.5 * clean[r, b] + (1 - level) ** 0.5 * chunk.noise[r, 0, b]
            torch.testing.assert_close(x[r, b], expected, rtol=0, atol=1e-5)
    assert 0 <= int(k.min()) < 150
    assert 850 < int(k.max()) < 1_000
    predicted = torch.zeros_like(clean)
    whole = signals.steps(chunk.episodes[:, 0], own=False)
    assert torch.equal(losses, episode_losses(clean, predicted, whole, signals.matrix.value_channel).total(0.1))


class Constant(torch.nn.Module):
    """One signal, whatever it is shown."""

    def __init__(self, signals: EpisodeSignals) -> None:
        super().__init__()
        self.signal = torch.nn.Parameter(torch.zeros(1, signals.matrix.length, signals.matrix.channels))

    def forward(self, x: Tensor, k: Tensor) -> Tensor:
        return self.signal[:, None].expand(x.shape)


def test_training_pushes_the_values_up_to_the_best_and_leaves_the_rest(episodes: Episodes) -> None:
    data = episodes((10, 10, 10, 10))
    signals, run, learned = signals_of(data), Run(seeds=(1,)), []
    for weight in (0.0, 0.5):
        settings = tiny(updates=400, batch_size=16, learning_rate=0.02, lambda_q=weight, use_ema=False)
        training = EpisodeTraining(
            settings, cast(Any, Constant(signals)), signals, [np.arange(4)], run, Journal(run, 400)
        )
        learned.append(training.run().weights["signal"][0])
    plain, pushed = learned
    real = signals.signals(torch.arange(4)).numpy()
    values = real[:, :10, -2].mean(axis=1)
    assert plain[:10, -2].mean() == pytest.approx(values.mean(), abs=0.1)
    assert pushed[:10, -2].mean() == pytest.approx(values.max(), abs=0.1)
    assert values.max() > values.mean() + 0.2
    others = np.delete(np.arange(real.shape[2]), -2)
    np.testing.assert_allclose(pushed[:, others], plain[:, others], atol=1e-5)
    np.testing.assert_allclose(pushed[10:, -2], plain[10:, -2], atol=1e-5)  # columns that are no steps


def test_replicas_learn_what_they_learn_alone(episodes: Episodes) -> None:
    data = episodes((3, 7, 5, 4), discrete=True)
    together = fit_episode_models(tiny(), data, Run(seeds=(3, 4)))
    (alone,) = fit_episode_models(tiny(), data, Run(seeds=(4,)))
    mine, other = together[1].arrays(), alone.arrays()
    assert mine.keys() == other.keys()
    for key in mine:
        if np.issubdtype(mine[key].dtype, np.floating):
            np.testing.assert_allclose(mine[key], other[key], rtol=1e-3, atol=1e-4, err_msg=key)


def test_a_killed_fit_ends_bit_identical(episodes: Episodes) -> None:
    data, settings = episodes((3, 7, 5, 4)), tiny(updates=40, ema_every=1)
    kept = EveryCheckpoint()
    whole = fit_episode_models(settings, data, Run(seeds=(3, 4), checkpoint=kept))
    in_training = [s for s in kept.states if any(key.startswith("current/denoiser/") for key in s)]
    assert in_training
    resumed = fit_episode_models(settings, data, Run(seeds=(3, 4), checkpoint=EveryCheckpoint(in_training[0])))
    for first, second in zip(whole, resumed, strict=True):
        mine, other = first.arrays(), second.arrays()
        for key in mine:
            np.testing.assert_array_equal(mine[key], other[key], err_msg=key)


def test_a_model_is_judged_on_its_held_out_episodes(episodes: Episodes) -> None:
    data = episodes((3, 7, 5))
    signals, network = signals_of(data), Recording(1)
    judged = judge_episodes(tiny(diffusion_steps=1_000), network, signals, np.array([1]), make_generator("judging"))
    clean = signals.signals(torch.tensor([1]))
    assert [int(k[0, 0]) for _, k in network.shown] == [50 + 100 * j for j in range(10)]
    assert judged.data == pytest.approx(float(clean.square().mean()), rel=1e-5)
    assert judged.noise > 0
    q = float(clean[0, :7, -2].mean())
    assert judged.gap == pytest.approx(max(0.0, q), abs=1e-6)


def test_a_velocity_gives_the_data() -> None:
    schedule, settings = LinearSchedule(1_000), EpisodeSettings(prediction="velocity")
    g = torch.Generator().manual_seed(8)
    clean, noise = torch.randn(2, 3, L, F, generator=g), torch.randn(2, 3, L, F, generator=g)
    k = torch.tensor([[0, 10, 999], [500, 300, 700]])
    noisy, velocity = schedule.diffuse(clean, k, noise), schedule.diffuse(noise, k, -clean)
    standard = Moments(torch.zeros(L, F), torch.ones(L, F))
    found = clean_estimate(settings, schedule, standard, velocity, noisy, k)
    torch.testing.assert_close(found, clean, rtol=1e-4, atol=1e-5)
    assert clean_estimate(EpisodeSettings(), schedule, standard, velocity, noisy, k) is velocity


def test_a_silent_network_of_velocities_gives_the_best_linear_estimate() -> None:
    # Of Gaussian entries: the regression of x_0 on x_k, and what it leaves is s √(1 − ᾱ) / √T.
    schedule, settings, draw = LinearSchedule(1_000), EpisodeSettings(prediction="velocity"), np.random.default_rng(9)
    moments = Moments(
        torch.tensor([[0.0, -0.9, 3.0], [0.5, 0.0, -2.0]]), torch.tensor([[0.1, 0.5, 2.0], [1.0, 0.02, 0.3]])
    )
    count = 40_000

    def normal() -> Tensor:
        return torch.from_numpy(draw.standard_normal((count, 2, 3), dtype=np.float32))

    clean = moments.mean + moments.deviation * normal()
    for step in (20, 300, 800):
        k = torch.full((count,), step)
        noisy = schedule.diffuse(clean, k, normal())
        silent = clean_estimate(settings, schedule, moments, torch.zeros_like(clean), noisy, k)
        of_clean, of_noisy = clean - clean.mean(dim=0), noisy - noisy.mean(dim=0)
        slope = (of_clean * of_noisy).mean(dim=0) / of_noisy.square().mean(dim=0)
        torch.testing.assert_close(silent, clean.mean(dim=0) + slope * of_noisy, rtol=0.1, atol=0.06)
        one = clean_estimate(settings, schedule, moments, torch.ones_like(clean), noisy, k)
        left = (clean - silent).square().mean(dim=0).sqrt()
        torch.testing.assert_close((silent - one)[0], left, rtol=0.03, atol=1e-3)


def test_a_model_of_velocities_learns_and_samples_the_data(episodes: Episodes) -> None:
    data = episodes((7, 7, 7, 7))
    signals, run, settings = signals_of(data), Run(seeds=(1,)), tiny(prediction="velocity", lambda_q=0.0)
    network, schedule, moments = Recording(1), LinearSchedule(10), signals.matrix.moments
    training = EpisodeTraining(settings, cast(Any, network), signals, [np.arange(4)], run, Journal(run, 10))
    chunk = training.draw()
    loss = training.losses(chunk, 0)  # the network gives zeros
    (x, k), clean = network.shown[0], signals.signals(chunk.episodes[:, 0])
    estimate = clean_estimate(settings, schedule, moments, torch.zeros_like(x), x, k)
    torch.testing.assert_close(loss, (estimate - clean).square().mean(dim=(1, 2, 3)))
    (model,) = fit_episode_models(settings, data, run)
    step = torch.full((1, 4), 3)
    expected = clean_estimate(settings, schedule, moments, model.unet(clean, step), clean, step)
    torch.testing.assert_close(model.predict(clean, step), expected, rtol=1e-4, atol=1e-5)


def test_the_protocol_fixes_what_it_names() -> None:
    budget = EpisodeBudget(
        width=16, prediction="velocity", updates=100, batch_size=3, learning_rate=0.1, ema_every=2,
        head_updates=7, sampler="ddim", sampling_steps=3,
    )  # fmt: skip
    settings = EpisodeSettings().within(budget)
    assert (settings.width, settings.updates, settings.batch_size, settings.learning_rate) == (16, 100, 3, 0.1)
    assert (settings.ema_every, settings.ema_start, settings.head_updates) == (2, 20, 7)
    assert settings.rows().head_updates == 7
    assert settings.prediction == "velocity"
    assert EpisodeSettings().within(EpisodeBudget()) == EpisodeSettings()
    assert EpisodeSettings.from_array(settings.array()) == settings


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"lambda_q": -0.1}, "lambda_q=-0.1"),
        ({"lambda_q": float("nan")}, "lambda_q=nan"),
        ({"q_mean": "median"}, "padded or valid"),
        ({"prediction": "noise"}, "data or velocity"),
        ({"gamma": 1.5}, "gamma=1.5"),
        ({"updates": 0}, "updates=0"),
        ({"width": 12}, "divisible by 8, not 12"),
        ({"diffusion_steps": 0}, "at least 1"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"head_hidden": 0}, "head_hidden=0"),
    ],
)
def test_settings_that_no_model_can_have_are_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        EpisodeSettings(**given)


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="schedule"):
        EpisodeSettings(schedule="quadratic")
