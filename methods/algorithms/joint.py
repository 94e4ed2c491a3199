"""What learners with a critic of the whole team need of a batch: one reward, one state, actions in [−1, 1]."""

from __future__ import annotations

from torch import Tensor

from tasks.spec import ActionSpec, TeamReward


def team_reward(rewards: Tensor, rule: TeamReward) -> Tensor:
    """Per-agent rewards (..., N) -> the team's (...), by the task's rule."""
    if rule == "first":
        return rewards[..., 0]
    return rewards.sum(dim=-1) if rule == "sum" else rewards.mean(dim=-1)


def joint_state(observations: Tensor, states: Tensor | None) -> Tensor:
    """The task's state (..., K), or where it has none the agents' observations (..., N, D) one after another."""
    return observations.flatten(-2) if states is None else states


def state_size(n_agents: int, obs_dim: int, state_dim: int | None) -> int:
    """K of `joint_state`."""
    return n_agents * obs_dim if state_dim is None else state_dim


def unit_actions(actions: Tensor, action: ActionSpec) -> Tensor:
    """Continuous actions mapped from their bounds to [−1, 1]; any shape."""
    return (actions - (action.high + action.low) / 2) / ((action.high - action.low) / 2)
