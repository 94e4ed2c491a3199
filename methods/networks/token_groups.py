"""Which of G perceptrons side by side computes which token of a transition."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TokenGroups:
    """Tokens (R, B, T, F) as rows of G groups.

    Attributes:
        tokens: T.
        apart: each token has a network of its own, G = R · T; else all share one, G = R.
        ids: a one-hot index of the token stands beside it.
    """

    tokens: int
    apart: bool
    ids: bool = False

    @property
    def copies(self) -> int:
        """Groups a replica."""
        return self.tokens if self.apart else 1

    @property
    def extra(self) -> int:
        """Features that `join` adds."""
        return self.tokens if self.ids else 0

    def join(self, x: Tensor) -> Tensor:
        """(R, B, T, F) -> (G, M, F + extra): M = B, or B · T."""
        if self.ids:
            one_hot = torch.eye(self.tokens, device=x.device, dtype=x.dtype)
            x = torch.cat([x, one_hot.expand(*x.shape[:-1], self.tokens)], dim=-1)
        return self.join_rows(x)

    def join_rows(self, x: Tensor) -> Tensor:
        """(R, B, T, F) -> (G, M, F), nothing added."""
        return x.transpose(1, 2).flatten(0, 1) if self.apart else x.flatten(1, 2)

    def join_levels(self, c: Tensor) -> Tensor:
        """(R, B, T) -> (G, M)."""
        return c.transpose(1, 2).flatten(0, 1) if self.apart else c.flatten(1)

    def split(self, y: Tensor) -> Tensor:
        """(G, M, F) -> (R, B, T, F), what `join` joined."""
        if self.apart:
            return y.view(-1, self.tokens, *y.shape[1:]).transpose(1, 2)
        return y.view(len(y), -1, self.tokens, y.shape[-1])

    def per_group(self, losses: Tensor) -> Tensor:
        """Losses (R, B, T) -> (G,): a mean over the rows of each group."""
        return self.join_levels(losses).mean(dim=1)
