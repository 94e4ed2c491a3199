import numpy as np
import pytest
from scipy.stats import spearmanr

from benchmark.quality import attention
from benchmark.quality.attention import curve, extremes, inverse_distances
from benchmark.quality.subject import Subject, UndefinedError
from methods.augmenters.duplicate import Duplicate
from methods.augmenters.ins import INS
from methods.base import Run

LANDMARKS = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)]
PLACES = [(0.0, 0.0), (1.0, 0.0), (3.0, 0.0)]  # 1, 3 and 2 apart


class Attending(Duplicate):
    """Attends as it is told: (N, N), or a function of the observations (M, N, D)."""

    def __init__(self, weights):
        super().__init__()
        self.weights = weights

    def attention(self, data, steps):
        if callable(self.weights):
            return self.weights(data.observations[data.row_of_step()[steps]])
        return None if self.weights is None else np.repeat(np.array(self.weights)[None], len(steps), axis=0)


@pytest.fixture
def still(look, episodes):
    return episodes(np.stack([look(PLACES, LANDMARKS)] * 3)[None])


def measured(spread, data, weights):
    return attention.measure(Subject(data, data, spread, Attending(weights), 0))


def test_the_correlation_by_hand(spread, still):
    """Agents 0 and 1 attend to each other, agent 2 to itself.

    Pairs 01 02 10 12 20 21 have ranks 5.5 1.5 5.5 3.5 1.5 3.5 by inverse distance and 5.5 2.5 5.5 2.5 2.5 2.5 by
    weight: 12 / (sqrt(16) sqrt(12)).
    """
    found = measured(spread, still, [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]])
    told = found.metrics["attention_correlation"]
    assert told.value == pytest.approx(12 / (4 * np.sqrt(12)))
    assert told.details == {
        "nearest": pytest.approx(1 / 3),  # 0 gives 1, 1 gives 0, 2 gives 1: 0.5, 0.5 and 0
        "furthest": 0.0,
        "itself": pytest.approx(2 / 3),
        "zero_share": pytest.approx(4 / 6),
        "transitions": 2,
    }
    drawn = found.curves["attention_by_inverse_distance"]
    assert drawn.x == pytest.approx([1 / 3] * 4 + [1 / 2] * 4 + [1.0] * 4)
    assert drawn.y == pytest.approx([0.0] * 8 + [0.5] * 4)


def test_rows_are_what_an_agent_gives(spread, look):
    """Agent 0 gives agent 2, its furthest, everything; agent 2 gives agent 1, its nearest, everything."""
    weights = np.array([[[0, 0, 1], [0, 1, 0], [0, 1, 0]]], dtype=np.float64)
    near = inverse_distances(spread.scene(look(PLACES, LANDMARKS)[None]))
    off = ~np.eye(3, dtype=np.bool_)
    assert near[0][off] == pytest.approx([1, 1 / 3, 1, 1 / 2, 1 / 3, 1 / 2], rel=1e-6)
    assert extremes(weights, near) == pytest.approx((1 / 3, 1 / 3))


def test_attention_to_the_near_and_to_the_far(spread, recorded):
    def near(observations):
        found = inverse_distances(spread.scene(observations))
        found[:, range(3), range(3)] = 0.0
        return found / found.sum(axis=2).max()

    assert measured(spread, recorded, near).metrics["attention_correlation"].value == pytest.approx(1.0)
    far = measured(spread, recorded, lambda seen: -near(seen)).metrics["attention_correlation"]
    assert far.value == pytest.approx(-1.0)
    noise = np.random.default_rng(0).random((1000, 3, 3)).round(1)
    found = measured(spread, recorded, lambda seen: noise[: len(seen)]).metrics["attention_correlation"].value
    i, j = np.nonzero(~np.eye(3, dtype=np.bool_))
    distances = near(recorded.observations[recorded.row_of_step()])[:, i, j].ravel()
    assert found == pytest.approx(spearmanr(noise[:, i, j].ravel(), distances).statistic)


def test_a_curve_by_hand():
    found = curve(np.array([3.0, 1.0, 2.0, 4.0]), np.array([10.0, 20.0, 40.0, 0.0]), 2)
    assert (found.x, found.y) == ([1.5, 3.5], [30.0, 5.0])
    assert curve(np.array([2.0]), np.array([1.0]), 5).x == [2.0]


@pytest.mark.parametrize(
    ("augmenter", "reason"),
    [
        (None, "not at hand"),
        (Attending(None), "no model in which agents attend"),
        (Duplicate(), "no model in which agents attend"),
        (Attending(np.full((3, 3), 1 / 3)), "all weights"),
    ],
)
def test_what_is_undefined_says_why(spread, recorded, augmenter, reason):
    with pytest.raises(UndefinedError, match=reason):
        attention.measure(Subject(recorded, recorded, spread, augmenter, 0))


def test_a_stored_model_of_ins_still_tells_its_attention(spread, recorded):
    run = Run(seeds=(0,))
    fitted, restored, apart = INS.tiny(), INS.tiny(), INS.tiny({"attention": "none"})
    fitted.fit(recorded, run)
    restored.load_state(fitted.state(), recorded.spec)
    first, second = (attention.measure(Subject(recorded, recorded, spread, method, 0)) for method in (fitted, restored))
    assert first == second
    assert -1 <= first.metrics["attention_correlation"].value <= 1
    assert len(first.curves["attention_by_inverse_distance"].x) == attention.BINS
    apart.fit(recorded, run)
    with pytest.raises(UndefinedError, match="no model in which agents attend"):
        attention.measure(Subject(recorded, recorded, spread, apart, 0))
