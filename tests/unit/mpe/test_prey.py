"""The prey: rules worked by hand, and the shipped ones within the published ranges."""

from __future__ import annotations

import numpy as np
import pytest

from benchmark.behaviour.prey import measure_prey
from tasks.common.selector import Selector
from tasks.mpe.engine import ParticleEngine
from tasks.mpe.prey import PretrainedPrey, ScriptedPrey
from tasks.mpe.scenarios import scenario
from tasks.mpe.task import ENGINE_VERSION, make_task
from tasks.policies import load_card, load_weights

# (random, greedy chase), in the omar variant
RANGES = {"mpe/tag": ((-10, 0), (100, 180)), "mpe/world": ((-10, 0), (50, 100))}


def observation(position: tuple[float, float], *predators: tuple[float, float]) -> np.ndarray:
    """What tag's prey sees: velocity, position, two obstacles, three predators (offsets)."""
    return np.array([[0, 0, *position, 9, 9, 9, 9, *np.ravel(predators)]], dtype=np.float64)


def test_scripted_prey_flees_the_nearest_and_else_goes_home() -> None:
    prey = ScriptedPrey(scenario("mpe/tag", "omar"))
    near = observation((0.0, 0.0), (2, 2), (0.3, 0.4), (0, 0.58))
    np.testing.assert_allclose(prey.act(near), [[-0.6 * 0.15, -0.8 * 0.15]])
    far = observation((0.4, -0.2), (2, 2), (1, 1), (0, 0.7))
    np.testing.assert_allclose(prey.act(far), [[-0.2 * 0.15, 0.1 * 0.15]])
    # at x = 0.9: f_x = -0.45 - 6 · 0.1 = -1.05, longer than 1, so it is scaled to 1
    np.testing.assert_allclose(prey.act(observation((0.9, 0.0), (2, 2), (1, 1), (0, 0.7))), [[-0.15, 0.0]], atol=1e-9)


def test_scripted_prey_of_world_reads_past_food_and_forests() -> None:
    engine = ParticleEngine(scenario("mpe/world", "omar"))
    kinematics = np.zeros((1, engine.n_entities + 4, 2))
    kinematics[0, :3] = [(0.5, 0.0), (-0.9, 0.0), (0.0, 0.9)]
    kinematics[0, 4:9] = 0.1
    prey = ScriptedPrey(engine.scenario)
    np.testing.assert_allclose(prey.act(engine.observe_prey(kinematics)), [[-0.15, 0.0]])


@pytest.mark.parametrize("name", RANGES)
def test_shipped_prey_is_neither_too_weak_nor_too_strong(name: str) -> None:
    task = make_task(Selector.parse(name))
    path = task.checkpoint("prey")
    returns = measure_prey(ParticleEngine(task.scenario), PretrainedPrey(load_weights(path)), 1000, seed=11)
    for (low, high), value in zip(RANGES[name], returns.values(), strict=True):
        assert low < value < high
    for level, value in load_card(path)["predator_returns"].items():
        assert returns[level] == pytest.approx(value, abs=8.0 if level == "greedy chase" else 1.5)


@pytest.mark.parametrize("name", RANGES)
def test_scripted_prey_has_the_published_difficulty(name: str) -> None:
    engine = ParticleEngine(scenario(name, "omar"))
    returns = measure_prey(engine, ScriptedPrey(engine.scenario), 1000, seed=11)
    published = {"mpe/tag": (-7.9, 138.0), "mpe/world": (-8.1, 67.0)}[name]
    assert returns["random"] == pytest.approx(published[0], abs=0.6)
    assert returns["greedy chase"] == pytest.approx(published[1], abs=12.0)


def test_prey_does_not_depend_on_the_batch() -> None:
    task = make_task(Selector.parse("mpe/tag"))
    prey = PretrainedPrey(load_weights(task.checkpoint("prey")))
    seen = np.random.default_rng(0).normal(size=(300, 14))
    together = prey.act(seen)
    for row in range(0, 300, 7):
        np.testing.assert_array_equal(prey.act(seen[row : row + 1])[0], together[row])


def test_a_new_prey_is_a_new_engine_version() -> None:
    digests = {name: load_card(make_task(Selector.parse(name)).checkpoint("prey"))["sha256"][:12] for name in PREY}
    assert (ENGINE_VERSION, digests) == ("1", PREY)


PREY = {
    "mpe/tag": "e0aba53bc429",
    "mpe/world": "293c0b8a40a4",
    "mpe/tag[variant=mpe2]": "0015e5353ff6",
    "mpe/world[variant=mpe2]": "f7c5c4f97ebe",
}
