import numpy as np
import pytest
import torch

from methods.networks.stacked import StackedGRU, StackedLinear, StackedMLP, clip_each_replica
from tasks.common.seeding import make_generator


def generators(*seeds: int) -> list[np.random.Generator]:
    return [make_generator("test", seed) for seed in seeds]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_initial_weights_follow_torch_linear() -> None:
    """U(±1/√in) for weights and biases, with the fan-in of one slice: 1/√16 = 0.25."""
    layer = StackedLinear(16, 200, generators(*range(20)))
    reference = torch.nn.Linear(16, 4_000)
    for mine, theirs in ((layer.weight, reference.weight), (layer.bias, reference.bias)):
        assert 0.24 < float(mine.detach().abs().max()) <= 0.25
        assert float(theirs.detach().abs().max()) <= 0.25
        assert float(mine.detach().std()) == pytest.approx(0.25 / 3**0.5, rel=0.03)  # uniform: a / √3


def test_a_slice_depends_on_its_own_generator_alone() -> None:
    together = StackedMLP((4, 8, 2), generators(5, 6, 7), copies=3)
    alone = StackedMLP((4, 8, 2), generators(6), copies=3)
    for mine, other in zip(together.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(mine[3:6], other, rtol=0, atol=0)
    first = next(together.parameters())
    assert not torch.equal(first[3], first[4])  # copies within a replica differ


def test_stacked_mlp_equals_torch_modules_slice_by_slice() -> None:
    net, x = StackedMLP((3, 8, 8, 2), generators(0, 1)), torch.randn(2, 5, 3, generator=seeded(0))
    out = net(x)
    for g in range(2):
        plain = torch.nn.Sequential(
            torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        )
        with torch.no_grad():
            for layer, stacked in zip(plain[::2], net.layers, strict=True):
                layer.weight.copy_(stacked.weight[g].T)
                layer.bias.copy_(stacked.bias[g, 0])
        torch.testing.assert_close(out[g], plain(x[g]))


@pytest.mark.parametrize("n_out", [1, 2, 15, 16])  # narrow layers take another path below 16
def test_gradients_equal_those_of_the_plain_product(n_out: int) -> None:
    layer, x = StackedLinear(6, n_out, generators(0, 1)), torch.randn(2, 5, 6, generator=seeded(0))
    x.requires_grad_()
    found = torch.autograd.grad(layer(x).square().sum(), [x, *layer.parameters()])
    plain = torch.einsum("gbi,gio->gbo", x, layer.weight) + layer.bias
    expected = torch.autograd.grad(plain.square().sum(), [x, *layer.parameters()])
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("n_out", [1, 2, 40])
def test_gradients_lie_in_memory_as_their_parameters_do(n_out: int) -> None:
    """torch's fused Adam reads memory in order: a transposed gradient would be applied to the wrong weights."""
    net = StackedMLP((6, 5, n_out), [make_generator("layout")], copies=3)
    x = torch.randn(3, 7, 6, generator=torch.Generator().manual_seed(0))
    parameters = list(net.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(net(x).square().sum(), parameters), strict=True):
        assert gradient.shape == parameter.shape
        assert gradient.is_contiguous()


def test_stacked_gru_equals_torch_gru() -> None:
    net, x = StackedGRU(3, 4, generators(0, 1)), torch.randn(2, 6, 5, 3, generator=seeded(0))
    start = torch.randn(2, 5, 4, generator=seeded(1))
    for h in (None, start):
        out, last = net(x, h)
        for g in range(2):
            plain = torch.nn.GRU(3, 4)
            with torch.no_grad():
                plain.weight_ih_l0.copy_(net.input_weight[g].T)
                plain.weight_hh_l0.copy_(net.hidden_weight[g].T)
                plain.bias_ih_l0.copy_(net.input_bias[g, 0])
                plain.bias_hh_l0.copy_(net.hidden_bias[g, 0])
            expected, final = plain(x[g], None if h is None else h[g][None])
            torch.testing.assert_close(out[g], expected)
            torch.testing.assert_close(last[g], final[0])


def test_clipping_is_done_replica_by_replica() -> None:
    a, b = torch.zeros(3, 2, requires_grad=True), torch.zeros(3, 1, requires_grad=True)
    a.grad = torch.tensor([[3.0, 0.0], [0.3, 0.0], [float("nan"), 1.0]])
    b.grad = torch.tensor([[4.0], [0.4], [1.0]])
    clip_each_replica([a, b], replicas=3, max_norm=1.0)
    torch.testing.assert_close(a.grad[0], torch.tensor([0.6, 0.0]))  # norm 5 -> 1
    torch.testing.assert_close(b.grad[0], torch.tensor([0.8]))
    assert a.grad[1].tolist() == pytest.approx([0.3, 0.0])  # norm 0.5 stays
    assert b.grad[1].tolist() == pytest.approx([0.4])
    assert a.grad[2].isnan().any()  # and the NaN of replica 2 touches nobody else


def test_clipping_counts_all_copies_of_a_replica() -> None:
    weight = torch.zeros(4, 1, requires_grad=True)  # two replicas of two agents
    weight.grad = torch.tensor([[3.0], [4.0], [0.3], [0.4]])
    clip_each_replica([weight], replicas=2, max_norm=1.0)
    assert weight.grad.flatten().tolist() == pytest.approx([0.6, 0.8, 0.3, 0.4], rel=1e-5)
