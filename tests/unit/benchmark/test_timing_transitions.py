"""The groups `transition` and `attention`: plain forms equal ours, memory by hand, all measurements at toy size."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmark.timing import attention, transitions
from benchmark.timing.measurements import Measurement
from benchmark.timing.transition_yardstick import (
    PlainAttention,
    PlainResidualMLP,
    PlainTransformer,
    plain_sparsemax,
    plain_updates,
)
from methods.networks.agent_transformer import AgentAttention, AgentTransformer, TransformerConfig
from methods.networks.residual_mlp import ResidualMLP
from methods.networks.sparsemax import sparsemax
from methods.run import TransitionBudget


def rng(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def normal(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(rng(seed).normal(size=shape).astype(np.float32))


def put(linear: nn.Module, stacked: nn.Module) -> None:
    """The weights of the first network of a stack into a `torch.nn.Linear`."""
    state = stacked.state_dict()
    linear.load_state_dict({"weight": state["weight"][0].T, "bias": state["bias"][0, 0]})


def put_attention(plain: PlainAttention, ours: AgentAttention) -> None:
    for layer, weight in zip((plain.query, plain.key, plain.value), ours.projections[0].chunk(3, dim=1), strict=True):
        layer.load_state_dict({"weight": weight.detach().T})
    put(plain.out, ours.out)


def test_the_plain_perceptron_is_synthers() -> None:
    ours, plain = ResidualMLP(5, 5, 16, [rng(0)]), PlainResidualMLP(5, 16)
    fourier, first, _, second = plain.level
    fourier.load_state_dict({"frequencies": ours.features.frequencies[0, 0]})
    pairs = [(first, ours.level_in), (second, ours.level_out), (plain.token, ours.token), (plain.widen, ours.widen)]
    for linear, stacked in (*pairs, (plain.out, ours.out), *zip(plain.residual, ours.residual, strict=True)):
        put(linear, stacked)
    x, c = normal(1, 7, 5), normal(2, 7)
    torch.testing.assert_close(plain(x, c), ours(x[None], c[None])[0])


def test_the_plain_transformer_is_that_of_ins() -> None:
    ours, plain = AgentTransformer(TransformerConfig(features=5), [rng(0)]), PlainTransformer(5).eval()
    plain.level.load_state_dict({"frequencies": ours.level.frequencies[0, 0]})
    put(plain.embed, ours.embed)
    put(plain.out, ours.out)
    for block, (attended, fed) in enumerate(zip(ours.between, ours.feed_forward, strict=True)):
        assert isinstance(attended, AgentAttention)
        put_attention(plain.attention[block], attended)  # type: ignore[arg-type]  # a module list forgets types
        put(plain.feed_forward[block][0], fed.layers[0])  # type: ignore[index, union-attr]  # same
        put(plain.feed_forward[block][2], fed.layers[1])  # type: ignore[index, union-attr]  # same
    x, c = normal(1, 7, 3, 5), normal(2, 7)[:, None].expand(7, 3)
    torch.testing.assert_close(plain(x, c), ours(x[None], c[None])[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sparse", [True, False])
def test_plain_attention_is_ours(sparse: bool) -> None:
    config = TransformerConfig(features=1, attention="sparse" if sparse else "dense")
    ours, plain = AgentAttention(config, [rng(0)]), PlainAttention(sparse=sparse)
    put_attention(plain, ours)
    x = normal(1, 6, 4, 64)
    torch.testing.assert_close(plain(x), ours(x[None])[0])


def test_plain_sparsemax_has_the_same_values_and_gradients() -> None:
    z, of_p = normal(3, 40, 6) * 2, normal(4, 40, 6)
    found = []
    for function in (plain_sparsemax, sparsemax):
        given = z.clone().requires_grad_()
        p = function(given)
        torch.autograd.backward((p * of_p).sum())
        found.append((p.detach(), given.grad))
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("max_norm", [None, 1.0])
def test_plain_updates_learn(max_norm: float | None) -> None:
    network, tokens = PlainResidualMLP(2, 16), torch.ones(50, 2)
    before = [p.detach().clone() for p in network.parameters()]
    plain_updates(network, tokens, 8, 3, max_norm=max_norm, lr=1e-3)()
    assert any(not torch.equal(p, q) for p, q in zip(before, network.parameters(), strict=True))


def test_the_peak_is_the_most_at_one_time() -> None:
    def work() -> None:
        first = torch.zeros(1_000_000)  # 4 MB
        second = first + 1  # 8 MB
        del first
        third = torch.zeros(3_000_000)  # 16 MB
        del second, third

    assert attention.peak_megabytes(work, "cpu") == pytest.approx(16.0, abs=0.01)


def named(taken: list[Measurement]) -> dict[str, Measurement]:
    found = {measurement.name: measurement for measurement in taken}
    assert len(found) == len(taken)
    assert all(math.isfinite(m.value) and m.value > 0 for m in taken)
    return found


@pytest.mark.slow
def test_transitions_at_toy_size(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = {
        "BATCH": 4,
        "STEPS": 20,
        "SYNTHER_WIDTH": 8,
        "ROWS": 4,
        "UPDATES": {"synther": 1, "ins": 1},
        "EPISODES": 4,
        "DRAWN": 40,
        "FIT": TransitionBudget(width=8, updates=2, batch_size=4),
        "SAMPLERS": (("edm_heun_det", 2),),
    }
    for name, value in toy.items():
        monkeypatch.setattr(transitions, name, value)
    before = torch.get_float32_matmul_precision()
    taken = named(list(transitions.measure("cpu")))
    assert torch.get_float32_matmul_precision() == before
    targets = {name: m.target for name, m in taken.items() if m.target is not None}
    assert targets == {
        "transition/synther/train: speed-up": 2.0,
        "transition/synther/train, against SynthER's repository: ratio": 2.0,
        "transition/synther/sample: speed-up": 2.0,
        "transition/synther/sample, against SynthER's repository: ratio": 2.0,
        "transition/synther/sample, 32 deterministic steps: speed-up": 8.0,
        "transition/synther/sample, 32 deterministic steps, against SynthER's repository: ratio": 8.0,
        "transition/ins/train: speed-up": 2.0,
        "transition/ins/sample: speed-up": 2.0,
        "transition/ins/sample, 32 deterministic steps: speed-up": 8.0,
    }
    assert 0 < taken["transition/ins/samplers/edm_heun 128 against itself: distance"].value < 1
    rate, ratio = (
        taken[f"transition/synther/train{end}"] for end in ("/ours", ", against SynthER's repository: ratio")
    )
    assert ratio.value == pytest.approx(rate.value / 0.56)


@pytest.mark.slow
def test_attention_at_toy_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "BATCH", 4)
    monkeypatch.setattr(attention, "TEAMS", (3, 25))
    taken = named(list(attention.measure("cpu")))
    weights = 4 * 4 * 25 * 25 * 4 / 1e6  # MB of one (batch, heads, N, N)
    assert taken["attention/25 agents/sparse: memory"].value > weights
    assert {name for name, m in taken.items() if m.target is not None} == {
        "attention/3 agents: speed-up",
        "attention/25 agents: speed-up",
    }
