"""A fitted diffusion model of joint windows with its auxiliary networks: what the diffusion augmenters share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from methods.base import Arrays, Run
from methods.diffusion.settings import HEADS, SegmentSettings
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec

if TYPE_CHECKING:
    from methods.diffusion.known import Known
    from methods.diffusion.samplers import Sampler
    from methods.diffusion.sampling import NoiseSource

__all__ = ["HEADS", "Composition", "SegmentModel", "SegmentSettings", "fit_segment_models"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Composition:
    """C conditional branches and their weights: ε̂ = ε_u + Σ_c w_c (ε(R, z_c) − ε_u) (CODI, Eq. 8).

    A branch whose mask is all False is conditioned on the return alone. One branch with weight g is ordinary
    guidance: CODI without composition is `z` of ones, one row, `weights` [g].

    Attributes:
        labels: (C, N) z_c, agent i's entry at i; the model rolls them for every agent.
        mask: (C, N) bool, True where the entry is given.
        weights: (C,) floats.
    """

    labels: NDArray[np.float32]
    mask: NDArray[np.bool_]
    weights: tuple[float, ...]


class SegmentModel:
    """One fitted model. Everything is float32; tensors live on `device`.

    Normalised observations x are (..., N, D'), D' = D, or D + K with `settings.append_state`.
    Encoded actions are (..., N, A): normalised values, or one-hot choices (logits where said) of discrete ones.

    Attributes:
        settings, spec, device: as given to the fit.
        features: D'.
        returns_scale, returns_shift: the condition is c = (return-to-go − shift) / scale, 1 at the best episode.
        diverged: whether a parameter is not finite; `sample` then raises MethodError.
        thresholds: {scope: {metric: {quantile: δ}}} of held-out real data, see `methods.diffusion.validity`.
        diagnosis: JSON-able: heldout_denoising_loss, training_loss, loss_curve [[update, loss], ...],
            heads {name: {training, heldout}}, seconds {stage: s}, thresholds, precision,
            compute {width, updates, batch_size, learning_rate, head_updates, parameters}, windows, heldout_windows.
    """

    settings: SegmentSettings
    spec: TaskSpec
    device: str
    features: int
    returns_scale: float
    returns_shift: float
    diverged: bool
    thresholds: Mapping[str, Mapping[str, Mapping[str, float]]]
    diagnosis: dict[str, Any]

    # -- between the task's units and the model's ----------------------------------------------------------------

    def encode(self, observations: NDArray[np.float32], states: NDArray[np.float32] | None = None) -> Tensor:
        """(..., N, D) in the task's units -> (..., N, D') normalised; `states` (..., K) iff `append_state`."""
        raise NotImplementedError

    def decode(self, x: Tensor) -> NDArray[np.float32]:
        """(..., N, D') -> (..., N, D) in the task's units, within the range of the data."""
        raise NotImplementedError

    def encode_actions(self, actions: NDArray[Any]) -> Tensor:
        """(..., N, A) floats -> normalised; (..., N) int -> one-hot (..., N, A)."""
        raise NotImplementedError

    def decode_actions(self, encoded: Tensor) -> NDArray[Any]:
        """(..., N, A) -> actions within their bounds, or (..., N) int64 argmax."""
        raise NotImplementedError

    def condition(self, returns: NDArray[np.floating[Any]] | float) -> Tensor:
        """Returns-to-go in the task's units (under `settings.gamma`) as conditions c."""
        raise NotImplementedError

    # -- sampling ------------------------------------------------------------------------------------------------

    def sample(
        self,
        known: Known,
        *,
        target: float | Tensor,
        noise: NoiseSource,
        sampler: Sampler,
        guidance: float = 1.2,
        conditioning: Any = None,
        composition: Composition | None = None,
        null_dropout: float = 1.0,
        batch_size: int = 4_096,
    ) -> Tensor:
        """Windows (B, H, N, D') that keep what is known.

        Args:
            known: values (B, H, N, D'), mask (B, H, N); nothing known: a mask of False.
            target: condition c: a number, (B,), or (B, N).
            noise: standard normal values, drawn for all B windows at once whatever `batch_size`.
            sampler: see `methods.diffusion.samplers`.
            guidance: g of ε̂ = ε_u + g (ε_c − ε_u); unused with a `composition`.
            conditioning: how known entries are kept; None: `ClampConditioning()`.
            composition: branches on labels in place of the plain return; needs `settings.labels`.
            null_dropout: probability that the unconditional branch drops the condition of a (window, agent);
                0.25 is the slip of DoF's repository.
            batch_size: windows a forward pass, all branches counted once; halved when memory runs out.

        Raises:
            MethodError: if the weights are not finite.
        """
        raise NotImplementedError

    # -- auxiliary networks: leading axes free, differentiable ---------------------------------------------------
    # Each raises MethodError if the head was not fitted; ask `has` first where data decide.

    def has(self, head: str) -> bool:
        """Whether a head of `HEADS` was fitted."""
        raise NotImplementedError

    def inverse(self, x: Tensor, x_next: Tensor) -> Tensor:
        """Encoded action (..., N, A) of o -> o'; logits of discrete ones."""
        raise NotImplementedError

    def act(self, x: Tensor, x_next: Tensor, available: Tensor | None = None) -> Tensor:
        """`inverse` made an action: within the range, or the one-hot argmax over `available` (..., N, A) bool."""
        raise NotImplementedError

    def forward_dynamics(self, x: Tensor, a: Tensor) -> Tensor:
        """Predicted next observations (..., N, D') from x (..., N, D') and encoded actions a (..., N, A)."""
        raise NotImplementedError

    def reward(self, x: Tensor, a: Tensor, x_next: Tensor | None = None) -> Tensor:
        """(...) team reward in the task's units; x_next is needed iff `settings.reward_next`."""
        raise NotImplementedError

    def return_to_go(self, x: Tensor, a: Tensor) -> Tensor:
        """(...) undiscounted team return from here to the end of the episode, in the task's units."""
        raise NotImplementedError

    def value(self, x: Tensor) -> Tensor:
        """(..., N) each agent's V(o_i) of the team reward, in the task's units, discounted by `value_gamma`."""
        raise NotImplementedError

    def availability(self, x: Tensor) -> Tensor:
        """(..., N, A) bool: which actions are available."""
        raise NotImplementedError

    def alive(self, x: Tensor) -> Tensor:
        """(..., N) bool: who is alive."""
        raise NotImplementedError

    def termination(self, x_next: Tensor) -> Tensor:
        """(...) bool: whether the episode truly ended with the arrival at x_next."""
        raise NotImplementedError

    def state(self, x: Tensor) -> Tensor:
        """(..., K) global state in the task's units: from the head, or the mean copy with `append_state`."""
        raise NotImplementedError

    # -- storing -------------------------------------------------------------------------------------------------

    def arrays(self) -> Arrays:
        """All of the model, for `from_arrays`."""
        raise NotImplementedError

    @classmethod
    def from_arrays(cls, arrays: Arrays, spec: TaskSpec, device: str) -> Self:
        """The model whose `arrays` are given: its samples are the same to the last bit."""
        raise NotImplementedError


def fit_segment_models(
    settings: SegmentSettings,
    data: OfflineDataset,
    run: Run,
    labels: Sequence[NDArray[np.float32]] | None = None,
) -> list[SegmentModel]:
    """Fits one model a seed of `run`, all in one program; model r depends on `run.seeds[r]` alone.

    Progress goes to `run.report`; `run.checkpoint` is saved when due, and a fit that starts with one goes on where
    it was, bit for bit on a CPU.

    Args:
        settings: already `within` the budget.
        data: original episodes.
        run: seeds, device, progress, checkpoint.
        labels: for each seed (W, N) label vectors z, one for each of the W windows of
            `WindowIndex(data, settings.horizon, padded=settings.pad_windows)`, iff `settings.labels`.

    Raises:
        DataError: for values that are not finite.
        UnsupportedError: if no window fits into an episode.
    """
    raise NotImplementedError
