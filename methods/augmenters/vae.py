"""`vae`: transitions decoded from noise by a variational autoencoder (INS, App. B, which names the idea alone)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from methods.base import Run, require
from methods.diffusion.sampling import NoiseSource
from methods.networks.token_groups import TokenGroups
from methods.networks.transition_vae import TransitionVAE
from methods.transitions.augmenter import TransitionAugmenter
from methods.transitions.config import TransitionConfig
from methods.transitions.fit_data import FitData
from methods.transitions.model import TransitionModel
from methods.transitions.modes import AgentModes, require_mode
from methods.transitions.tokens import TokenLayout
from methods.transitions.training import Objective, TrainingPlan, rows_of


@dataclass(frozen=True, slots=True, kw_only=True)
class VAEConfig(TransitionConfig):
    """Those of the autoencoder that MBTS uses for actions (its repository, CVAE.py, Train_VAE.py); INS gives none."""

    width: int = 750  # MBTS' repository
    updates: int = 400_000  # same
    batch_size: int | None = 100  # same
    learning_rate: float = 1e-4  # same
    latent: int = 32  # inferred
    agent_mode: str = (
        "per_agent"  # a model for each (INS, App. B); "shared" with an index, or "joint" (inferred options)
    )

    def __post_init__(self) -> None:
        super(VAEConfig, self).__post_init__()  # the bare form does not know a class with slots
        require(self.latent >= 1, "vae", f"latent={self.latent}", "a whole number, 1 or more")
        require_mode(self.agent_mode, "vae")


class VAE(AgentModes, TransitionAugmenter[VAEConfig]):
    """z ~ N(0, I) decoded to tokens (o, a, r, o', e); each agent by itself unless `agent_mode` says otherwise."""

    Config = VAEConfig
    version = 1
    name: ClassVar[str] = "vae"

    def build(self, layout: TokenLayout, width: int, generators: Sequence[np.random.Generator]) -> nn.ModuleDict:
        """The autoencoder."""
        groups = TokenGroups(layout.tokens, apart=self.apart, ids=not self.apart)
        return nn.ModuleDict({"main": TransitionVAE(groups, layout.features, self.config.latent, width, generators)})

    def plan(self, n_steps: int) -> TrainingPlan:
        """Adam at a constant rate, the last weights."""
        config = self.config
        return TrainingPlan(
            updates=config.updates, batch_size=config.batch_size or 100, learning_rate=config.learning_rate
        )

    def objective(self, module: nn.ModuleDict, given: FitData, batch_size: int, *, judging: bool = False) -> Objective:
        """A shared model has as many rows an update as each of the others (inferred)."""
        vae = module["main"]
        assert isinstance(vae, TransitionVAE)  # `build` made it
        rows = batch_size if self.apart else max(1, batch_size // given.layout.tokens)
        return _Objective(vae, given, rows)

    def draw(
        self, model: TransitionModel, run: Run, count: int, noise: NoiseSource, after: Callable[[float], None]
    ) -> Tensor:
        """(count, T, F), what the decoder makes of noise."""
        vae = model.module["main"]
        assert isinstance(vae, TransitionVAE)  # `build` made it
        with torch.no_grad():
            tokens = vae.decode(noise((1, count, model.layout.tokens, vae.latent)))[0]
        after(1.0)
        return tokens


class _Objective:
    """½ (MSE + KL) of tokens that stay on the device."""

    def __init__(self, vae: TransitionVAE, given: FitData, batch_size: int) -> None:
        self.module, self.copies, self._vae = vae, vae.groups.copies, vae
        self._tokens, self._taught, self._batch = given.tokens, given.taught, batch_size

    def draw(self, generator: np.random.Generator, replica: int) -> tuple[NDArray[Any], ...]:
        """Steps (B,) and noise (B, T, Z)."""
        rows = rows_of(self._taught, generator, replica, self._batch)
        shape = (self._batch, self._tokens.shape[1], self._vae.latent)
        return rows, generator.standard_normal(shape, dtype=np.float32)

    def losses(self, rows: Tensor, noise: Tensor) -> Tensor:
        """(R · copies,)."""
        tokens = self._tokens.index_select(0, rows.flatten()).view(*rows.shape, *self._tokens.shape[1:])
        return self._vae.losses(tokens, noise)

    def after_update(self) -> None:
        """Nothing follows."""
