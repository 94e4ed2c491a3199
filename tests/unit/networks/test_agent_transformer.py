"""Sparsemax, and INS' network: equivariance, independence without attention, dropout, R replicas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from methods.networks.agent_transformer import AgentTransformer, TransformerConfig
from methods.networks.sparsemax import sparsemax
from tasks.common.errors import UsageError

logits = arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 8)), elements=st.floats(-20, 20))


def rng(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def normal(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(rng(seed).normal(size=shape).astype(np.float32))


def projection(z: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The nearest point of the simplex by bisection on the threshold: slow, and another way."""
    low, high = z.min() - 1, z.max()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(z - middle, 0).sum() > 1 else (low, middle)
    return np.maximum(z - high, 0)


def test_sparsemax_by_hand() -> None:
    z = torch.tensor([[0.5, 0.3, -1.0], [2.0, 0.9, 0.0], [0.0, 0.0, 0.0]])
    expected = torch.tensor([[0.6, 0.4, 0.0], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    torch.testing.assert_close(sparsemax(z), expected)


@given(logits)
def test_sparsemax_is_the_projection_onto_the_simplex(z: np.ndarray[Any, Any]) -> None:
    found = sparsemax(torch.from_numpy(z)).numpy()
    for row, p in zip(z, found, strict=True):
        np.testing.assert_allclose(p, projection(row), atol=1e-9)
    np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-9)


@given(logits, st.floats(-1e3, 1e3))
def test_sparsemax_does_not_see_a_shift(z: np.ndarray[Any, Any], shift: float) -> None:
    moved = sparsemax(torch.from_numpy(z + shift))
    np.testing.assert_allclose(moved, sparsemax(torch.from_numpy(z)), atol=1e-9)


def test_sparsemax_of_large_logits_is_the_one_hot_of_the_largest() -> None:
    z = normal(0, 50, 6) * 1e4
    one_hot = torch.nn.functional.one_hot(z.argmax(dim=-1), 6).float()
    assert torch.equal(sparsemax(z), one_hot)
    torch.testing.assert_close(z.softmax(dim=-1), one_hot)


def test_the_gradient_of_sparsemax_by_hand_and_by_differences() -> None:
    z = torch.tensor([[0.5, 0.3, -1.0]], requires_grad=True)
    (sparsemax(z) * torch.tensor([1.0, 3.0, 7.0])).sum().backward()
    assert z.grad is not None
    torch.testing.assert_close(z.grad, torch.tensor([[-1.0, 1.0, 0.0]]))  # on the support, less its mean of 2
    inputs = torch.from_numpy(rng(1).normal(size=(5, 4))).requires_grad_()
    assert torch.autograd.gradcheck(sparsemax, inputs)


def test_a_row_that_is_not_a_number_disturbs_no_other() -> None:
    z = torch.tensor([[0.5, 0.3], [float("nan"), 1.0]], requires_grad=True)
    p = sparsemax(z)
    torch.testing.assert_close(p[0], torch.tensor([0.6, 0.4]))
    assert p[1].isnan().all()
    (p[0] * torch.tensor([1.0, 2.0])).sum().backward()
    assert z.grad is not None
    torch.testing.assert_close(z.grad[0], torch.tensor([-0.5, 0.5]))


def network(*seeds: int, **config: Any) -> AgentTransformer:
    return AgentTransformer(TransformerConfig(features=5, **config), [rng(seed) for seed in seeds])


def test_the_published_size() -> None:
    """d_e 64, two blocks of 4 x 64² weights in attention and 2 x 64 x 256 behind it."""
    sizes = {name: p.numel() for name, p in network(0).named_parameters()}
    blocks = 2 * (3 * 64 * 64 + 64 * 64 + 64 + 64 * 256 + 256 + 256 * 64 + 64 + 4 * 64)
    assert sum(sizes.values()) == blocks + (5 + 17) * 64 + 64 + 64 * 5 + 5


@pytest.mark.parametrize("attention", ["sparse", "dense", "none"])
@pytest.mark.parametrize("scale", ["post", "pre"])
def test_another_order_of_the_agents_is_another_order_of_the_output(attention: str, scale: str) -> None:
    made, order = network(0, 1, attention=attention, attn_scale=scale), [2, 0, 3, 1]
    x, level = normal(2, 2, 6, 4, 5), normal(3, 2, 6, 1)
    torch.testing.assert_close(made(x[:, :, order], level), made(x, level)[:, :, order], rtol=1e-4, atol=1e-5)


def test_indices_of_agents_break_the_symmetry() -> None:
    made = network(0, agent_ids=4)
    x, level = normal(2, 1, 6, 4, 5), normal(3, 1, 6, 1)
    assert not torch.allclose(made(x[:, :, [1, 0, 2, 3]], level), made(x, level)[:, :, [1, 0, 2, 3]], atol=1e-3)


@pytest.mark.parametrize(("attention", "apart"), [("none", True), ("sparse", False), ("dense", False)])
def test_without_attention_agents_do_not_feel_each_other(attention: str, apart: bool) -> None:
    made = network(0, attention=attention, attn_scale="pre")
    x, level = normal(2, 1, 64, 3, 5), normal(3, 1, 64, 1)
    moved = x.clone()
    moved[:, :, 1] += 1
    before, after = made(x, level), made(moved, level)
    others = [0, 2]
    assert torch.equal(before[:, :, others], after[:, :, others]) == apart
    assert not torch.equal(before[:, :, 1], after[:, :, 1])


def test_attention_is_that_of_a_plain_loop() -> None:
    made = network(0, attn_scale="post")
    attention = made.between[0]
    x = normal(5, 1, 2, 3, 64)
    expected = torch.zeros(1, 2, 3, 64)
    weights = attention.projections[0]
    for b in range(2):
        heads = []
        for h in range(4):
            q, k, v = (x[0, b] @ weights[:, 64 * part + 16 * h : 64 * part + 16 * (h + 1)] for part in range(3))
            p = torch.stack([torch.from_numpy(projection(row.detach().numpy().astype(np.float64))) for row in q @ k.T])
            heads.append(p.float() / 8 @ v)
        expected[0, b] = torch.cat(heads, dim=-1) @ attention.out.weight[0] + attention.out.bias[0]
    torch.testing.assert_close(attention(x), expected, rtol=1e-4, atol=1e-5)


def test_weights_are_told_on_request() -> None:
    seen: list[Tensor] = []
    network(0, 1)(normal(2, 2, 6, 3, 5), normal(3, 2, 6, 3), seen=seen)
    assert [tuple(p.shape) for p in seen] == [(2, 6, 4, 3, 3)] * 2
    torch.testing.assert_close(seen[0].sum(dim=-1), torch.ones(2, 6, 4, 3))


def test_each_replica_is_computed_from_its_own_weights() -> None:
    both, second = network(0, 1), network(1)
    x, level = normal(2, 2, 6, 3, 5), normal(3, 2, 6, 3)
    torch.testing.assert_close(both(x, level)[1:], second(x[1:], level[1:]), rtol=1e-4, atol=1e-5)


def test_dropout_removes_what_it_is_told_and_scales_the_rest() -> None:
    made = network(0, dropout=0.5)
    x, level = normal(2, 1, 6, 3, 5), normal(3, 1, 6, 3)
    nothing = made(x, level, torch.zeros(1, 6, 3, 4, 64, dtype=torch.bool))
    with torch.no_grad():
        for part in (*made.between, *made.feed_forward):
            for parameter in part.parameters():
                parameter.zero_()
    torch.testing.assert_close(nothing, made(x, level))  # only the residuals were left
    everything = torch.ones(1, 2, 3, 4, 64, dtype=torch.bool)
    torch.testing.assert_close(made._dropped(torch.ones(1, 2, 3, 64), everything, 0), torch.full((1, 2, 3, 64), 2.0))


@pytest.mark.parametrize("wrong", [{"attention": "linear"}, {"attn_scale": "both"}, {"heads": 3}, {"dropout": 1.0}])
def test_what_makes_no_network_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="ins"):
        TransformerConfig(features=5, **wrong)
