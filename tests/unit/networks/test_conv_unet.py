"""The U-Net over time: against torch's own layers, R together against each alone, and what sampling prepares."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from methods.networks import conv_unet
from methods.networks.conv_unet import ConvUNet, ConvUNetConfig, prepared
from methods.networks.long_convolution import GroupNorm, LongConvolution, StandardisedConvolution, StepBlock
from methods.networks.tap_geometry import Geometry
from methods.networks.time_attention import HEAD_SIZE, HEADS, LinearTimeAttention, TimeAttention
from tasks.common.errors import UsageError
from tasks.common.seeding import make_generator

CONFIG = ConvUNetConfig(rows=16, channels=7, width=8)


def generators(count: int, first: int = 0) -> list[np.random.Generator]:
    return [make_generator("conv-unet", seed) for seed in range(first, first + count)]


def make(replicas: int = 1, first: int = 0, **other: int) -> ConvUNet:
    return ConvUNet(replace(CONFIG, **other), generators(replicas, first))


def inputs(replicas: int, batch: int = 4, rows: int = 16, channels: int = 7) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    return (
        torch.randn(replicas, batch, rows, channels, generator=g),
        torch.randint(0, 1000, (replicas, batch), generator=g),
    )


@pytest.mark.parametrize("rows", [8, 32, 128])
def test_shape_in_is_shape_out(rows: int) -> None:
    x, k = inputs(2, 2, rows, 5)
    assert make(2, rows=rows, channels=5)(x, k).shape == x.shape


@pytest.mark.parametrize(("rows", "width", "told"), [(12, 8, "divisible by 8, not 12"), (16, 12, "by 8, not 12")])
def test_sizes_that_do_not_fit_are_refused(rows: int, width: int, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        ConvUNetConfig(rows=rows, channels=3, width=width)


def test_replicas_together_equal_each_alone() -> None:
    together, (x, k) = make(3), inputs(3)
    outputs = together(x, k)
    outputs.square().mean(dim=(1, 2, 3)).sum().backward()
    for r in range(3):
        alone = make(first=r)
        output = alone(x[r : r + 1], k[r : r + 1])
        torch.testing.assert_close(outputs[r : r + 1], output, rtol=1e-4, atol=2e-5)
        output.square().mean().backward()
        for (name, mine), other in zip(alone.named_parameters(), together.parameters(), strict=True):
            assert mine.grad is not None, name
            assert other.grad is not None, name
            torch.testing.assert_close(other.grad[r : r + 1], mine.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_the_network_for_sampling_is_the_same_network(monkeypatch: pytest.MonkeyPatch) -> None:
    unet, (x, k) = make(2), inputs(2, batch=5)
    expected = unet(x, k)
    monkeypatch.setattr(conv_unet, "_SLICE_VALUES", 2 * 2 * 16 * 7 * 7)  # two signals a slice
    predict = prepared(unet)
    with torch.no_grad():
        next(unet.parameters()).zero_()  # later changes do not reach it
    torch.testing.assert_close(predict(x, k), expected, rtol=1e-5, atol=1e-5)


def test_every_row_and_the_step_are_seen_everywhere() -> None:
    unet, (x, k) = make().double(), inputs(1, 1)
    x = x.double()
    moved = x.clone()
    moved[:, :, 0, 0] += 1
    difference = (unet(moved, k) - unet(x, k)).abs().amax(dim=(0, 1, 3))
    assert bool((difference > 1e-12).all())
    assert bool(((unet(x, k + 7) - unet(x, k)).abs() > 0).all())


@pytest.mark.parametrize(
    ("geometry", "stride", "padding"),
    [
        (Geometry.convolution(10, 3), 1, 1),
        (Geometry.convolution(8, 7), 1, 3),
        (Geometry(8, 4, 4, 2), 2, 1),
        (Geometry(2, 1, 4, 2), 2, 1),
        (Geometry.convolution(1, 3), 1, 1),
    ],
)
def test_a_convolution_is_torchs(geometry: Geometry, stride: int, padding: int) -> None:
    ours = LongConvolution(geometry, (3, 5), generators(2)).double()
    x = torch.randn(2, 4, geometry.rows_in, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for r in range(2):
        weight = torch.zeros(5, 3, geometry.kernel, dtype=torch.float64)
        weight[..., list(geometry.used)] = ours.weight[r].permute(2, 1, 0)
        theirs = functional.conv1d(x[r].mT, weight, ours.bias[r, 0], stride, padding).mT
        torch.testing.assert_close(ours(x)[r], theirs)


def test_weights_are_standardised_over_the_inputs_of_an_output() -> None:
    layer = StandardisedConvolution(Geometry.convolution(8, 3), (4, 5), generators(2))
    with torch.no_grad():
        layer.weight.mul_(3).add_(0.7)
    weight = layer.effective().flatten(1, 2)  # (R, 12, 5)
    torch.testing.assert_close(weight.mean(dim=1), torch.zeros(2, 5), rtol=0, atol=1e-5)
    torch.testing.assert_close(weight.var(dim=1, correction=0), torch.ones(2, 5), rtol=0, atol=1e-3)
    x = torch.randn(2, 3, 8, 4, generator=torch.Generator().manual_seed(2))
    before = layer(x)
    with torch.no_grad():
        layer.weight.mul_(2).add_(1)  # scale and mean of a filter mean nothing
    torch.testing.assert_close(layer(x), before, rtol=1e-3, atol=1e-4)


def test_group_norm_is_torchs_in_both_forms() -> None:
    norm = GroupNorm(2, 16)
    with torch.no_grad():
        norm.scale.copy_(torch.linspace(0.5, 2, 32).view(2, 16))
        norm.shift.copy_(torch.linspace(-1, 1, 32).view(2, 16))
    y = torch.randn(2, 3, 6, 16, generator=torch.Generator().manual_seed(3))
    expected = [functional.group_norm(y[r].mT, 8, norm.scale[r], norm.shift[r]).mT for r in range(2)]
    torch.testing.assert_close(norm(y), torch.stack(expected), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(norm.plain(y), torch.stack(expected), rtol=1e-5, atol=1e-5)


def test_a_block_in_torchs_own_layers() -> None:
    block = StepBlock(6, (8, 16), generators(1)).double()
    x = torch.randn(1, 2, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    condition = torch.randn(1, 2, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(5))

    def convolved(layer: StandardisedConvolution, signal: Tensor) -> Tensor:
        w = layer.weight[0].permute(2, 1, 0)  # (C_out, C_in, 3)
        mean, variance = w.mean(dim=(1, 2), keepdim=True), w.var(dim=(1, 2), correction=0, keepdim=True)
        return functional.conv1d(signal, (w - mean) / (variance + 1e-5).sqrt(), layer.bias[0, 0], padding=1)

    scale, shift = condition[0, :, :16, None], condition[0, :, 16:, None]
    y = functional.group_norm(convolved(block.first, x[0].mT), 8) * (1 + scale) + shift
    y = functional.group_norm(convolved(block.second, functional.silu(y)), 8)
    assert isinstance(block.skip, nn.Module)
    expected = functional.silu(y).mT + block.skip(x[0].reshape(1, 12, 8)).view(2, 6, 16)
    torch.testing.assert_close(block(x, condition)[0], expected)


@pytest.mark.parametrize("linear", [False, True])
def test_attention_row_by_row(linear: bool) -> None:
    module = (LinearTimeAttention if linear else TimeAttention)(8, generators(1)).double()
    x = torch.randn(1, 1, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    normal = functional.layer_norm(x[0, 0], (8,))
    weight, bias = module.queries_keys_values.weight[0], module.queries_keys_values.bias[0, 0]
    q, k, v = (normal @ weight + bias).view(5, 3, HEADS, HEAD_SIZE).unbind(1)  # (5, heads, d) each
    mixed = torch.zeros(5, HEADS, HEAD_SIZE, dtype=torch.float64)
    for h in range(HEADS):
        for i in range(5):
            if linear:
                context = k[:, h].softmax(dim=0).T @ v[:, h]
                mixed[i, h] = (q[i, h].softmax(dim=0) / HEAD_SIZE**0.5) @ context
            else:
                weights = torch.stack([q[i, h] @ k[j, h] / HEAD_SIZE**0.5 for j in range(5)]).softmax(dim=0)
                mixed[i, h] = weights @ v[:, h]
    added = mixed.flatten(1) @ module.out.weight[0] + module.out.bias[0, 0]
    if linear:
        added = functional.layer_norm(added, (8,))
    torch.testing.assert_close(module(x)[0, 0], x[0, 0] + added)
