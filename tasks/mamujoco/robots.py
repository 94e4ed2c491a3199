"""Which joints each agent drives, and what it sees of the robot; constructing a spec from this needs no engine.

The partitions are those of gymnasium-robotics' `mamujoco_v1` with `agent_obsk=1`: an agent sees its own joints and the
positions of their neighbours. A test compares both with that package.
"""

from __future__ import annotations

from dataclasses import dataclass

_AXES = ("x", "y", "z")
Features = list[tuple[str, int]]
"""Names with their indices in the state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Robot:
    """One robot and its agents.

    Attributes:
        environment: gymnasium's name of the single-agent environment.
        scenario, partition: gymnasium-robotics' names of the same split.
        state_dim: K, the single agent's observation.
        actuators: for each agent, the entries of the single agent's action that it sets.
        observed: for each agent, the entries of the state that it sees.
        names: of what an agent sees, one order for all.
        groups: exchangeable agents.
    """

    environment: str
    scenario: str
    partition: str
    state_dim: int
    actuators: tuple[tuple[int, ...], ...]
    observed: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...]


# -- Ant: state = torso pose 0-4, joints 5-12 (hip, ankle of each leg), torso velocity 13-18, joint velocities 19-26,
#    contact forces on the torso 27-32 and on each leg 33-104

_ANT_LEGS = 4
_ANT_POSE: Features = [("torso_height", 0), *((f"torso_orientation_{i}", 1 + i) for i in range(4))]
_ANT_VELOCITY: Features = [(f"torso_velocity_{axis}", 13 + i) for i, axis in enumerate(_AXES)]
_ANT_SPIN: Features = [(f"torso_spin_{axis}", 16 + i) for i, axis in enumerate(_AXES)]
_ANT_ACTUATORS = ((2, 3), (4, 5), (6, 7), (0, 1))  # hip and ankle of each leg: the engine's list starts with the last


def _leg_features(name: str, leg: int) -> Features:
    contacts = [(f"{name}_contact_{i}", 33 + 18 * leg + i) for i in range(18)]
    return [(f"{name}_ankle_position", 6 + 2 * leg), (f"{name}_ankle_velocity", 20 + 2 * leg), *contacts]


def _hip_features(name: str, leg: int) -> Features:
    return [(f"{name}_hip_position", 5 + 2 * leg), (f"{name}_hip_velocity", 19 + 2 * leg)]


def _ant_view(legs: tuple[int, ...]) -> Features:
    """What the driver of these legs sees: its ankles, its hips with the torso's contacts, the other hips, the torso."""
    own = [f"leg_{i}" for i in range(len(legs))]
    ankles = [feature for name, leg in zip(own, legs, strict=True) for feature in _leg_features(name, leg)]
    contacts: Features = [(f"torso_contact_{i}", 27 + i) for i in range(6)]
    first, *rest = (_hip_features(name, leg) for name, leg in zip(own, legs, strict=True))
    hips = [*first, *contacts, *(feature for hip in rest for feature in hip)]
    absent = [leg for leg in range(_ANT_LEGS) if leg not in legs]
    others: Features = [(f"other_hip_{i}_position", 5 + 2 * leg) for i, leg in enumerate(absent)]
    return [*ankles, *hips, *others, *_ANT_POSE, *_ANT_VELOCITY, *_ANT_SPIN]


def _ant(partition: str, *legs_of: tuple[int, ...]) -> Robot:
    views = [_ant_view(legs) for legs in legs_of]
    return Robot(
        environment="Ant-v5",
        scenario="Ant",
        partition=partition,
        state_dim=105,
        actuators=tuple(tuple(a for leg in legs for a in _ANT_ACTUATORS[leg]) for legs in legs_of),
        observed=tuple(tuple(index for _, index in view) for view in views),
        names=tuple(name for name, _ in views[0]),
        groups=(tuple(range(len(legs_of))),),
    )


# -- half-cheetah: state = torso height and angle 0-1, thigh, shin, foot of the hind leg 2-4 and of the front leg 5-7,
#    torso velocity 8-10, joint velocities 11-16


def _cheetah_view(thigh: int, other_thigh: int) -> Features:
    joints = [("foot", thigh + 2), ("shin", thigh + 1), ("thigh", thigh)]
    own = [pair for name, at in joints for pair in ((f"{name}_position", at), (f"{name}_velocity", at + 9))]
    torso: Features = [("torso_height", 0), ("torso_angle", 1), ("torso_velocity_x", 8), ("torso_velocity_z", 9)]
    return [*own, ("other_thigh_position", other_thigh), *torso, ("torso_spin", 10)]


def _cheetah() -> Robot:
    views = [_cheetah_view(2, 5), _cheetah_view(5, 2)]
    return Robot(
        environment="HalfCheetah-v5",
        scenario="HalfCheetah",
        partition="2x3",
        state_dim=17,
        actuators=((0, 1, 2), (3, 4, 5)),
        observed=tuple(tuple(index for _, index in view) for view in views),
        names=tuple(name for name, _ in views[0]),
        groups=((0,), (1,)),  # the legs are not alike
    )


ROBOTS: dict[str, Robot] = {
    "mamujoco/4ant": _ant("4x2", (0,), (1,), (2,), (3,)),
    "mamujoco/2ant": _ant("2x4", (0, 1), (2, 3)),
    "mamujoco/2halfcheetah": _cheetah(),
}
EPISODE_LIMIT = 1000
