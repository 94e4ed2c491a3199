"""Labels as agents see them, and the learned weights of DoF."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from methods.diffusion.denoiser import Composition, Denoiser, label_inputs
from methods.diffusion.settings import SegmentSettings

Make = Callable[..., SegmentSettings]


def test_every_agent_sees_its_own_label_first() -> None:
    z, mask = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([True, False, True])
    assert label_inputs(z, mask).tolist() == [
        [1, 0, 3, 1, 0, 1],
        [0, 3, 1, 0, 1, 1],
        [3, 1, 0, 1, 1, 0],
    ]


def test_a_masked_label_differs_from_a_label_of_zero() -> None:
    zero, given = torch.zeros(2), torch.tensor([True, True])
    assert not torch.equal(label_inputs(zero, given), label_inputs(zero, ~given))


def test_a_composition_begins_with_the_unconditional_branch() -> None:
    single = Composition(labels=np.eye(2, dtype=np.float32), mask=np.eye(2, dtype=np.bool_), weights=(0.6, 0.6))
    branches = single.inputs("cpu")
    assert branches.shape == (3, 2, 4)
    assert not branches[0].any()
    assert branches[1].tolist() == [[1, 0, 1, 0], [0, 1, 0, 1]]
    assert branches[2].tolist() == [[0, 1, 0, 1], [1, 0, 1, 0]]


def test_agents_are_weighted_by_their_share(tiny: Make) -> None:
    def denoiser(**given: bool) -> Denoiser:
        return Denoiser.create(tiny(**given), 2, 3, [np.random.default_rng(1)])

    inputs = (torch.randn(1, 1, 8, 2, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([[3]]))
    condition = (torch.ones(1, 1, 2), torch.ones(1, 1, 2, dtype=torch.bool))
    plain, weighted = denoiser(), denoiser(wconcat=True)
    assert weighted.agent_weights is not None
    with torch.no_grad():
        weighted.agent_weights.copy_(torch.tensor([[3.0, 1.0]]))
        expected = plain(*inputs, *condition) * torch.tensor([0.75, 0.25])[:, None]
        torch.testing.assert_close(weighted(*inputs, *condition), expected)
        torch.testing.assert_close(weighted.inference()(*inputs, *condition), expected)
    weighted(*inputs, *condition).sum().backward()
    assert weighted.agent_weights.grad is not None


@pytest.mark.parametrize("first_skip", [False, True])
def test_the_first_skip_is_a_way_around_the_lower_levels(tiny: Make, first_skip: bool) -> None:
    denoiser = Denoiser.create(tiny(first_skip=first_skip), 2, 3, [np.random.default_rng(1)]).requires_grad_(False)
    for parameter in denoiser.unet.grow[-1].parameters():
        parameter.zero_()
    draw = torch.Generator().manual_seed(0)
    one, other = (torch.randn(1, 1, 8, 2, 3, generator=draw) for _ in range(2))
    given = (torch.tensor([[3]]), torch.ones(1, 1, 2), torch.ones(1, 1, 2, dtype=torch.bool))
    assert torch.equal(denoiser(one, *given), denoiser(other, *given)) != first_skip
    torch.testing.assert_close(denoiser.inference()(one, *given), denoiser(one, *given), atol=1e-5, rtol=0)
