"""The auxiliary networks beside a denoiser: perceptrons on normalised observations, R replicas stacked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from methods.diffusion.settings import HEADS, SegmentSettings
from methods.networks.heads import mask_unavailable
from methods.networks.stacked import StackedMLP
from tasks.common.errors import MethodError
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec

Generators = Callable[[str], Sequence[np.random.Generator]]
"""For the name of a head, one generator a replica."""


def useful_heads(settings: SegmentSettings, data: OfflineDataset) -> tuple[str, ...]:
    """The wanted heads that these data can teach anything."""
    spec, masks = data.spec, data.available_actions
    pointless = {
        "availability": not spec.action.discrete or masks is None or bool(masks.all()),
        "alive": not spec.has_deaths or data.alive is None,
        "termination": not data.terminals.any(),
        "state": data.states is None or settings.append_state,
    }
    return tuple(name for name in HEADS if name in settings.heads and not pointless.get(name, False))


def target_scales(data: OfflineDataset, names: Sequence[str], settings: SegmentSettings) -> dict[str, Tensor]:
    """Mean and deviation of the regression targets that come in the task's units, as (2, ...) float32."""
    targets: dict[str, Callable[[], NDArray[Any] | None]] = {
        "reward": data.team_rewards,
        "return_to_go": lambda: data.returns_to_go(1.0),
        "value": lambda: data.returns_to_go(settings.value_gamma),
        "state": lambda: data.states,
    }
    scales = {}
    for name in names:
        if name in targets:
            values = np.asarray(targets[name](), np.float64)
            deviation = values.std(axis=0)
            scales[name] = torch.from_numpy(
                np.stack([values.mean(axis=0), np.where(deviation > 1e-6, deviation, 1.0)]).astype(np.float32)
            )
    return scales


class HeadNetworks(nn.Module):
    """Linear - ReLU - Linear - ReLU - Linear for every head, with nothing shared between them.

    Observations are (R, M, N, D'), encoded actions (R, M, N, A). A joint head reads the agents side by side.
    Regressions of rewards, returns, values and states give standardised numbers; `scales` has mean and deviation.
    """

    def __init__(
        self,
        settings: SegmentSettings,
        spec: TaskSpec,
        features: int,
        scales: Mapping[str, Tensor],
        names: Sequence[str],
        generators: Generators,
    ) -> None:
        super().__init__()
        self.settings, self.names, self.scales = settings, tuple(names), dict(scales)
        n, d, a = spec.n_agents, features, spec.action.size
        self._action_size, self._discrete = a, spec.action.discrete
        act_copies = n if settings.inverse_scope == "joint" else 1
        move_copies = n if settings.dynamics_scope == "joint" else 1
        sizes = {
            "inverse": (act_copies * 2 * d, act_copies * a),
            "dynamics": (move_copies * (d + a), move_copies * d),
            "reward": (n * (d + a + d * settings.reward_next), 1),
            "return_to_go": (n * (d + a), 1),
            "value": (d, 1),
            "availability": (d + n, a),
            "alive": (d, 1),
            "termination": (n * d, 1),
            "state": (n * d, spec.state_dim or 0),
        }
        hidden = (settings.head_hidden, settings.head_hidden)
        self.networks = nn.ModuleDict(
            {name: StackedMLP((sizes[name][0], *hidden, sizes[name][1]), generators(name)) for name in names}
        )

    def inverse(self, x: Tensor, x_next: Tensor) -> Tensor:
        """(R, M, N, A) the encoded action, or its logits."""
        return self._scoped("inverse", torch.cat([x, x_next], dim=-1), self.settings.inverse_scope)

    def dynamics(self, x: Tensor, a: Tensor) -> Tensor:
        """(R, M, N, D') the next observation."""
        moved = self._scoped("dynamics", torch.cat([x, a], dim=-1), self.settings.dynamics_scope)
        return x + moved if self.settings.dynamics_residual else moved

    def reward(self, x: Tensor, a: Tensor, x_next: Tensor | None = None) -> Tensor:
        """(R, M), standardised."""
        if self.settings.reward_next != (x_next is not None):
            raise MethodError("The reward head was fitted on g(o, a, o') iff reward_next=true: pass o' exactly then.")
        parts = [x, a] if x_next is None else [x, a, x_next]
        return self._joint("reward", torch.cat(parts, dim=-1))[..., 0]

    def return_to_go(self, x: Tensor, a: Tensor) -> Tensor:
        """(R, M), standardised."""
        return self._joint("return_to_go", torch.cat([x, a], dim=-1))[..., 0]

    def value(self, x: Tensor) -> Tensor:
        """(R, M, N), standardised."""
        return self._per_agent("value", x)[..., 0]

    def availability(self, x: Tensor) -> Tensor:
        """(R, M, N, A) logits; the agent's one-hot index is an input (inferred)."""
        n = x.shape[-2]
        identity = torch.eye(n, device=x.device).expand(*x.shape[:-1], n)
        return self._per_agent("availability", torch.cat([x, identity], dim=-1))

    def alive(self, x: Tensor) -> Tensor:
        """(R, M, N) logits."""
        return self._per_agent("alive", x)[..., 0]

    def termination(self, x_next: Tensor) -> Tensor:
        """(R, M) logits."""
        return self._joint("termination", x_next)[..., 0]

    def state(self, x: Tensor) -> Tensor:
        """(R, M, K), standardised."""
        return self._joint("state", x)

    def act(self, encoded: Tensor, available: Tensor | None) -> Tensor:
        """What `inverse` returned, as an action: clipped to [-1, 1], or one-hot of the largest available logit."""
        if not self._discrete:
            return encoded.clamp(-1, 1)
        allowed = encoded if available is None else mask_unavailable(encoded, available)
        return nn.functional.one_hot(allowed.argmax(dim=-1), self._action_size).to(encoded.dtype)

    def _scoped(self, name: str, inputs: Tensor, scope: str) -> Tensor:
        if scope == "per_agent":
            return self._per_agent(name, inputs)
        joint = self._joint(name, inputs)
        return joint.view(*inputs.shape[:-1], -1)  # (R, M, N, out)

    def _per_agent(self, name: str, inputs: Tensor) -> Tensor:
        """(R, M, N, in) -> (R, M, N, out)."""
        out: Tensor = self._network(name)(inputs.flatten(1, 2))
        return out.view(*inputs.shape[:-1], -1)

    def _joint(self, name: str, inputs: Tensor) -> Tensor:
        """(R, M, N, in) -> (R, M, out)."""
        out: Tensor = self._network(name)(inputs.flatten(2, 3))
        return out

    def _network(self, name: str) -> nn.Module:
        if name not in self.names:
            raise MethodError(f"The head {name!r} was not fitted; this model has {', '.join(self.names) or 'none'}.")
        return self.networks[name]


class HeadQueries:
    """The heads of one fitted model, with any leading axes.

    All are differentiable and return the task's units where they have some.
    """

    heads: HeadNetworks

    def has(self, head: str) -> bool:
        """Whether this head was fitted."""
        return head in self.heads.names

    def inverse(self, x: Tensor, x_next: Tensor) -> Tensor:
        """Encoded action (..., N, A) that leads from x to x_next, both (..., N, D'); logits of discrete ones."""
        return self._over_rows(self.heads.inverse, x, x_next)

    def act(self, x: Tensor, x_next: Tensor, available: Tensor | None = None) -> Tensor:
        """`inverse` made an action (..., N, A): in [-1, 1], or one-hot among `available` (..., N, A) bool."""
        return self.heads.act(self.inverse(x, x_next), available)

    def forward_dynamics(self, x: Tensor, a: Tensor) -> Tensor:
        """Next observations (..., N, D') after x (..., N, D') and encoded actions a (..., N, A)."""
        return self._over_rows(self.heads.dynamics, x, a)

    def reward(self, x: Tensor, a: Tensor, x_next: Tensor | None = None) -> Tensor:
        """(...) team reward; x_next (..., N, D') iff `settings.reward_next`."""
        tensors = (x, a) if x_next is None else (x, a, x_next)
        return self._scaled(
            "reward", self._over_rows(lambda *t: self.heads.reward(*t[:2], *(t[2:] or (None,))), *tensors)
        )

    def return_to_go(self, x: Tensor, a: Tensor) -> Tensor:
        """(...) undiscounted team return from here to the end of the episode."""
        return self._scaled("return_to_go", self._over_rows(self.heads.return_to_go, x, a))

    def value(self, x: Tensor) -> Tensor:
        """(..., N) each agent's V(o_i) of the team reward, discounted by `settings.value_gamma`."""
        return self._scaled("value", self._over_rows(self.heads.value, x))

    def availability(self, x: Tensor) -> Tensor:
        """(..., N, A) bool, probability above one half."""
        return self._over_rows(self.heads.availability, x) > 0

    def alive(self, x: Tensor) -> Tensor:
        """(..., N) bool, probability above one half."""
        return self._over_rows(self.heads.alive, x) > 0

    def termination(self, x_next: Tensor) -> Tensor:
        """(...) bool: whether the episode truly ended on arrival at x_next (..., N, D')."""
        return self._over_rows(self.heads.termination, x_next) > 0

    def state(self, x: Tensor) -> Tensor:
        """(..., K) global state."""
        return self._scaled("state", self._over_rows(self.heads.state, x))

    def _over_rows(self, head: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        """Calls a head of (1, M, N, F) inputs with inputs (..., N, F)."""
        lead = tensors[0].shape[:-2]
        out = head(*(t.reshape(1, prod(lead), *t.shape[-2:]) for t in tensors))[0]  # (M, ...)
        return out.view((*lead, *out.shape[1:]))

    def _scaled(self, name: str, standardised: Tensor) -> Tensor:
        scale = self.heads.scales[name]  # (2, ...)
        return scale[0] + scale[1] * standardised
