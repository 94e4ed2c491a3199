"""Attention over agents: time and memory of sparse weights, their plain form and softmax, by the size of the team."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmark.timing.measurements import Measurement, interleaved_seconds, summarise
from benchmark.timing.transition_yardstick import SIZE, PlainAttention
from methods.networks.agent_transformer import AgentAttention, TransformerConfig
from tasks.common.seeding import make_generator

TEAMS = (3, 12, 25)
BATCH = 1024  # transitions, as INS trains with
REPETITIONS = 5
TARGET = 1.0
"""Times the speed of the plain form that the sparse one shall have at least."""

CONFIG = TransformerConfig(features=SIZE)
Action = Callable[[], object]


def measure(device: str) -> Iterator[Measurement]:
    """One layer, forward and backward, at INS' size; the memory is the peak of what is allocated meanwhile."""
    for agents in TEAMS:
        drawn = make_generator("timing", "attention", agents).standard_normal((BATCH, agents, SIZE), dtype=np.float32)
        x = torch.from_numpy(drawn).to(device)
        ours = {
            kind: _forth_and_back(_ours(kind).to(device), x[None], device) for kind in ("sparse", "dense")
        }  # R = 1 replica
        plain = {
            "sparse": _forth_and_back(PlainAttention().to(device), x, device),
            "dense": _forth_and_back(PlainAttention(sparse=False).to(device), x, device),
        }
        label = f"attention/{agents} agents"
        detail = f"one layer of {SIZE} features, {CONFIG.heads} heads, batch {BATCH}, forward and backward, {device}"
        fast, slow = interleaved_seconds(ours["sparse"], plain["sparse"], repetitions=REPETITIONS)
        yield _milliseconds(f"{label}/sparse", fast, detail)
        yield _milliseconds(f"{label}/plain sparse", slow, f"plain modules, {detail}")
        ratio = list(np.divide(slow, fast))
        yield summarise(f"{label}: speed-up", ratio, unit="x", detail="sparse over its plain form", target=TARGET)
        fast, slow = interleaved_seconds(ours["dense"], ours["sparse"], repetitions=REPETITIONS)
        yield _milliseconds(f"{label}/softmax", fast, detail)
        ratio = list(np.divide(slow, fast))
        yield summarise(f"{label}: time of sparse over softmax", ratio, unit="x", detail="the same layer otherwise")
        for name, action in (
            ("sparse", ours["sparse"]),
            ("plain sparse", plain["sparse"]),
            ("softmax", ours["dense"]),
        ):
            peak = peak_megabytes(action, device)
            yield summarise(f"{label}/{name}: memory", [peak], unit="MB", detail=f"peak allocated, {detail}")


def peak_megabytes(action: Action, device: str) -> float:
    """The most that an action has allocated at one time, beyond what there was, in units of 10⁶ bytes."""
    action()  # gradients are there
    if device != "cpu":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        action()
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        action()
    assert profiled.profiler is not None  # set while it was entered
    results = profiled.profiler.kineto_results
    assert results is not None  # set when it was left
    changes = sorted((event.start_ns(), event.nbytes()) for event in results.events() if event.name() == "[memory]")
    return float(np.cumsum([size for _, size in changes]).max()) / 1e6


def _ours(kind: str) -> nn.Module:
    return AgentAttention(replace(CONFIG, attention=kind), [make_generator("timing", "attention", kind)])


def _forth_and_back(layer: nn.Module, x: Tensor, device: str) -> Action:
    inputs = x.clone().requires_grad_()

    def run() -> None:
        layer.zero_grad()
        inputs.grad = None
        torch.autograd.backward(layer(inputs).square().mean())
        if device != "cpu":
            torch.cuda.synchronize(device)

    return run


def _milliseconds(name: str, seconds: list[float], detail: str) -> Measurement:
    return summarise(name, [1e3 * s for s in seconds], unit="ms", detail=detail)
