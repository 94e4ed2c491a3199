"""SynthER's network: its size, a plain loop, Fourier features, replicas and copies."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from methods.networks.embeddings import FourierFeatures
from methods.networks.residual_mlp import ResidualMLP


def rng(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def normal(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(rng(seed).normal(size=shape).astype(np.float32))


def test_fourier_features_by_hand() -> None:
    features = FourierFeatures(2, [rng(0)])
    features.frequencies.copy_(torch.tensor([[[0.25, 1.0]]]))
    found = features(torch.tensor([[1.0, 0.5]]))
    root = math.sqrt(0.5)
    expected = torch.tensor([[[1.0, 1.0, 0.0, 0.0, 1.0], [0.5, root, 0.0, root, -1.0]]])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_the_frequencies_are_fixed_and_stored() -> None:
    made = ResidualMLP(4, 4, 16, [rng(0)])
    assert "features.frequencies" in made.state_dict()
    assert "features.frequencies" not in dict(made.named_parameters())
    assert made.features.size == 17


def test_the_published_size_is_25_million() -> None:
    """Six layers of 2048² weights, and what stands around them; 39 features of spread's transitions."""
    made = ResidualMLP(39, 39, 2048, [rng(0)])
    wanted = 6 * (2048**2 + 2048) + 128 * 2048 + 2048 + 2048 * 39 + 39 + 39 * 128 + 128 + 17 * 128 + 128**2 + 256
    assert sum(p.numel() for p in made.parameters()) == wanted
    assert 25e6 < wanted < 26e6


def test_the_network_is_that_of_a_plain_loop() -> None:
    made = ResidualMLP(4, 3, 16, [rng(0), rng(1)], copies=2)
    x, c = normal(2, 4, 5, 4), normal(3, 4, 5)
    state = made.state_dict()

    def linear(name: str, g: int, value: Tensor) -> Tensor:
        return value @ state[f"{name}.weight"][g] + state[f"{name}.bias"][g, 0]

    found = made(x, c)
    for g in range(4):
        for m in range(5):
            angles = 2 * math.pi * c[g, m] * state["features.frequencies"][g, 0]
            level = linear("level_in", g, torch.cat([c[g, m][None], angles.sin(), angles.cos()]))
            level = linear("level_out", g, level * level.sigmoid())
            z = linear("widen", g, linear("token", g, x[g, m]) + level)
            for layer in range(6):
                z = z + linear(f"residual.{layer}", g, z.relu())
            torch.testing.assert_close(found[g, m], linear("out", g, z.relu()), rtol=1e-4, atol=1e-5)


def test_each_replica_draws_its_own_weights() -> None:
    both, second = ResidualMLP(4, 3, 16, [rng(0), rng(1)], copies=2), ResidualMLP(4, 3, 16, [rng(1)], copies=2)
    for name, tensor in second.state_dict().items():
        assert torch.equal(both.state_dict()[name][2:], tensor)
