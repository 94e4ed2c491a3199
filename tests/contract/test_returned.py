"""What the pipeline checks on everything that a method returns."""

from typing import Any

import numpy as np
import pytest

from benchmark.checks import check_generated, check_policy_actions, sample_dataset
from tasks.common.errors import MethodError

DATA = sample_dataset("continuous").without_privileged()
LONG = DATA.replace(  # the first boundary one step later, and no flags
    episode_starts=np.array([0, 7, *range(12, 73, 6)]), truncations=np.zeros(DATA.n_steps, dtype=bool)
)
DISCRETE = sample_dataset("discrete").without_privileged()


def test_good_data_pass_unchanged() -> None:
    out = DATA.take([0, 3])
    assert check_generated(out, DATA, DATA.spec, "toy") is out


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "returned a NoneType, expected an OfflineDataset"),
        (DISCRETE, "returned episodes of 'sample/discrete', expected those of 'sample/continuous'"),
        (DATA.replace(rewards=np.full_like(DATA.rewards, np.inf)), "'rewards' are not finite"),
        (DATA.replace(actions=DATA.actions * 0 + 2), r"'actions' are not in \[-1.0, 1.0\]"),
        (sample_dataset("continuous"), "returned the column 'behaviour'"),
        (DATA.replace(alive=np.ones(DATA.observations.shape[:2], dtype=bool)), "returned the column 'alive'"),
        (LONG, "an episode of 7 steps; the limit is 6"),
    ],
)
def test_bad_data_are_refused_and_the_method_is_named(data: Any, message: str) -> None:
    with pytest.raises(MethodError, match=message) as caught:
        check_generated(data, DATA, DATA.spec, "toy")
    assert "'toy'" in str(caught.value)


def test_a_dataset_changed_behind_its_back_is_refused() -> None:
    broken = DATA.take([0, 1])
    object.__setattr__(broken, "rewards", broken.rewards.astype(np.float64))
    with pytest.raises(MethodError, match="dtype float64"):
        check_generated(broken, DATA, DATA.spec, "toy")


def act(actions: Any, data: Any = DATA, available: Any = None) -> Any:
    return check_policy_actions(
        actions, data.spec, replicas=2, batch=4, available_actions=available, learner_name="toy"
    )


def test_actions_with_nan_mark_their_replica_as_diverged() -> None:
    actions = np.zeros((2, 4, 3, 2), dtype=np.float32)
    assert act(actions).tolist() == [False, False]
    actions[1, 2, 0, 1] = np.nan
    actions[1, 0, 0, 0] = 50.0  # a diverged replica may do anything
    assert act(actions).tolist() == [False, True]
    actions[0, 1, 2, 0] = -1.1
    with pytest.raises(MethodError, match=r"learner 'toy'.*not in \[-1.0, 1.0\].*\(0, 1, 2\)"):
        act(actions)


@pytest.mark.parametrize(
    "actions",
    [
        None,
        [[0.0]],
        np.zeros((2, 4, 3, 2)),  # float64
        np.zeros((2, 4, 3, 3), dtype=np.float32),
        np.zeros((1, 4, 3, 2), dtype=np.float32),
    ],
)
def test_actions_of_another_shape_or_type_are_refused(actions: Any) -> None:
    with pytest.raises(MethodError, match=r"expected an array float32 \(2, 4, 3, 2\)"):
        act(actions)


def test_discrete_actions_must_exist_and_be_available() -> None:
    available = np.ones((2, 4, 3, 5), dtype=bool)
    available[1, 0, 2, 4] = False
    actions = np.zeros((2, 4, 3), dtype=np.int64)
    assert act(actions, DISCRETE, available).tolist() == [False, False]
    actions[1, 0, 2] = 4
    with pytest.raises(MethodError, match="available"):
        act(actions, DISCRETE, available)
    actions[0, 0, 0] = 5
    with pytest.raises(MethodError, match=r"one of 0\.\.4"):
        act(actions, DISCRETE, available)
