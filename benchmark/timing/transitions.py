"""Models of transitions: training and sampling against plain modules, and against what SynthER's repository reaches."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.timing.few_steps import feature_distances
from benchmark.timing.measurements import Measurement, interleaved_seconds, summarise
from benchmark.timing.transition_yardstick import WIDTH, PlainResidualMLP, PlainTransformer, plain_updates
from methods.augmenters import AUGMENTERS
from methods.base import Budget, Run
from methods.diffusion.edm import DenoiseAt, EDMProcess, HeunSampler, make_edm_sampler
from methods.diffusion.sampling import numpy_noise
from methods.journal import Journal
from methods.networks.agent_transformer import AgentTransformer, TransformerConfig
from methods.networks.precision import fast_matmul
from methods.networks.token_groups import TokenGroups
from methods.run import TransitionBudget
from methods.transitions.augmenter import TransitionAugmenter
from methods.transitions.denoising import DenoisingObjective, GroupedMLP, denoiser_of
from methods.transitions.training import TrainingPlan, train
from tasks.common.seeding import make_generator
from tasks.datasets.regimes import collect, resolve
from tasks.registry import make_task

AGENTS, FEATURES, BATCH, STEPS = 3, 39, 1024, 20_000  # tokens of `mpe/spread`; the batch of both papers
SYNTHER_WIDTH, ROWS = WIDTH, 1024
UPDATES = {"synther": 1, "ins": 10}  # in a repetition
EPISODES, FIT = 400, TransitionBudget(width=128, updates=800, batch_size=256, learning_rate=2e-3)
DRAWN = 1024  # transitions whose distribution is compared
SAMPLERS = (("edm_heun", 32), ("edm_heun_det", 18), ("edm_heun_det", 32))

PUBLISHED = {"train": 0.56, "sample": 7.0}
"""SynthER's repository on one core of another such machine: steps a second, transitions a second of 128 stochastic
steps."""
TARGET, FEW_STEPS_TARGET = 2.0, 8.0


@dataclass(frozen=True, slots=True)
class _Optimiser:
    learning_rate: float
    weight_decay: float
    max_norm: float | None


OPTIMISERS = {"synther": _Optimiser(3e-4, 0.0, 1.0), "ins": _Optimiser(2e-4, 1e-4, None)}
"""As the methods have them, in both forms."""

Network = Callable[[Tensor, Tensor], Tensor]


def measure(device: str) -> Iterator[Measurement]:
    """`synther` at its published size, `ins`, then how far the samplers' outputs are from each other."""
    tokens = _tokens(device)
    # Its agents are models of their own: one of them is what SynthER's repository trains.
    yield from _one("synther", tokens[:, :1], PlainResidualMLP(FEATURES, SYNTHER_WIDTH), device)
    yield from _one("ins", tokens, PlainTransformer(FEATURES), device)
    for name in ("synther", "ins"):
        yield from _samplers_apart(name, device)


def _one(name: str, tokens: Tensor, plain: nn.Module, device: str) -> Iterator[Measurement]:
    plain.to(device)
    published = PUBLISHED if name == "synther" else {}
    size = sum(p.numel() for p in plain.parameters())
    detail = f"{size / 1e6:.3g} M parameters, float32, {device}"
    apart = tokens[:, 0] if name == "synther" else tokens
    count, how = UPDATES[name], OPTIMISERS[name]
    rates = {"lr": how.learning_rate, "weight_decay": how.weight_decay}
    ours, theirs = interleaved_seconds(
        _our_updates(name, tokens, count, device),
        plain_updates(plain, apart, BATCH, count, max_norm=how.max_norm, **rates),
        repetitions=3,
        device=device,
    )
    label = f"transition/{name}/train"
    yield from _against(
        label, [count / s for s in ours], [count / s for s in theirs], "steps/s", f"batch {BATCH}, {detail}"
    )
    if "train" in published:
        yield _over_published(label, [count / s for s in ours], published["train"], TARGET)

    plain.eval().requires_grad_(False)
    network = _network(name, tokens.shape[1]).to(device).requires_grad_(False)
    stochastic, few = make_edm_sampler("edm_heun"), make_edm_sampler("edm_heun_det")
    x = tokens[:ROWS]
    in_plain_form = _sampler_step(stochastic, _plain_denoiser(plain), x)
    own = {s: _as_fitted(_sampler_step(s, denoiser_of(network), x), device) for s in (stochastic, few)}
    ours, theirs = interleaved_seconds(own[stochastic], in_plain_form, repetitions=3, device=device)
    label = f"transition/{name}/sample"
    detail = f"{len(stochastic.gammas)} stochastic steps, from one measured, {ROWS} at once, {detail}"
    fast, slow = ([_a_second(stochastic, s) for s in seconds] for seconds in (ours, theirs))
    yield from _against(label, fast, slow, "transitions/s", detail)
    if "sample" in published:
        yield _over_published(label, fast, published["sample"], TARGET)
    ours, theirs = interleaved_seconds(own[few], in_plain_form, repetitions=3, device=device)
    fast, slow = [_a_second(few, s) for s in ours], [_a_second(stochastic, s) for s in theirs]
    label = f"{label}, {len(few.gammas)} deterministic steps"
    detail = f"over {len(stochastic.gammas)} stochastic steps of the plain form"
    yield summarise(f"{label}: speed-up", list(np.divide(fast, slow)), unit="x", detail=detail, target=FEW_STEPS_TARGET)
    if "sample" in published:
        yield _over_published(label, fast, published["sample"], FEW_STEPS_TARGET)


def _against(label: str, ours: list[float], theirs: list[float], unit: str, detail: str) -> Iterator[Measurement]:
    yield summarise(f"{label}/plain", theirs, unit=unit, detail=f"plain modules, {detail}")
    yield summarise(f"{label}/ours", ours, unit=unit, detail=detail)
    ratio = list(np.divide(ours, theirs))
    yield summarise(f"{label}: speed-up", ratio, unit="x", detail="over plain modules, in turn", target=TARGET)


def _over_published(label: str, rates: list[float], published: float, target: float) -> Measurement:
    return summarise(
        f"{label}, against SynthER's repository: ratio",
        [rate / published for rate in rates],
        unit="x",
        detail=f"over {published} a second, measured elsewhere on one such core",
        target=target,
    )


def _tokens(device: str) -> Tensor:
    """(STEPS, AGENTS, FEATURES) standard normal, as normalised tokens are."""
    drawn = make_generator("timing", "transition").standard_normal((STEPS, AGENTS, FEATURES), dtype=np.float32)
    return torch.from_numpy(drawn).to(device)


def _network(name: str, agents: int) -> nn.Module:
    generators = [make_generator("timing", "transition", name)]
    if name == "ins":
        return AgentTransformer(TransformerConfig(features=FEATURES), generators)
    return GroupedMLP(TokenGroups(agents, apart=True), FEATURES, SYNTHER_WIDTH, generators)


def _our_updates(name: str, tokens: Tensor, count: int, device: str) -> Callable[[], object]:
    """So many updates as a fit does them: rows and noise drawn, clipping and averages included."""
    of_ins, agents = name == "ins", tokens.shape[1]
    plan = TrainingPlan(
        updates=count,
        batch_size=BATCH,
        ema_decay=0.995,
        **asdict(OPTIMISERS[name]),
    )
    groups = TokenGroups(agents, apart=not of_ins)
    network = _network(name, agents).to(device)
    taught = [np.arange(len(tokens))]
    objective = DenoisingObjective(network, groups, tokens, taught, BATCH, one_level=of_ins)
    run = Run(seeds=(0,), device=device)
    return _as_fitted(lambda: train(objective, plan, run, Journal(run, count), stage="timing"), device)


def _plain_denoiser(network: nn.Module) -> DenoiseAt:
    """D of tokens (M, T, F); SynthER's network sees one agent's tokens."""
    process = EDMProcess()

    def call(x: Tensor, c: Tensor) -> Tensor:
        if isinstance(network, PlainResidualMLP):
            out: Tensor = network(x[:, 0], c[:, 0])[:, None]
            return out
        out = network(x, c)
        return out

    return lambda x, sigma: process.denoised(call, x, torch.full(x.shape[:-1], sigma, device=x.device))


def _sampler_step(sampler: HeunSampler, denoise: DenoiseAt, x: Tensor) -> Callable[[], object]:
    """One step in the middle, of two evaluations, with noise where the sampler adds some."""
    middle, generator = len(sampler.gammas) // 2, torch.Generator(x.device).manual_seed(0)

    @torch.no_grad()
    def step() -> None:
        noisy = sampler.gammas[middle] > 0
        fresh = torch.randn(x.shape, device=x.device, generator=generator) if noisy else None
        sampler.step(middle, x, denoise, fresh)

    return step


def _as_fitted(action: Callable[[], object], device: str) -> Callable[[], object]:
    """With products as a fit on this device computes them; plain modules have torch's default."""

    def run() -> None:
        with _fast(device):
            action()

    return run


def _a_second(sampler: HeunSampler, seconds: float) -> float:
    """Transitions a second of all evaluations, from the seconds of a step of two."""
    return ROWS / (seconds / 2 * sampler.evaluations)


def _fast(device: str) -> contextlib.AbstractContextManager[object]:
    """Products as a fit on this device computes them."""
    return fast_matmul() if device == "cpu" else contextlib.nullcontext()


def _samplers_apart(name: str, device: str) -> Iterator[Measurement]:
    """How far what other samplers draw is from what 128 stochastic steps draw, on a small model of real data."""
    task = make_task("mpe/spread")
    data = collect(task, resolve(task, "exp-m"), EPISODES, 0, lambda done, total, what: None)
    augmenter = AUGMENTERS.load(name).from_params({"head_updates": 1})
    assert isinstance(augmenter, TransitionAugmenter)
    augmenter.fit(data, Run(seeds=(0,), device=device, budget=Budget(transition=FIT)))
    model = augmenter.model_on(device)

    def drawn(sampler: str, steps: int, stream: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        run = Run(
            seeds=(0,),
            device=device,
            budget=Budget(transition=TransitionBudget(sampler=sampler, sampling_steps=steps)),
        )
        noise = numpy_noise(make_generator("timing", name, stream), device)
        with _fast(device):
            tokens = augmenter.draw(model, run, DRAWN, noise, lambda share: None)
        return tokens.flatten(0, 1).cpu().numpy()

    steps = len(make_edm_sampler("edm_heun").gammas)
    reference, again = drawn("edm_heun", steps, "reference"), drawn("edm_heun", steps, "again")
    detail = f"two-sample Kolmogorov-Smirnov of each feature, {len(reference)} tokens: median and range over features"
    label = f"transition/{name}/samplers"
    floor = feature_distances(reference, again)
    yield summarise(f"{label}/edm_heun {steps} against itself: distance", floor, unit="KS", detail=detail)
    for sampler, few in SAMPLERS:
        found = feature_distances(reference, drawn(sampler, few, "few"))
        yield summarise(f"{label}/{sampler} {few}: distance", found, unit="KS", detail=detail)
