"""Losses of behaviour cloning. Each gives one number a replica."""

from __future__ import annotations

from torch import Tensor

from methods.networks.heads import masked_log_softmax


def squared_error(actions: Tensor, targets: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean (π(o_i) − a_i)² over batch, agents and action dimensions.

    Args:
        actions: (R, ..., N, A), π(o).
        targets: (R, ..., N, A), the recorded actions.
        valid: (R, ...) bool, False on padding; None: all are valid.

    Returns:
        (R,).
    """
    return masked_mean((actions - targets).square().mean(dim=(-2, -1)), valid)


def negative_log_likelihood(logits: Tensor, targets: Tensor, available: Tensor, valid: Tensor | None = None) -> Tensor:
    """⟨−(1/N) Σ_i log π(a_i | τ_i)⟩ with π the categorical over available actions.

    Deviation: OffPyMARL feeds probabilities into a second softmax, sums over padding and counts the action chosen in
    the final state; this is the loss that its paper names.

    Args:
        logits: (R, ..., N, A).
        targets: (R, ..., N) int64, the recorded actions, available wherever `valid`.
        available: (R, ..., N, A) bool.
        valid: (R, ...) bool, False on padding; None: all are valid.

    Returns:
        (R,).
    """
    log_p = masked_log_softmax(logits, available).gather(-1, targets[..., None])[..., 0]  # (R, ..., N)
    return masked_mean(-log_p.mean(dim=-1), valid)


def doubled_negative_log_likelihood(
    logits: Tensor, targets: Tensor, available: Tensor, valid: Tensor | None, exploration: float
) -> Tensor:
    """The loss of OffPyMARL's `bc`: cross entropy of probabilities, as if they were logits of all actions.

    They are those of the policy that takes a random available action with probability ε. The loss has a floor, without
    ε −log(e / (e + A − 1)), so gradients are weak; the greedy action is mostly that of the likelihood.

    Args:
        logits: these four as in `negative_log_likelihood`.
        targets: recorded actions.
        available: which may be taken.
        valid: False on padding.
        exploration: ε in [0, 1].

    Returns:
        (R,).
    """
    share = available.to(logits.dtype) / available.sum(dim=-1, keepdim=True).clamp(min=1)
    p = (1 - exploration) * masked_log_softmax(logits, available).exp() + exploration * share  # (R, ..., N, A)
    log_p = p.log_softmax(dim=-1).gather(-1, targets[..., None])[..., 0]  # (R, ..., N)
    return masked_mean(-log_p.mean(dim=-1), valid)


def masked_mean(values: Tensor, valid: Tensor | None) -> Tensor:
    """⟨x⟩ = Σ m x / Σ m within each replica: (R, ...) -> (R,); 0 for a replica without a valid entry."""
    values = values.flatten(1)
    if valid is None:
        return values.mean(dim=1)
    valid = valid.flatten(1)
    # masked_fill, not a product: NaN · 0 is NaN, and padding may hold anything.
    return values.masked_fill(~valid, 0.0).sum(dim=1) / valid.sum(dim=1).clamp(min=1)
