"""The temporal U-Net on a GPU as on the CPU. `pytest -m gpu`; AUGMARL_TEST_DEVICE=cpu tries the tests themselves."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from methods.networks.temporal_unet import TemporalUNet, UNetConfig, folded
from tasks.common.seeding import make_generator

DEVICE = os.environ.get("AUGMARL_TEST_DEVICE", "cuda")

pytestmark = pytest.mark.gpu


def unet_and_inputs(horizon: int) -> tuple[TemporalUNet, tuple[torch.Tensor, ...]]:
    """Two replicas with open attention, in float64, where both devices must agree closely."""
    unet = TemporalUNet(UNetConfig(horizon, 5, width=16), [make_generator("test", seed) for seed in range(2)]).double()
    with torch.no_grad():
        for module in unet.attention:
            module.gate.fill_(0.7)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, horizon, 3, 5, generator=g, dtype=torch.float64)
    k = torch.randint(0, 200, (2, 4), generator=g)
    return unet, (x, k, torch.rand(2, 4, 3, generator=g, dtype=torch.float64), torch.rand(2, 4, 3, generator=g) > 0.25)


@pytest.mark.parametrize("horizon", [4, 8, 24])
def test_outputs_and_gradients_agree(horizon: int) -> None:
    unet, inputs = unet_and_inputs(horizon)
    moved = TemporalUNet.from_arrays(unet.config, unet.arrays()).double().to(DEVICE)
    there = tuple(value.to(DEVICE) for value in inputs)
    here, elsewhere = unet(*inputs), moved(*there)
    np.testing.assert_allclose(elsewhere.detach().cpu().numpy(), here.detach().numpy(), rtol=1e-5, atol=1e-5)
    here.square().mean().backward()
    elsewhere.square().mean().backward()
    for (name, mine), other in zip(unet.named_parameters(), moved.parameters(), strict=True):
        assert mine.grad is not None, name
        assert other.grad is not None, name
        np.testing.assert_allclose(other.grad.cpu().numpy(), mine.grad.numpy(), rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("horizon", [8, 24])
def test_the_inference_form_agrees(horizon: int) -> None:
    unet, (x, k, returns, keep) = unet_and_inputs(horizon)
    unet = unet.float()
    expected = folded(unet)(x.float(), k, returns.float(), keep, None)
    there = (x.float().to(DEVICE), k.to(DEVICE), returns.float().to(DEVICE), keep.to(DEVICE))
    found = folded(unet.to(DEVICE))(*there, None).cpu()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_bfloat16_stays_near() -> None:
    unet, (x, k, returns, keep) = unet_and_inputs(8)
    given = tuple(v.to(DEVICE) for v in (x.float(), k, returns.float(), keep))
    exact, rough = (folded(unet.float().to(DEVICE), dtype)(*given, None) for dtype in (torch.float32, torch.bfloat16))
    assert float((rough - exact).square().mean().sqrt()) < 0.05 * float(exact.square().mean().sqrt())
