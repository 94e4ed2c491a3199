import numpy as np
import pytest

from tasks.common.errors import DataError, UsageError
from tasks.mpe.engine import ParticleEngine
from tasks.mpe.scenarios import scenario
from tasks.mpe.scene import contributions
from tasks.registry import make_task

FAR = [(5.0, 5.0), (6.0, 6.0), (7.0, 7.0)]


def test_scene_finds_everything_where_it_was_put(spread, look):
    seen = look([(0.5, 0.25), (-0.5, 0.0), (0.0, -0.75)], [(1.0, 1.0), (-1.0, 1.0), (0.0, 0.5)])
    scene = spread.scene(seen[None])
    assert [entity.name for entity in scene.entities] == [
        *("agent_0", "agent_1", "agent_2"),
        *("landmark_0", "landmark_1", "landmark_2"),
    ]
    assert scene.entities[1].position.tolist() == [[-0.5, 0.0]]
    assert scene.entities[5].seen.tolist() == [[[0.0, 0.5]] * 3]
    assert scene.entities[0].viewers == (1, 2)
    assert scene.entities[3].own is None
    assert scene.entities[3].position.tolist() == [[1.0, 1.0]]


def test_views_that_contradict_each_other_are_kept_apart(spread, look):
    seen = look([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)], FAR)
    column = spread.spec.observation_features.index("other_agent_0_offset_x")
    seen[2, column] += 0.5  # agent 2's first other agent is agent 0
    agent, other = spread.scene(seen[None]).entities[:2]
    assert agent.disagreement().tolist() == [[0.0, 0.5]]
    assert other.disagreement().tolist() == [[0.0, 0.0]]


def test_distances_are_what_each_agent_sees_itself(spread, look):
    seen = look([(0.0, 0.0), (3.0, 0.0), (0.0, 0.0)], [(0.0, 0.0), (3.0, 4.0), (0.0, 1.0)])
    distances = spread.scene(seen[None]).distances_to("landmark")[0]
    assert distances.tolist() == pytest.approx(np.array([[0, 5, 1], [3, 4, np.sqrt(10)], [0, 5, 1]]))


@pytest.mark.parametrize("name", ["mpe/tag", "mpe/world", "mpe/spread-5"])
def test_scene_agrees_with_the_simulator(name):
    task = make_task(name)
    env = task.make_env(3, seed=1)
    scene = task.scene(env.reset(range(3)).observations)
    for index, entity in enumerate(scene.entities):
        assert entity.position == pytest.approx(env.kinematics[:, index], abs=1e-6)
        assert entity.disagreement().max() < 1e-6


def test_pursuit_has_a_prey_and_nothing_to_cover():
    task = make_task("mpe/tag")
    scene = task.scene(task.make_env(1, seed=0).reset([0]).observations)
    assert scene.of_kind("prey")[0].radius == 0.05
    assert scene.cover_distance is None


def test_scene_refuses_another_shape(spread):
    with pytest.raises(DataError, match=r"shape \(2, 3, 17\), expected \(M, 3, 18\)"):
        spread.scene(np.zeros((2, 3, 17), dtype=np.float32))


def test_contribution_is_the_reward_that_is_lost_without_the_agent():
    """Σ_j r_j = 3 Σ_l min(1 / d_l, 10) - 5 for each side of a collision."""
    kinematics = np.zeros((1, 9, 2))
    kinematics[0, :3] = [(0.0, 0.0), (4.0, 0.2), (4.0, 0.0)]  # agents 1 and 2 touch
    kinematics[0, 3:6] = [(0.5, 0.0), (4.0, 0.0), (4.0, -1.0)]
    gained = contributions(ParticleEngine(scenario("mpe/spread", "omar")), kinematics)[0]
    assert gained[0] == pytest.approx(3 * (1 / 0.5 - 1 / 3.5))  # landmark 0 falls to agent 2
    assert gained[1] == pytest.approx(-10.0)  # nearest to nothing, and on one side of a collision of two
    assert gained[2] == pytest.approx(3 * (10 - 1 / 0.2) + 3 * (1 - 1 / 1.2) - 10)  # both fall to agent 1


def test_contributions_are_those_after_the_step(spread, look):
    seen = look([(0.0, 0.0), (3.0, 0.0), (-3.0, 0.0)], [(0.25, 0.0), (3.0, 0.0), (-3.0, 0.0)])
    push = np.zeros((1, 3, 2), dtype=np.float32)
    push[0, 0, 0] = 1.0  # v = 0.1 · 5, p = 0.1 · 0.5: to 0.05
    gained = spread.contributions(seen[None], push)[0]
    assert gained == pytest.approx([3 * (1 / 0.2 - 1 / 2.75), 3 * (10 - 1 / 2.95), 3 * (10 - 1 / 3.05)], rel=1e-4)


def test_contributions_are_defined_for_navigation_alone():
    task = make_task("mpe/tag")
    with pytest.raises(UsageError, match="cooperative navigation alone"):
        task.contributions(np.zeros((1, 3, 16), dtype=np.float32), np.zeros((1, 3, 2), dtype=np.float32))
