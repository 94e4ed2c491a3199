"""Guidance on numbers worked by hand."""

from __future__ import annotations

import pytest
import torch

from methods.diffusion.guidance import composed, guided, text_guidance
from tasks.common.seeding import make_generator

EPS_U = torch.tensor([1.0, -2.0])
EPS_C = torch.tensor([2.0, 0.5])


def test_guidance_goes_from_one_to_the_other_and_beyond() -> None:
    # 1 + 1.2 · (2 − 1) = 2.2 and −2 + 1.2 · 2.5 = 1
    torch.testing.assert_close(guided(EPS_U, EPS_C, 1.2), torch.tensor([2.2, 1.0]))


def test_no_guidance_and_plain_conditioning_are_exact() -> None:
    odd_u, odd_c = torch.tensor([1e8, 0.1]), torch.tensor([1.0, 0.7])
    assert torch.equal(guided(odd_u, odd_c, 0.0), odd_u)
    assert torch.equal(guided(odd_u, odd_c, 1.0), odd_c)


def test_the_convention_of_the_texts() -> None:
    # (1 + w) ε_c − w ε_u with w = 1.2: 4.4 − 1.2 = 3.2 and 1.1 + 2.4 = 3.5
    assert text_guidance(1.2) == pytest.approx(2.2)
    torch.testing.assert_close(guided(EPS_U, EPS_C, text_guidance(1.2)), torch.tensor([3.2, 3.5]))


def test_composition_adds_what_every_condition_changes() -> None:
    eps = torch.stack([EPS_C, torch.tensor([0.0, -3.0])])
    # 1 + 0.5 · 1 + 2 · (−1) = −0.5 and −2 + 0.5 · 2.5 + 2 · (−1) = −2.75
    torch.testing.assert_close(composed(EPS_U, eps, [0.5, 2.0]), torch.tensor([-0.5, -2.75]))


def test_composition_of_one_condition_is_guidance() -> None:
    eps_u, eps_c = torch.from_numpy(make_generator("guidance").normal(size=(2, 1000)).astype("float32"))
    assert torch.equal(composed(eps_u, eps_c[None], [1.2]), guided(eps_u, eps_c, 1.2))


def test_composition_of_one_condition_several_times_is_guidance() -> None:
    torch.testing.assert_close(composed(EPS_U, [EPS_C] * 3, [0.4] * 3), guided(EPS_U, EPS_C, 1.2))


def test_composition_of_nothing_is_unconditional() -> None:
    assert torch.equal(composed(EPS_U, [], []), EPS_U)


def test_every_condition_needs_a_weight() -> None:
    with pytest.raises(ValueError, match="shorter"):
        composed(EPS_U, [EPS_C, EPS_C], [1.0])
