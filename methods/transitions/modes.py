"""Whose transitions a model of tokens draws: each agent's by itself, all agents' alike, or the whole team's."""

from __future__ import annotations

from typing import Any

from methods.base import require

MODES = ("per_agent", "shared", "joint")


def require_mode(agent_mode: str, owner: str) -> None:
    """Raises UsageError unless it is one of MODES."""
    require(agent_mode in MODES, owner, f"agent_mode={agent_mode}", " or ".join(MODES))


class AgentModes:
    """The properties of a `TransitionAugmenter` whose config has an `agent_mode`."""

    config: Any

    @property
    def joint(self) -> bool:
        """One token for the team."""
        return bool(self.config.agent_mode == "joint")

    @property
    def apart(self) -> bool:
        """A model for each agent; also the joint token has its own statistics."""
        return bool(self.config.agent_mode != "shared")
