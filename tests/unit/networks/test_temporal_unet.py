import numpy as np
import pytest
import torch
from torch import Tensor

from methods.networks import convolution_block, short_convolution, temporal_unet
from methods.networks.short_convolution import Form, form_of
from methods.networks.tap_geometry import Geometry
from methods.networks.temporal_unet import TemporalUNet, UNetConfig, folded
from tasks.common.errors import UsageError
from tasks.common.seeding import make_generator


def make(replicas: int = 1, *, horizon: int = 8, features: int = 5, first: int = 0, **other: object) -> TemporalUNet:
    seeds = range(first, first + replicas)
    config = UNetConfig(horizon, features, width=8, **other)  # type: ignore[arg-type]
    return TemporalUNet(config, [make_generator("test", seed) for seed in seeds])


def inputs(
    replicas: int, batch: int = 4, horizon: int = 8, agents: int = 3, features: int = 5
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, k, returns, keep."""
    g = torch.Generator().manual_seed(0)
    return (
        torch.randn(replicas, batch, horizon, agents, features, generator=g),
        torch.randint(0, 200, (replicas, batch), generator=g),
        torch.rand(replicas, batch, agents, generator=g),
        torch.rand(replicas, batch, agents, generator=g) > 0.25,
    )


def open_gates(unet: TemporalUNet) -> None:
    with torch.no_grad():
        for module in unet.attention:
            module.gate.fill_(0.7)


@pytest.mark.parametrize("horizon", [4, 8, 24])
@pytest.mark.parametrize("agents", [1, 3, 12])
def test_shape_in_is_shape_out(horizon: int, agents: int) -> None:
    given = inputs(2, 2, horizon, agents)
    assert make(2, horizon=horizon)(*given).shape == given[0].shape


def test_a_horizon_of_ten_is_refused() -> None:
    with pytest.raises(UsageError, match="divisible by 4, not 10"):
        UNetConfig(10, 5)


def test_replicas_together_equal_each_alone() -> None:
    together, given = make(3), inputs(3)
    target = torch.zeros_like(given[0])
    outputs = together(*given)
    (outputs - target).square().mean(dim=(1, 2, 3, 4)).sum().backward()
    for r in range(3):
        alone = make(first=r)
        output = alone(*(value[r : r + 1] for value in given))
        torch.testing.assert_close(outputs[r : r + 1], output, rtol=1e-4, atol=2e-5)
        (output - target[r : r + 1]).square().mean().backward()
        for (name, mine), other in zip(alone.named_parameters(), together.parameters(), strict=True):
            assert other.grad is not None, name
            torch.testing.assert_close(other.grad[r : r + 1], mine.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_agents_are_interchangeable() -> None:
    unet, (x, k, returns, keep) = make(2).double(), inputs(2)
    x, returns = x.double(), returns.double()
    open_gates(unet)
    order = torch.tensor([2, 0, 1])
    expected = unet(x, k, returns, keep)[:, :, :, order]
    found = unet(x[:, :, :, order], k, returns[:, :, order], keep[:, :, order])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def influence(unet: TemporalUNet) -> list[float]:
    """How far each agent's output moves when agent 0's input does."""
    x, k, returns, keep = inputs(1)
    moved = x.clone()
    moved[:, :, :, 0] += 1.0
    with torch.no_grad():
        change = (unet(moved, k, returns, keep) - unet(x, k, returns, keep)).abs()
    return [float(change[:, :, :, agent].max()) for agent in range(3)]


def one_step(unet: TemporalUNet) -> None:
    x, *rest = inputs(1)
    optimiser = torch.optim.Adam(unet.parameters(), lr=1e-2)
    (unet(x, *rest) - x).square().mean().backward()
    optimiser.step()


def test_agents_start_independent_and_meet_after_a_step() -> None:
    unet = make()
    own, *others = influence(unet)
    assert own > 1e-3
    assert max(others) < 1e-6
    one_step(unet)
    assert min(influence(unet)) > 1e-5


def test_without_attention_agents_never_meet() -> None:
    unet = make(attention=False)
    one_step(unet)
    own, *others = influence(unet)
    assert own > 1e-3
    assert max(others) < 1e-6


@torch.no_grad()
def test_a_dropped_return_plays_no_part() -> None:
    unet, (x, k, returns, keep) = make(), inputs(1)
    never = torch.zeros_like(keep)
    torch.testing.assert_close(unet(x, k, returns, never), unet(x, k, returns + 5, never), rtol=0, atol=0)
    moved = (unet(x, k, returns, ~never) - unet(x, k, returns + 5, ~never)).abs().amax(dim=(0, 2, 4))
    assert float(moved.min()) > 1e-5
    mixed = (unet(x, k, returns, keep) - unet(x, k, returns + 5, keep)).abs().amax(dim=(2, 4))  # (R, B, N)
    assert torch.equal(mixed > 1e-6, keep)


@torch.no_grad()
def test_labels_are_heard_by_their_agent_alone() -> None:
    unet, given = make(label_size=6), inputs(1)
    labels = torch.zeros(1, 4, 3, 6)
    changed = labels.clone()
    changed[:, :, 1, 0] = 1.0
    moved = (unet(*given, changed) - unet(*given, labels)).abs().amax(dim=(0, 1, 2, 4))
    assert moved[1] > 1e-5
    assert float(moved[[0, 2]].max()) == 0.0


def test_parameter_count_of_the_published_network() -> None:
    """MADiff's 64.3 M at 18 features; at H = 24 every tap of every kernel has rows to meet."""
    with torch.device("meta"):
        wide = sum(shape.numel() for shape in _shapes(128))
    assert wide == pytest.approx(64.3e6, rel=1e-3)
    assert sum(shape.numel() for shape in _shapes(32)) == pytest.approx(4.0e6, rel=0.02)


def _shapes(width: int) -> list[torch.Size]:
    """Parameter shapes, counted without drawing 64 M weights."""

    class Zeros:
        def uniform(self, low: float, high: float, size: tuple[int, ...]) -> np.ndarray:
            return np.broadcast_to(np.float32(0), size)

    unet = TemporalUNet(UNetConfig(24, 18, width=width), [Zeros()])  # type: ignore[list-item]
    return [p.shape for p in unet.parameters()]


def test_arrays_restore_the_network() -> None:
    unet, given = make(2), inputs(2)
    again = TemporalUNet.from_arrays(unet.config, unet.arrays())
    torch.testing.assert_close(again(*given), unet(*given), rtol=0, atol=0)
    second = unet.replica(1)
    torch.testing.assert_close(second(*(v[1:] for v in given)), unet(*given)[1:], rtol=1e-4, atol=2e-5)
    with pytest.raises(UsageError, match="1 replicas, expected 2"):
        unet.load_arrays(unet.arrays()[:1])
    with pytest.raises(UsageError, match="differs"):
        unet.load_arrays(make(2, features=6).arrays())


def test_the_forms_of_a_gpu_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    unet = make(2, horizon=24).double()
    x, k, returns, keep = inputs(2, horizon=24)
    given = x.double(), k, returns.double(), keep
    expected = unet(*given)
    expected.square().sum().backward()
    gradients = [p.grad.clone() for p in unet.parameters() if p.grad is not None]
    unet.zero_grad()

    def of_gpu(geometry: Geometry, channels: tuple[int, int], device: torch.device, training: bool) -> Form:
        return form_of(geometry, channels, torch.device("cuda"), training)

    monkeypatch.setattr(short_convolution, "form_of", of_gpu)
    for module in (convolution_block, short_convolution):
        monkeypatch.setattr(module, "by_replica", lambda device, *tensors: iter([tensors]))
    monkeypatch.setattr(short_convolution, "stacked", lambda parts, like: parts[0])
    found = unet(*given)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    found.square().sum().backward()
    for p, gradient in zip(unet.parameters(), gradients, strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=1e-8, atol=1e-8)


def test_folded_takes_slices_and_keeps_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    unet, given = make(2), inputs(2)
    with torch.no_grad():
        expected = unet(*given)
    fixed = folded(unet)
    with torch.no_grad():
        for p in unet.parameters():
            p.zero_()
    torch.testing.assert_close(fixed(*given, None), expected, rtol=1e-4, atol=2e-5)
    monkeypatch.setattr(temporal_unet, "_SLICE_VALUES", 1)  # one window at a time
    torch.testing.assert_close(fixed(*given, None), expected, rtol=1e-4, atol=2e-5)
    assert not fixed(*given, None).requires_grad
