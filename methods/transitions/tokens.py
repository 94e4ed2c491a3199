"""Transitions as tokens of a model and back: one for each agent, or one for the whole team.

A token is (o, a, r, o' [, e] [, s, s']), SynthER's order with the state of INS, App. K.1, behind it. Discrete actions
are bits (INS, Sec. 4.1), e is the true end, r the team's reward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.base import UnsupportedError
from methods.diffusion.normalisers import StandardNormaliser
from methods.synthesis.bits import action_codes
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class RawTransitions:
    """M transitions in the task's units, as a model drew them: nothing is clipped, no action decoded.

    Attributes:
        observations: (M, 2, N, D) before and after.
        actions: (M, N, A) continuous, or (M, N, L) numbers near the bits of discrete ones.
        rewards: (M,) of the team.
        terminal: (M,) bool.
        states: (M, 2, K) where they are part of the tokens, else None.
    """

    observations: NDArray[np.float32]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    terminal: NDArray[np.bool_]
    states: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLayout:
    """Where each part of a token stands.

    Attributes:
        spec: the task.
        joint: one token for all agents, their observations and actions side by side; else one for each.
        done: whether the true end is part of it.
        append_state: whether both states are.
    """

    spec: TaskSpec
    joint: bool = False
    done: bool = False
    append_state: bool = False

    def __post_init__(self) -> None:
        if self.append_state and self.spec.state_dim is None:
            raise UnsupportedError(f"{self.spec.id}: append_state=true, but the task has no global state.")

    @property
    def tokens(self) -> int:
        """T, of one transition."""
        return 1 if self.joint else self.spec.n_agents

    @property
    def code_size(self) -> int:
        """Numbers an action takes: A, or L bits."""
        action = self.spec.action
        return action_codes(action.size).shape[1] if action.discrete else action.size

    def parts(self) -> dict[str, slice]:
        """The features of each part, by name."""
        agents, spec = (self.spec.n_agents if self.joint else 1), self.spec
        state = (spec.state_dim or 0) * self.append_state
        sizes = {
            "observations": agents * spec.obs_dim,
            "actions": agents * self.code_size,
            "rewards": 1,
            "next_observations": agents * spec.obs_dim,
            "done": int(self.done),
            "states": state,
            "next_states": state,
        }
        found, start = {}, 0
        for name, size in sizes.items():
            found[name] = slice(start, start + size)
            start += size
        return found

    @property
    def features(self) -> int:
        """F, of one token."""
        size: int = self.parts()["next_states"].stop
        return size

    def assemble(self, data: OfflineDataset, steps: NDArray[np.int64]) -> NDArray[np.float32]:
        """(M, T, F) the tokens of these steps of a dataset, in the task's units."""
        spec, parts, shape = self.spec, self.parts(), (len(steps), self.tokens)
        rows = data.row_of_step()[steps]
        actions = data.actions[steps]
        codes = action_codes(spec.action.size)[actions] if spec.action.discrete else actions
        columns: dict[str, NDArray[Any]] = {
            "observations": data.observations[rows].reshape(*shape, -1),
            "actions": codes.reshape(*shape, -1),
            "rewards": spec.fold_rewards(data.rewards[steps])[:, None, None],
            "next_observations": data.observations[rows + 1].reshape(*shape, -1),
        }
        if self.done:
            columns["done"] = data.terminals[steps][:, None, None]
        if self.append_state:
            assert data.states is not None  # a required column where the task has states
            columns["states"] = data.states[rows][:, None]
            columns["next_states"] = data.states[rows + 1][:, None]
        tokens = np.empty((*shape, self.features), dtype=np.float32)
        for name, column in columns.items():
            tokens[..., parts[name]] = column
        return tokens

    def split(self, tokens: NDArray[np.float32]) -> RawTransitions:
        """What tokens (M, T, F) in the task's units say: rewards and states are means of the agents' (card 1.12).

        A transition is a true end where more than half of its tokens are nearer to 1 than to 0.
        """
        spec, parts, count = self.spec, self.parts(), len(tokens)

        def of_agents(name: str, size: int) -> NDArray[np.float32]:
            return tokens[..., parts[name]].reshape(count, spec.n_agents, size)

        def mean(name: str) -> NDArray[np.float32]:
            averaged: NDArray[np.float32] = tokens[..., parts[name]].mean(axis=1)
            return averaged

        both = [of_agents(name, spec.obs_dim) for name in ("observations", "next_observations")]
        ended = np.zeros(count, dtype=np.bool_)
        if self.done:
            ended = (tokens[..., parts["done"].start] > 0.5).mean(axis=1) > 0.5
        return RawTransitions(
            observations=np.stack(both, axis=1),
            actions=of_agents("actions", self.code_size),
            rewards=mean("rewards")[:, 0],
            terminal=ended,
            states=np.stack([mean("states"), mean("next_states")], axis=1) if self.append_state else None,
        )


def fit_normaliser(layout: TokenLayout, tokens: NDArray[np.float32], *, apart: bool) -> StandardNormaliser:
    """`standard` of tokens (M, T, F); the end stays as it is (SynthER's repository).

    Args:
        layout: of the tokens.
        tokens: at least one transition.
        apart: each token has statistics of its own, as each agent's own model has in MA-SynthER; else all share them,
            as they share the network.
    """
    features, count = layout.features, layout.tokens if apart else 1
    flags = list(range(*layout.parts()["done"].indices(features)))
    skipped = [token * features + flag for token in range(count) for flag in flags]
    fitted = StandardNormaliser.fit(tokens.reshape(-1, count * features), skipped)
    return StandardNormaliser(fitted.mean.view(count, features), fitted.scale.view(count, features))
