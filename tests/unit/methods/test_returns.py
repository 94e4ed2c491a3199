"""λ-returns: the numbers of the card, and its limits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from methods.objectives.returns import lambda_return


def returned(
    reward: list[float], following: list[float], ends: bool, steps: int, discount: float, trace: float
) -> list[float]:
    """Of one sequence, padded to `steps` with rewards and values that must not count."""
    length = len(reward)
    padding = [100.0] * (steps - length)
    terminal = torch.zeros(1, steps, 1, dtype=torch.bool)
    terminal[0, length - 1] = ends
    valid = (torch.arange(steps) < length)[None, :, None]
    found = lambda_return(column(reward + padding), terminal, column(following + padding), valid, discount, trace)
    values: list[float] = found[0, :length, 0].tolist()
    return values


def column(values: list[float]) -> Tensor:
    return torch.tensor(values)[None, :, None]


@pytest.mark.parametrize("steps", [3, 6])
def test_an_episode_that_ends(steps: int) -> None:
    """2 + 0.99 (0.4 · 30 + 0.6 · 3) = 15.662, and 1 + 0.99 (0.4 · 20 + 0.6 · 15.662) = 18.223228."""
    found = returned([1.0, 2.0, 3.0], [20.0, 30.0, 50.0], True, steps, 0.99, 0.6)
    assert found == pytest.approx([18.223228, 15.662, 3.0], abs=1e-5)


@pytest.mark.parametrize("steps", [2, 4])
def test_an_episode_that_was_cut_bootstraps_from_its_own_final_row(steps: int) -> None:
    """1 + 0.99 · 5 = 5.95, and 1 + 0.99 (0.4 · 5 + 0.6 · 5.95) = 6.5143; PyMARL would read the padding."""
    found = returned([1.0, 1.0], [5.0, 5.0], False, steps, 0.99, 0.6)
    assert found == pytest.approx([6.5143, 5.95], abs=1e-5)


def test_the_two_ends_of_lambda() -> None:
    following = [20.0, 30.0, 50.0]
    assert returned([1.0, 2.0, 3.0], following, True, 5, 0.9, 0.0) == pytest.approx([19.0, 29.0, 3.0])
    monte_carlo = [1 + 0.9 * (2 + 0.9 * 3), 2 + 0.9 * 3, 3.0]
    assert returned([1.0, 2.0, 3.0], following, True, 5, 0.9, 1.0) == pytest.approx(monte_carlo)


def test_values_of_agents_share_the_ends_of_their_team() -> None:
    """(R, T, B, N) rewards beside (R, T, B, 1) ends: each agent as by itself. NaN behind an end stays there."""
    draw = torch.Generator().manual_seed(0)
    reward, following = torch.randn(2, 4, 3, 2, generator=draw), torch.randn(2, 4, 3, 2, generator=draw)
    valid = (torch.arange(4)[:, None] < torch.tensor([4, 2, 3]))[None].expand(2, 4, 3)
    terminal = torch.zeros(2, 4, 3, dtype=torch.bool)
    terminal[:, 1, 1] = True
    following[:, 1, 1] = torch.nan
    both = lambda_return(reward, terminal[..., None], following, valid[..., None], 0.9, 0.7)
    for i in range(2):
        own = lambda_return(reward[..., i], terminal, following[..., i], valid, 0.9, 0.7)
        torch.testing.assert_close(both[..., i][valid], own[valid])
    assert both[valid].isfinite().all()
