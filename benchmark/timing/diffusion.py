"""The temporal U-Net against MADiff's in plain modules: training, several seeds at once, sampling."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.timing.few_steps import measure_few_steps
from benchmark.timing.measurements import Measurement, interleaved_seconds, summarise
from benchmark.timing.yardstick import Yardstick
from methods.networks.precision import fast_matmul
from methods.networks.temporal_unet import Inference, TemporalUNet, UNetConfig, folded
from tasks.common.seeding import make_generator

AGENTS, FEATURES, BATCH, STEPS = 3, 18, 32, 200
PAPER, QUICK = 128, 32  # widths
SEEDS = 5
MEASURED_STEPS = 1  # of the 200, which all cost the same

TRAINING_TARGET, QUICK_TARGET, SAMPLING_TARGET = 1.2, 10.0, 2.2

Action = Callable[[], object]
Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


def measure(device: str) -> Iterator[Measurement]:
    """Ratios to the yardstick, then five seeds together, then samplers of few steps."""
    with fast_matmul() if device == "cpu" else contextlib.nullcontext():
        yield from _training(device)
        yield from _five_seeds(device)
        for horizon in (8, 24):
            yield from _sampling(device, horizon)
        yield from measure_few_steps(device)


def _training(device: str) -> Iterator[Measurement]:
    inputs = _inputs(device, horizon=8)
    yardstick = Yardstick(FEATURES, PAPER).to(device)
    plain = _updates(yardstick, lambda: yardstick(*_only(inputs)), inputs[0][0], fused=False)
    detail = f"batch {BATCH}, H = 8, {AGENTS} agents, {FEATURES} features, Adam included, {device}"
    for width, target, count in ((PAPER, TRAINING_TARGET, 1), (QUICK, QUICK_TARGET, 10)):
        ours, theirs = interleaved_seconds(_our_updates(width, inputs, count), plain, repetitions=3, device=device)
        if width == PAPER:
            steps = [1 / seconds for seconds in theirs]
            yield summarise("diffusion/train/yardstick", steps, unit="steps/s", detail=f"width {PAPER}, {detail}")
        label, per_second = f"diffusion/train/width {width}", [count / seconds for seconds in ours]
        yield summarise(label, per_second, unit="steps/s", detail=detail)
        yield summarise(
            f"{label}: speed-up",
            list(np.multiply(per_second, theirs)),
            unit="x",
            detail=f"over the yardstick of width {PAPER}, float32",
            target=target,
        )


def _five_seeds(device: str) -> Iterator[Measurement]:
    inputs = _inputs(device, horizon=8, replicas=SEEDS)
    alone = _our_updates(QUICK, tuple(value[:1] for value in inputs), 2 * SEEDS)  # type: ignore[arg-type]  # four
    five, one = interleaved_seconds(_our_updates(QUICK, inputs, 2), alone, repetitions=3, device=device)
    yield summarise(
        f"diffusion/train/width {QUICK}: speed-up of five seeds",
        list(np.divide(one, five)),
        unit="x",
        detail=f"five one after another over five together, batch {BATCH} each, {device}",
    )


def _sampling(device: str, horizon: int) -> Iterator[Measurement]:
    """Segments a second of ancestral sampling, from a few of its steps."""
    x, k, returns, keep = _inputs(device, horizon)
    null, full = torch.zeros_like(keep), torch.ones_like(keep)
    both: Inputs = (x.repeat(1, 2, 1, 1, 1), k.repeat(1, 2), returns.repeat(1, 2, 1), torch.cat([null, full], dim=1))
    yardstick, unet = Yardstick(FEATURES, PAPER).to(device).requires_grad_(False), _unet(PAPER, horizon, 1).to(device)

    def two_calls() -> None:
        for _ in range(MEASURED_STEPS):
            for given in (null, full):
                yardstick(*_only((x, k, returns, given)))

    def one_call() -> None:
        for _ in range(MEASURED_STEPS):
            yardstick(*_only(both))

    def one_batch(denoise: Inference) -> Action:
        return lambda: [denoise(*both, None) for _ in range(MEASURED_STEPS)]

    label = f"diffusion/sample/H = {horizon}"
    scaled = f"{STEPS} guided steps, from {MEASURED_STEPS} measured, batch {BATCH}, width {PAPER}, {device}"
    fast, slow = interleaved_seconds(one_batch(folded(unet)), two_calls, repetitions=3, device=device)
    segments = MEASURED_STEPS / STEPS * BATCH  # whole segments that the measured steps amount to
    yield summarise(f"{label}/yardstick", [segments / s for s in slow], unit="segments/s", detail=scaled)
    yield summarise(f"{label}/folded", [segments / s for s in fast], unit="segments/s", detail=scaled)
    yield summarise(
        f"{label}: speed-up",
        list(np.divide(slow, fast)),
        unit="x",
        detail="folded and in one batch over the yardstick in two calls, float32",
        target=SAMPLING_TARGET if horizon == 8 else None,
    )
    fast, slow = interleaved_seconds(one_batch(folded(unet)), one_call, repetitions=3, device=device)
    detail = "one batch either way, float32"
    yield summarise(f"{label}: folded over unfolded", list(np.divide(slow, fast)), unit="x", detail=detail)
    if horizon == 8:
        half, single = interleaved_seconds(
            one_batch(folded(unet, torch.bfloat16)), one_batch(folded(unet)), repetitions=3, device=device
        )
        detail = "bfloat16 over float32, both folded; an approximation"
        yield summarise(f"{label}: speed-up of bfloat16", list(np.divide(single, half)), unit="x", detail=detail)


def _inputs(device: str, horizon: int, replicas: int = 1) -> Inputs:
    """Noisy windows (R, B, H, N, D), steps (R, B), returns and whether they are kept (R, B, N)."""
    generator = make_generator("timing", "diffusion", "inputs")
    x = generator.standard_normal((replicas, BATCH, horizon, AGENTS, FEATURES), dtype=np.float32)
    k = generator.integers(STEPS, size=(replicas, BATCH))
    returns = generator.random((replicas, BATCH, AGENTS), dtype=np.float32)
    keep = generator.random((replicas, BATCH, AGENTS)) > 0.25
    drawn = (torch.from_numpy(values).to(device) for values in (x, k, returns, keep))
    return tuple(drawn)  # type: ignore[return-value]  # four


def _only(inputs: Inputs) -> Inputs:
    """The inputs of the first replica."""
    x, k, returns, keep = inputs
    return x[0], k[0], returns[0], keep[0]


def _unet(width: int, horizon: int, replicas: int) -> TemporalUNet:
    generators = [make_generator("timing", "diffusion", seed) for seed in range(replicas)]
    return TemporalUNet(UNetConfig(horizon, FEATURES, width=width, first_skip=width == QUICK), generators)


def _our_updates(width: int, inputs: Inputs, count: int) -> Action:
    unet = _unet(width, inputs[0].shape[2], len(inputs[0])).to(inputs[0].device)
    return _updates(unet, lambda: unet(*inputs), inputs[0], count=count)


def _updates(
    network: nn.Module, estimate: Callable[[], Tensor], noise: Tensor, *, fused: bool = True, count: int = 1
) -> Action:
    """So many training steps: forward, backward, Adam."""
    adam = torch.optim.Adam(network.parameters(), lr=2e-4, fused=fused)

    def train() -> None:
        for _ in range(count):
            adam.zero_grad()
            torch.autograd.backward((estimate() - noise).square().mean())
            adam.step()

    return train
