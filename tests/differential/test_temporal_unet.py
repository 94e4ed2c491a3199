"""The temporal U-Net against the same network written with torch's own modules."""

import pytest
import torch
from torch import Tensor, nn

from benchmark.timing.yardstick import Attention, Residual, Yardstick
from methods.networks import short_convolution
from methods.networks.agent_attention import AgentAttention
from methods.networks.convolution_block import ConvolutionBlock
from methods.networks.short_convolution import StackedConvolution
from methods.networks.stacked import StackedLinear
from methods.networks.temporal_unet import ResidualBlock, TemporalUNet, UNetConfig, folded
from tasks.common.seeding import make_generator


def linear(theirs: nn.Module, ours: StackedLinear, columns: slice = slice(None)) -> None:
    shape = theirs.weight.shape  # type: ignore[union-attr]
    theirs.weight.data = ours.weight[0, :, columns].mT.reshape(shape).clone()  # type: ignore[operator]
    theirs.bias.data = ours.bias[0, 0, columns].clone()


def convolution(theirs: nn.Module, ours: StackedConvolution) -> None:
    geometry = ours.geometry
    full = torch.zeros(geometry.kernel, *ours.weight.shape[2:], dtype=ours.weight.dtype)
    full[list(geometry.used)] = ours.weight.data[0]
    theirs.weight.data = full.permute(1, 2, 0) if geometry.transposed else full.permute(2, 1, 0)
    theirs.bias.data = ours.bias.data[0, 0].clone()


def block(theirs: nn.Module, ours: ConvolutionBlock) -> None:
    convolution(theirs[0], ours.convolution)  # type: ignore[index]
    theirs[1].weight.data, theirs[1].bias.data = ours.scale.data.flatten(), ours.shift.data.flatten()  # type: ignore[index]


def part(unet: TemporalUNet, module: ResidualBlock | AgentAttention) -> slice:
    """The columns of the common condition product that are a module's."""
    first = sum(unet.condition_sizes[: module.condition_index])
    return slice(first, first + module.condition_size)


def residual(unet: TemporalUNet, theirs: Residual, ours: ResidualBlock) -> None:
    block(theirs.first, ours.first)
    block(theirs.second, ours.second)
    linear(theirs.condition[1], unet.condition, part(unet, ours))
    if ours.skip is not None:
        linear(theirs.skip, ours.skip)


def attention(unet: TemporalUNet, theirs: Attention, ours: AgentAttention) -> None:
    start = {"query": 0, "key": ours.query_size, "value": 2 * ours.query_size}
    offset = part(unet, ours).start
    for name, first in start.items():
        size = theirs.maps[name].out_channels
        assert isinstance(size, int)
        linear(theirs.maps[name], ours.projection, slice(first, first + size))
        linear(theirs.conditions[name][1], unet.condition, slice(offset + first, offset + first + size))
    theirs.gate.data = ours.gate.data.flatten()


def copy_of(unet: TemporalUNet) -> Yardstick:
    plain = Yardstick(unet.config.features, unet.config.width).to(next(unet.parameters()).dtype)
    for name in ("time", "returns"):
        for theirs, ours in zip(getattr(plain, name)[::2], getattr(unet.conditions, name).layers, strict=True):
            linear(theirs, ours)
    for name in ("down", "up"):
        for their_pair, our_pair in zip(getattr(plain, name), getattr(unet, name), strict=True):
            for theirs, ours in zip(their_pair, our_pair, strict=True):
                residual(unet, theirs, ours)
    for theirs, ours in zip(plain.middle, unet.middle, strict=True):
        residual(unet, theirs, ours)  # type: ignore[arg-type]
    for name in ("shrink", "grow"):
        for theirs, ours in zip(getattr(plain, name), getattr(unet, name), strict=True):
            convolution(theirs, ours)
    for theirs, ours in zip(plain.attention, unet.attention, strict=True):
        attention(unet, theirs, ours)  # type: ignore[arg-type]
    block(plain.last[0], unet.last)
    linear(plain.last[1], unet.head)
    return plain


@pytest.fixture(params=[8, 24])
def given(request: pytest.FixtureRequest) -> tuple[TemporalUNet, tuple[Tensor, ...]]:
    horizon = request.param
    unet = TemporalUNet(UNetConfig(horizon, 5, width=16), [make_generator("test", 0)])
    with torch.no_grad():
        for module in unet.attention:
            module.gate.fill_(0.7)
        for name, p in unet.named_parameters():
            if name.endswith(("scale", "shift")):
                p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, 6, horizon, 3, 5, generator=g)
    k = torch.randint(0, 200, (1, 6), generator=g)
    return unet, (x, k, torch.rand(1, 6, 3, generator=g), torch.rand(1, 6, 3, generator=g) > 0.25)


def test_outputs_and_gradients_agree(given: tuple[TemporalUNet, tuple[Tensor, ...]]) -> None:
    unet, (x, k, returns, keep) = given
    unet, x, returns = unet.double(), x.double(), returns.double()
    plain, x = copy_of(unet), x.requires_grad_()
    mine, theirs = unet(x, k, returns, keep), plain(x[0], k[0], returns[0], keep[0])
    torch.testing.assert_close(mine[0], theirs, rtol=1e-6, atol=1e-6)  # frequencies are float32 in one, not the other
    (of_mine,) = torch.autograd.grad(mine.square().sum(), x, retain_graph=True)
    (of_theirs,) = torch.autograd.grad(theirs.square().sum(), x)
    torch.testing.assert_close(of_mine, of_theirs, rtol=1e-5, atol=1e-5)
    mine.square().sum().backward()
    plain(x[0], k[0], returns[0], keep[0]).square().sum().backward()
    ours, kernel = unet.middle[1].second.convolution, plain.middle[1].second[0]  # type: ignore[union-attr, index]
    taps = kernel.weight.grad.permute(2, 1, 0)[list(ours.geometry.used)]  # type: ignore[union-attr]
    torch.testing.assert_close(ours.weight.grad[0], taps, rtol=1e-5, atol=1e-5)


def test_folded_equals_the_plain_network_within_1e_5(
    given: tuple[TemporalUNet, tuple[Tensor, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    unet, (x, k, returns, keep) = given
    with torch.no_grad():
        plain = copy_of(unet)(x[0], k[0], returns[0], keep[0])
    torch.testing.assert_close(folded(unet)(x, k, returns, keep, None)[0], plain, rtol=0, atol=1e-5)
    monkeypatch.setattr(short_convolution, "_MANY_CHANNELS", 1)  # so that long rows take torch's convolution here too
    torch.testing.assert_close(folded(unet)(x, k, returns, keep, None)[0], plain, rtol=0, atol=1e-5)


def test_parameters_are_those_of_the_published_network() -> None:
    """64.3 M without what the published network builds and never uses; idle taps are the difference at H = 8."""
    with torch.device("meta"):
        published = sum(p.numel() for p in Yardstick(18).parameters())
    assert published == pytest.approx(64.3e6, rel=1e-3)
