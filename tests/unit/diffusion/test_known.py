"""Known entries: clamped or repainted, they are exact in the end, and RePaint walks the steps it should."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from methods.diffusion.known import ClampConditioning, Conditioning, Known, RepaintConditioning
from methods.diffusion.samplers import DPMSolver, Memory, make_sampler
from methods.diffusion.sampling import NoiseSource, numpy_noise, sample
from methods.diffusion.schedule import CosineSchedule
from tasks.common.errors import UsageError
from tasks.common.seeding import make_generator

SHAPE = (2, 4, 3, 5)  # (B, H, N, D)
SCHEDULE = CosineSchedule(20)
SAMPLERS = [("ddpm", None), ("ddim", 6), ("dpmpp_2m", 6)]
CONDITIONINGS = [
    ClampConditioning(),
    RepaintConditioning(),
    RepaintConditioning(level="repaint"),
    RepaintConditioning(jump_length=2, resamples=3),
]


def noise(seed: int = 0) -> NoiseSource:
    return numpy_noise(make_generator("known", seed), "cpu")


def denoise(x: Tensor, k: int) -> Tensor:
    """Mixes agents and rows, so that known entries matter to the others."""
    return 0.5 * x + 0.3 * x.mean(dim=(1, 2), keepdim=True) + 0.01 * k


def values() -> Tensor:
    return torch.from_numpy(make_generator("values").uniform(-2, 2, SHAPE)).float()


def draw(known: Known | None, conditioning: Conditioning, sampler: tuple[str, int | None], seed: int = 0) -> Tensor:
    name, steps = sampler
    return sample(
        denoise,
        make_sampler(name, SCHEDULE, steps),
        SHAPE,
        noise(seed),
        known=known,
        conditioning=conditioning,
    )


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler[0])
@pytest.mark.parametrize("conditioning", CONDITIONINGS, ids=repr)
class TestEveryConditioning:
    def test_all_known_returns_the_input(self, conditioning: Conditioning, sampler: tuple[str, int | None]) -> None:
        given = values()
        assert torch.equal(draw(Known(given, torch.ones(SHAPE[:3], dtype=torch.bool)), conditioning, sampler), given)

    def test_nothing_known_is_plain_sampling(self, conditioning: Conditioning, sampler: tuple[str, int | None]) -> None:
        empty = Known(values(), torch.zeros(SHAPE[:3], dtype=torch.bool))
        assert torch.equal(draw(empty, conditioning, sampler), draw(None, ClampConditioning(), sampler))

    def test_known_entries_are_exact_and_the_others_are_drawn(
        self, conditioning: Conditioning, sampler: tuple[str, int | None]
    ) -> None:
        given = values()
        mask = torch.zeros(SHAPE[:3], dtype=torch.bool)
        mask[:, 0], mask[1, :, 2] = True, True
        first, second = (draw(Known(given, mask), conditioning, sampler, seed) for seed in (0, 1))
        assert torch.equal(first[mask], given[mask])
        assert (first[~mask].abs() <= 1).all()
        drawn = ~mask[..., None] & (first.abs() < 1) & (second.abs() < 1)  # the clip makes equals
        assert drawn.sum() > 20
        assert (first[drawn] != second[drawn]).all()


def seen_values(conditioning: Conditioning, sampler_name: str, steps: int | None) -> tuple[list[float], list[int]]:
    """Mean of the known entries at every call of the network, noise being 0 and known values 1, and the calls' k."""
    means: list[float] = []
    ks: list[int] = []
    known = Known.first_row(torch.ones(2, 3, 5), horizon=4)

    def watch(x: Tensor, k: int) -> Tensor:
        means.append(float(x[:, 0].mean()))
        ks.append(k)
        return torch.zeros_like(x)

    sampler = make_sampler(sampler_name, SCHEDULE, steps)
    sample(watch, sampler, (2, 4, 3, 5), lambda shape: torch.zeros(shape), known=known, conditioning=conditioning)
    return means, ks


def test_clamped_entries_are_clean_at_every_call() -> None:
    means, ks = seen_values(ClampConditioning(), "ddpm", None)
    assert means == [1.0] * 20
    assert ks == list(range(19, -1, -1))


@pytest.mark.parametrize(("name", "steps"), [("ddpm", None), ("ddim", 6)])
def test_repaint_pastes_at_the_level_that_the_network_expects(name: str, steps: int | None) -> None:
    means, ks = seen_values(RepaintConditioning(level="repaint", clean_start=False), name, steps)
    assert means == pytest.approx([math.sqrt(SCHEDULE.exact_alpha_bars[k]) for k in ks], abs=1e-6)


@pytest.mark.parametrize(("name", "steps"), [("ddpm", None), ("ddim", 6)])
def test_the_paper_pastes_one_diffusion_step_above(name: str, steps: int | None) -> None:
    means, ks = seen_values(RepaintConditioning(level="paper", clean_start=False), name, steps)
    levels = [min(k + 1, 19) for k in ks]  # with all 20 steps that of the step just taken
    assert means == pytest.approx([math.sqrt(SCHEDULE.exact_alpha_bars[k]) for k in levels], abs=1e-6)


def test_known_first_rows_are_clean_at_every_call_and_nothing_else_is() -> None:
    known = Known(torch.full((2, 4, 3, 5), 7.0), torch.zeros(2, 4, 3, dtype=torch.bool))
    known.mask[:, :2, 1] = True  # two rows of agent 1
    x = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    seen = RepaintConditioning().before_call(x, known)
    assert (seen[:, 0, 1] == 7).all()
    assert torch.equal(seen[:, 0, [0, 2]], x[:, 0, [0, 2]])
    assert torch.equal(seen[:, 1:], x[:, 1:])


def test_noise_of_pasted_entries_has_the_rest_of_the_variance() -> None:
    known = Known(torch.zeros(100, 10, 3, 5), torch.ones(100, 10, 3, dtype=torch.bool))
    pasted = known.paste_noised(torch.full((100, 10, 3, 5), 9.0), 0.36, noise())
    assert float(pasted.std()) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(
    ("steps", "jump_length", "resamples", "calls"),
    [(200, 10, 2, 390), (200, 10, 1, 200), (200, 10, 10, 1910), (250, 10, 10, 2410), (6, 10, 10, 6)],
)
def test_calls_of_repaint(steps: int, jump_length: int, resamples: int, calls: int) -> None:
    assert RepaintConditioning(jump_length=jump_length, resamples=resamples).calls(steps) == calls


def test_path_of_repaint_by_hand() -> None:
    # Seven steps, j = 2: from the end, jumps start at t = 0, 2 and 4, i.e. at states 6, 4 and 2; each once.
    assert RepaintConditioning(jump_length=2, resamples=2).path(7) == [
        0,
        1,
        2,
        0,
        1,
        2,
        3,
        4,
        2,
        3,
        4,
        5,
        6,
        4,
        5,
        6,
        7,
    ]
    assert ClampConditioning().path(3) == [0, 1, 2, 3]


def test_the_network_is_called_along_the_path() -> None:
    conditioning = RepaintConditioning(level="repaint", jump_length=2, resamples=2)
    _, ks = seen_values(conditioning, "ddpm", None)
    assert len(ks) == conditioning.calls(20)
    assert ks[:6] == [19, 18, 17, 18, 17, 16]  # at state 3 = 20 − 1 − t with t = 16 back to state 1, which sees k = 18


def test_a_jump_restores_the_noise_of_its_level() -> None:
    # The data are 0 and ε̂ = x/√(1 − ᾱ), so x̂_0 = 0: DDIM shrinks x to deviation √(1 − ᾱ), and jumps must restore it.
    deviations: list[tuple[int, float]] = []
    known = Known.first_row(torch.zeros(500, 3, 5), horizon=4)

    def zero(x: Tensor, k: int) -> Tensor:
        deviations.append((k, float(x[:, 1:].std())))
        return x / math.sqrt(1 - SCHEDULE.exact_alpha_bars[k])

    sampler = make_sampler("ddim", SCHEDULE, 7)
    conditioning = RepaintConditioning(jump_length=2, resamples=2)
    sample(zero, sampler, (500, 4, 3, 5), noise(), init_noise_scale=1.0, known=known, conditioning=conditioning)
    for k, deviation in deviations:
        assert deviation == pytest.approx(math.sqrt(1 - SCHEDULE.exact_alpha_bars[k]), rel=0.05)


def test_a_jump_forgets_what_the_sampler_remembered() -> None:
    remembered: list[bool] = []

    class Watched(DPMSolver):
        def step(self, index: int, x: Tensor, eps_hat: Tensor, noise: Tensor | None, memory: Memory) -> Any:
            remembered.append(memory is not None)
            return super().step(index, x, eps_hat, noise, memory)

    known = Known.first_row(values()[:, 0], horizon=4)
    conditioning = RepaintConditioning(jump_length=2, resamples=2)
    sample(denoise, Watched(SCHEDULE, 5), SHAPE, noise(), known=known, conditioning=conditioning)
    # States 0 1 2 | 0 1 2 3 4 | 2 3 4 5: a prediction made at less noise must not enter a step from more.
    assert remembered == [False, True, False, True, True, True, False, True, True]


def test_the_first_row_of_windows() -> None:
    known = Known.first_row(torch.ones(2, 3, 5), horizon=4)
    assert known.values.shape == (2, 4, 3, 5)
    assert known.mask.sum() == 2 * 3
    assert known.mask[:, 0].all()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"level": "k"}, "level 'k', expected 'paper' or 'repaint'"),
        ({"jump_length": 0}, "jump_length 0"),
        ({"resamples": 0}, "resamples 0"),
    ],
)
def test_settings_that_mean_nothing(settings: dict[str, int], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        RepaintConditioning(**settings)  # type: ignore[arg-type]


def test_a_mask_that_does_not_fit() -> None:
    with pytest.raises(UsageError, match=r"values of shape \(2, 4, 3, 5\) and a torch.bool mask of \(2, 4\)"):
        Known(values(), torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(UsageError, match="torch.float32 mask"):
        Known(values(), torch.ones(2, 4, 3))
