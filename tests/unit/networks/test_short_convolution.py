import numpy as np
import pytest
import torch
from torch import Tensor, nn

from methods.networks.convolution_block import ConvolutionBlock, group_norm, group_norm_gradients, mish_factor
from methods.networks.short_convolution import Form, StackedConvolution, convolve, gradients, prepare
from methods.networks.tap_geometry import Geometry
from tasks.common.seeding import make_generator


def generators(count: int) -> list[np.random.Generator]:
    return [make_generator("test", seed) for seed in range(count)]


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reference(stacked: StackedConvolution, replica: int) -> nn.Module:
    """torch's own convolution with the same weights; idle taps hold a number that must not matter."""
    geometry, weight = stacked.geometry, stacked.weight[replica]  # (taps in use, C_in, C_out)
    full = torch.full((geometry.kernel, *weight.shape[1:]), 7.0, dtype=weight.dtype)
    full[list(geometry.used)] = weight
    n_in, n_out = weight.shape[1:]
    module: nn.Module
    if geometry.transposed:
        module = nn.ConvTranspose1d(n_in, n_out, 4, stride=2, padding=1, dtype=weight.dtype)
        module.weight.data = full.permute(1, 2, 0)
    else:
        size = geometry.kernel
        module = nn.Conv1d(n_in, n_out, size, stride=geometry.stride, padding=(size - 1) // 2, dtype=weight.dtype)
        module.weight.data = full.permute(2, 1, 0)
    module.bias.data = stacked.bias[replica, 0]  # type: ignore[union-attr]
    return module


GEOMETRIES = [
    *(Geometry.convolution(rows, 5) for rows in (1, 2, 3, 4, 6, 8)),
    *(Geometry.convolution(rows, 3, 2) for rows in (2, 4, 8)),
    *(Geometry.doubling(rows) for rows in (1, 2, 4)),
]


def forms(geometry: Geometry) -> list[Form]:
    named: list[Form] = ["rows"]
    named += [] if geometry.transposed else ["unfolded"]
    return named + (["pairs"] if geometry.rows_in == 2 and geometry.kernel == 5 else [])


CASES = [(geometry, form) for geometry in GEOMETRIES for form in forms(geometry)]


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(("geometry", "form"), CASES, ids=str)
def test_every_form_is_torch_s_convolution_with_its_gradients(geometry: Geometry, form: Form, together: bool) -> None:
    stacked = StackedConvolution(geometry, (3, 4), generators(2)).double()
    x = seeded(2, 5, geometry.rows_in, 3)
    given = seeded(2, 5, geometry.rows_out, 4, seed=1)
    prepared, bias = prepare(stacked.weight.detach(), form), stacked.bias.detach()
    of_x, of_weight = torch.full_like(x, 7.0), torch.full_like(prepared, 7.0)  # to be overwritten
    if together:
        y = convolve(x, prepared, bias, geometry, form)
        gradients(x, prepared, given, geometry, form, of_x, of_weight)
    else:
        y = torch.stack([convolve(x[r], prepared[r], bias[r], geometry, form) for r in range(2)])
        for r in range(2):
            gradients(x[r], prepared[r], given[r], geometry, form, of_x[r], of_weight[r])
    for r in range(2):
        module, signal = reference(stacked, r), x[r].transpose(1, 2).clone().requires_grad_()
        out = module(signal)
        torch.testing.assert_close(y[r], out.transpose(1, 2))
        out.backward(given[r].transpose(1, 2))
        assert signal.grad is not None
        torch.testing.assert_close(of_x[r], signal.grad.transpose(1, 2))
        taps = module.weight.grad.permute(2, 0, 1) if geometry.transposed else module.weight.grad.permute(2, 1, 0)  # type: ignore[operator, union-attr]
        torch.testing.assert_close(of_weight[r], taps[list(geometry.used)])
        idle = [tap for tap in range(geometry.kernel) if tap not in geometry.used]
        assert not taps[idle].any()  # they only met padding


@pytest.mark.parametrize("geometry", [Geometry.convolution(6, 5), Geometry.convolution(8, 3, 2)])
def test_library_form(geometry: Geometry) -> None:
    stacked = StackedConvolution(geometry, (3, 8), generators(2)).double()
    x, weight, bias = seeded(2, 5, geometry.rows_in, 3), stacked.weight.detach(), stacked.bias.detach()
    expected, kernels = convolve(x, weight, bias, geometry, "rows"), prepare(weight, "library")
    for r in range(2):
        torch.testing.assert_close(convolve(x[r], kernels[r], bias[r], geometry, "library"), expected[r])


def test_geometry_by_hand() -> None:
    """Kernel 5 on two rows: y₀ sees rows 0 and 1 in taps 2 and 3, y₁ in taps 1 and 2; taps 0 and 4 are idle."""
    two = Geometry.convolution(2, 5)
    assert two.used == (1, 2, 3)
    assert two.runs == ((0, 2, 1), (0, 2, 0))
    # Doubling two rows: row 0 of four sees row 0 in tap 1, row 1 sees rows 0 and 1 in taps 2 and 0.
    grown = Geometry.doubling(2)
    assert grown.used == (2, 0, 3, 1)
    assert grown.runs == ((0, 1, 3), (0, 2, 0), (0, 2, 2), (1, 2, 0))
    assert Geometry.convolution(4, 3, 2).runs == ((0, 2, 1), (1, 4, 0))


def test_initial_weights_follow_torch() -> None:
    """U(±1/√(fan-in · kernel)): 1/√(8 · 5) of 8 channels; a transposed one counts its output channels, 1/√(2 · 4)."""
    plain = StackedConvolution(Geometry.convolution(8, 5), (8, 50), generators(4))
    assert 0.157 < float(plain.weight.detach().abs().max()) <= 0.1582
    grown = StackedConvolution(Geometry.doubling(4), (50, 2), generators(4))
    assert 0.352 < float(grown.weight.detach().abs().max()) <= 0.3536
    theirs = nn.ConvTranspose1d(50, 2, 4)
    assert 0.34 < float(theirs.weight.detach().abs().max()) <= 0.3536


@pytest.mark.parametrize("rows", [1, 2, 8])
def test_group_norm_is_torch_s(rows: int) -> None:
    y, given = seeded(2, 5, rows, 16), seeded(2, 5, rows, 16, seed=1)
    scale, shift = seeded(2, 1, 1, 16, seed=2), seeded(2, 1, 1, 16, seed=3)
    z, *moments = group_norm(y, scale, shift)
    together = z, *group_norm_gradients(given, y, *moments, scale)
    for r in range(2):
        z, *moments = group_norm(y[r], scale[r], shift[r])
        alone = z, *group_norm_gradients(given[r], y[r], *moments, scale[r])
        leaves = [t[r].clone().requires_grad_() for t in (y, scale, shift)]
        out = nn.functional.group_norm(leaves[0].transpose(1, 2), 8, leaves[1].flatten(), leaves[2].flatten())
        out.backward(given[r].transpose(1, 2))
        for stacked, single, expected in zip(
            together, alone, (out.detach().transpose(1, 2), *(leaf.grad for leaf in leaves)), strict=True
        ):
            assert expected is not None
            torch.testing.assert_close(single, expected.view(single.shape))
            torch.testing.assert_close(stacked[r], expected.view(single.shape))


def test_mish_and_its_derivative() -> None:
    z = torch.cat([torch.linspace(-20, 20, 401, dtype=torch.float64), torch.tensor([-1e4, 1e4], dtype=torch.float64)])
    leaf = z.clone().requires_grad_()
    expected = nn.functional.mish(leaf)
    expected.sum().backward()
    factor, slope = mish_factor(z, derivative=True)
    torch.testing.assert_close(z * factor, expected.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(slope, leaf.grad, rtol=1e-12, atol=1e-12)
    single, slope = mish_factor(z.float(), derivative=True)
    torch.testing.assert_close(z.float() * single, expected.detach().float(), rtol=1e-6, atol=1e-6)
    assert slope is not None
    assert slope.isfinite().all()


@pytest.mark.parametrize("rows", [2, 4])
def test_block_gradients_by_finite_differences(rows: int) -> None:
    block = ConvolutionBlock(rows, (3, 8), generators(2)).double()
    x, added = seeded(2, 3, rows, 3).requires_grad_(), seeded(2, 3, 1, 8).requires_grad_()
    inputs = (x, added, *block.parameters())
    assert torch.autograd.gradcheck(lambda x, added, *_: block(x, added), inputs)
