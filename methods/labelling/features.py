"""Features by name: what the rules and the prompts read out of observations."""

from __future__ import annotations

import re
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from methods.labelling.windows import LabelWindows
from tasks.spec import TaskSpec

Kind = Literal["coverage", "pursuit", "battle", "general"]

COLLISION_DISTANCE = 0.3  # two agents of radius 0.15 (particle environments, spread)
CONTACT_DISTANCE = 0.125  # predator 0.075 and prey 0.05 (tag; world's prey is smaller by 0.005)


def kind_of(spec: TaskSpec) -> Kind:
    """What the names of a task's features and actions tell of its goal."""
    if offset_columns(spec, r"landmark_\d+") and offset_columns(spec, r"other_agent_\d+"):
        return "coverage"
    if offset_columns(spec, "prey"):
        return "pursuit"
    return "battle" if attack_actions(spec).any() else "general"


def offset_columns(spec: TaskSpec, entity: str) -> list[tuple[int, int]]:
    """Column pairs (x, y) of the features `<entity>_offset_x` and `_y`, `entity` being a regular expression."""
    names = {name: column for column, name in enumerate(spec.observation_features)}
    found = (name[:-2] for name in names if re.fullmatch(rf"{entity}_offset_x", name))
    return [(names[f"{stem}_x"], names[f"{stem}_y"]) for stem in found if f"{stem}_y" in names]


def distances(spec: TaskSpec, windows: LabelWindows, entity: str) -> NDArray[np.float32]:
    """(M, H, N, E) distances of every agent to the E entities whose offsets it sees."""
    columns = offset_columns(spec, entity)
    pairs = windows.observations[..., columns]  # (M, H, N, E, 2)
    return np.asarray(np.linalg.norm(pairs, axis=-1), dtype=np.float32)


def attack_actions(spec: TaskSpec) -> NDArray[np.bool_]:
    """(A,) which of the discrete actions attack somebody, by their names."""
    attacks = np.zeros(spec.action.size, dtype=np.bool_)
    for action, name in enumerate(spec.action.names):
        attacks[action] = spec.action.discrete and name.startswith("attack")
    return attacks


def own_health(spec: TaskSpec, windows: LabelWindows) -> NDArray[np.float32] | None:
    """(M, H, N) health of every agent as it sees it, or None where no feature is called so."""
    for name in ("own_health", "health"):
        if name in spec.observation_features:
            return np.asarray(windows.observations[..., spec.observation_features.index(name)])
    return None
