"""Agents stitched one by one, and put side by side again."""

from dataclasses import replace

import numpy as np
import pytest

from benchmark.checks import sample_dataset
from benchmark.checks.check import EveryCheckpoint
from benchmark.checks.returned import check_generated
from methods.augmenters.mbts import MBTS
from methods.base import Budget, Run
from methods.model_based_stitching.per_agent import agent_data, agent_runs, team_episodes
from methods.model_based_stitching.stitched import StitchedEpisodes
from tasks.common.errors import UsageError
from tasks.datasets.offline import OfflineDataset


def part(
    rows: list[int], starts: list[int], action: float, reward: float, terminal: list[bool], synthetic: list[bool]
) -> StitchedEpisodes:
    steps = starts[-1]
    return StitchedEpisodes(
        rows=np.array(rows),
        actions=np.full((steps, 1, 2), action, dtype=np.float32) + np.arange(steps, dtype=np.float32)[:, None, None],
        rewards=np.full((steps, 1), reward, dtype=np.float32),
        synthetic=np.array(synthetic),
        terminal=np.array(terminal),
        won=np.array(terminal),
        starts=np.array(starts),
    )


def test_episodes_side_by_side_by_hand() -> None:
    spec = replace(sample_dataset("continuous").spec, n_agents=2, agent_groups=((0, 1),), team_reward="sum")
    # Agent 0 walks for 2 and 1 steps, agent 1 for 1 and 3: the team for 1 and 1.
    first = part([0, 1, 2, 3, 4], [0, 2, 3], 10.0, 1.0, [True, False], [False, True, False])
    second = part([5, 6, 0, 1, 2, 3], [0, 1, 4], 20.0, 3.0, [False, True], [False, True, False, False])
    team = team_episodes([first, second], spec)
    assert team.starts.tolist() == [0, 1, 2]
    assert team.rows.tolist() == [[0, 5], [1, 6], [3, 0], [4, 1]]
    assert team.actions[:, :, 0].tolist() == [[10.0, 20.0], [12.0, 21.0]]
    assert team.rewards.tolist() == [[1.0, 3.0], [1.0, 3.0]]
    assert team.synthetic.tolist() == [False, True]
    assert team.terminal.tolist() == [
        False,
        False,
    ]  # agent 0's first episode ends truly, but later; so agent 1's second
    assert team_episodes([first, replace(second, terminal=np.array([True, False]))], spec).terminal.tolist() == [
        True,
        False,
    ]
    shared = team_episodes([first, second], replace(spec, team_reward="first"))
    assert shared.rewards.tolist() == [[2.0, 2.0], [2.0, 2.0]]  # the mean, which the team is paid


def generated(data: OfflineDataset, run: Run, **params: float | str) -> tuple[OfflineDataset, MBTS]:
    augmenter = MBTS.tiny({"scope": "per_agent", **params})
    augmenter.fit(data, run)
    return check_generated(augmenter.generate(data, run), data, data.spec, "mbts"), augmenter


@pytest.mark.parametrize("shape", ["continuous", "discrete", "states-and-deaths", "one-agent"])
def test_every_agent_sees_and_may_do_what_it_did_in_some_row(shape: str) -> None:
    data = sample_dataset(shape).without_privileged()
    apart = np.arange(len(data.observations), dtype=np.float32)[:, None, None]
    data = data.replace(observations=data.observations + np.float32(1e-4) * apart)  # no two rows alike
    returned, augmenter = generated(data, Run(seeds=(3,), budget=Budget(amount=120)), fresh_copies=2)
    agents = data.spec.n_agents
    rows = np.empty((len(returned.observations), agents), dtype=np.int64)
    for i in range(agents):
        known = {row.tobytes(): r for r, row in enumerate(data.observations[:, i])}
        rows[:, i] = [known[row.tobytes()] for row in returned.observations[:, i]]
    if agents > 1:
        assert (rows != rows[:, :1]).any()
    for name in ("alive", "available_actions"):
        if getattr(data, name) is not None:
            np.testing.assert_array_equal(getattr(returned, name), getattr(data, name)[rows, np.arange(agents)])
    if data.states is not None:
        np.testing.assert_array_equal(returned.states, data.states[rows[:, 0]])
    told = augmenter.diagnosis()
    assert len(told["agents"]) == agents
    assert told["generation"]["changed_episodes"] > 0


def test_an_agent_has_models_of_its_own_rows_and_rewards() -> None:
    data = sample_dataset("states-and-deaths").without_privileged()
    own = agent_data(data, 1)
    own.validate()
    np.testing.assert_array_equal(own.observations[:, 0], data.observations[:, 1])
    np.testing.assert_array_equal(own.team_rewards(), data.rewards[:, 1])
    run = Run(seeds=(3,))
    first, second = (one.generator("weights").random(3) for one in agent_runs(run, 2))
    assert (first != second).all()


def test_a_stored_fit_generates_the_same() -> None:
    data, run = sample_dataset("continuous").without_privileged(), Run(seeds=(3,), budget=Budget(amount=60))
    returned, augmenter = generated(data, run)
    other = MBTS(augmenter.config)
    other.load_state(augmenter.state(), data.spec)
    for name, column in other.generate(data, run).columns().items():
        np.testing.assert_array_equal(column, getattr(returned, name), err_msg=name)


def test_a_fit_goes_on_from_every_checkpoint_as_if_undisturbed() -> None:
    data, kept = sample_dataset("one-step-episodes").without_privileged(), EveryCheckpoint()

    def fitted(checkpoint: EveryCheckpoint) -> MBTS:
        member = MBTS.tiny({"scope": "per_agent", "inverse_updates": 40})
        MBTS.fit_together([member], data, replace(Run(seeds=(3,)), checkpoint=checkpoint))
        return member

    undisturbed = fitted(kept).state()
    assert len(kept.states) >= 3 * data.spec.n_agents
    for stored in kept.states[:: max(1, len(kept.states) // 6)]:
        again = EveryCheckpoint(stored)
        for name, array in fitted(again).state().items():
            np.testing.assert_array_equal(array, undisturbed[name], err_msg=name)
        assert len(again.states) < len(kept.states)


def test_another_scope_is_refused() -> None:
    with pytest.raises(UsageError, match="scope=both"):
        MBTS.from_params({"scope": "both"})
