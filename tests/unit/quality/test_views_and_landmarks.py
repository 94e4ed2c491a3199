import numpy as np
import pytest

from benchmark.quality import landmarks, views
from benchmark.quality.landmarks import cn_score, coverage_score, uncovered
from benchmark.quality.subject import Subject, UndefinedError
from tasks.registry import make_task

LANDMARKS = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)]


def test_mean_ade_by_hand(spread, look):
    seen = look([(0.0, 0.5), (1.0, 0.5), (-1.0, 0.0)], LANDMARKS)
    names = spread.spec.observation_features
    seen[1, names.index("other_agent_0_offset_x")] += 0.3  # agent 1 sees agent 0 at 0.3 to the right
    seen[2, names.index("landmark_1_offset_y")] += 0.6  # views of landmark 1: y = 0, 0, 0.6, mean 0.2
    value, by_kind = views.mean_ade(spread.scene(np.stack([seen, look([(0, 0.5), (1, 0.5), (-1, 0)], LANDMARKS)])))
    # Per entity over views and two rows: agent 0: (0.3 + 0) / 2 / 2 = 0.075; landmark 1: (0.2 + 0.2 + 0.4) / 3 / 2.
    assert by_kind == pytest.approx({"agent": 0.075 / 3, "landmark": 0.8 / 6 / 3}, abs=1e-6)
    assert value == pytest.approx((0.075 + 0.8 / 6) / 6, abs=1e-6)


def test_uncovered_landmarks_by_hand(spread, look):
    near = look([(0.05, 0.0), (1.0, 0.3), (0.0, 1.0)], LANDMARKS)  # 0.05, 0.3 and 0 away
    both = look([(0.0, 0.0), (0.02, 0.0), (-1.0, -1.0)], LANDMARKS)  # two agents at one landmark
    assert uncovered(spread.scene(np.stack([near, both]))).tolist() == [1, 2]


def test_scores_by_hand(spread, look):
    scene = spread.scene(look([(0.0, 0.0), (0.0, 0.0), (1.0, 0.5)], LANDMARKS)[None])
    assert cn_score(scene) == pytest.approx([-(0 + 0 + 0.5) / 3])  # each agent to its nearest landmark
    assert coverage_score(scene) == pytest.approx([-(0 + 0.5 + 1) / 3])  # each landmark to its nearest agent


def test_improvement_and_uncovered_of_whole_episodes(spread, look, episodes):
    first, last = look([(0, -1), (1, -1), (0, 2)], LANDMARKS), look(LANDMARKS, LANDMARKS)
    whole = episodes(np.stack([first] * 25 + [last])[None])
    still = episodes(np.stack([first] * 26)[None])
    measured = landmarks.measure(Subject(still, whole, spread, None, 0)).metrics
    assert measured["cn_score_improvement"].value == pytest.approx(1.0)  # from distance 1 to 0, all three
    assert measured["cn_score_improvement"].original == 0.0
    assert measured["uncovered_landmarks"].value == 0.0
    assert measured["uncovered_landmarks"].original == 3.0
    assert measured["uncovered_landmarks"].details["all_covered_share"] == 1.0


def test_segments_have_no_end(spread, look, episodes):
    rows = np.stack([look(LANDMARKS, LANDMARKS)] * 26)
    whole, cut = episodes(rows[None]), episodes(rows[None, :8])
    measured = landmarks.measure(Subject(whole, cut, spread, None, 0)).metrics
    assert measured["uncovered_landmarks"].value is None
    assert "no synthetic episode has 25 steps" in measured["uncovered_landmarks"].reason
    assert measured["cn_score_improvement"].value == 0.0


def test_pursuit_has_no_landmarks():
    task = make_task("mpe/tag")
    scene = task.scene(task.make_env(1, seed=0).reset([0]).observations)
    for metric in (uncovered, cn_score):
        with pytest.raises(UndefinedError):
            metric(scene)
