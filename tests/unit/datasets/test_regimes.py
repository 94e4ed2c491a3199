"""Names of datasets, what determines them, and the recording itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tasks.base import Task
from tasks.common.errors import DataError, UnknownNameError, UsageError
from tasks.datasets import regimes
from tasks.datasets.card import card_of_collected
from tasks.datasets.offline import BEHAVIOURS, OfflineDataset
from tasks.datasets.regime_table import REGIMES
from tasks.registry import make_task

MakeTask = Callable[..., Task]


def record(task: Task, dataset: str, episodes: int | None, seed: int = 0) -> OfflineDataset:
    return regimes.collect(task, regimes.resolve(task, dataset), episodes, seed, lambda *_: None)


def assert_same(first: OfflineDataset, second: OfflineDataset) -> None:
    assert first.columns().keys() == second.columns().keys()
    for name, column in first.columns().items():
        np.testing.assert_array_equal(column, second.columns()[name], err_msg=name)


def test_all_regimes_of_the_papers_are_there() -> None:
    assert set(REGIMES) == {
        *("exp", "exp-m", "exp-s", "md", "md-m", "md-s", "one-expert"),
        *("expert", "medium", "medium-replay", "replay", "random", "good", "poor"),
    }


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("exp", "exp"),
        ("exp-m[t_imb=4]", "exp-m"),
        ("exp-m[t_imb=8,p_imb=0.05]", "exp-m[t_imb=8]"),
        ("exp-m[p_imb=0]", "exp-m[p_imb=0.0]"),
        ("exp[ fraction = 0.5 ]", "exp[fraction=0.5]"),
        ("expert[noise_std=0.2,episodes=10]", "expert[episodes=10,noise_std=0.2]"),
        ("random[transitions=100,unit=transition]", "random[transitions=100,unit=transition]"),
        ("random[fraction=1,unit=episode]", "random[fraction=1.0]"),
    ],
)
def test_one_spelling_a_dataset(toy_task: MakeTask, written: str, canonical: str) -> None:
    request = regimes.resolve(toy_task(), written)
    assert str(request) == canonical
    assert regimes.resolve(toy_task().spec, canonical) == request


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("exp-n", "Did you mean 'exp-s' or 'exp-m'"),
        ("exp-m[t_im=4]", "'t_im'. Did you mean 't_imb'"),
        ("exp[noise_std=1]", "Unknown parameter of dataset 'exp' 'noise_std'"),
        ("exp-m[t_imb=2.5]", "t_imb=2.5 is not a whole number"),
        ("exp-m[t_imb=0]", "t_imb=0 is out of range"),
        ("exp-m[p_imb=1.5]", "out of range; expected 0 to 1"),
        ("exp-m[p_imb=nan]", "out of range"),
        ("exp-m[p_imb=often]", "p_imb=often is not a number"),
        ("exp[episodes=0]", "episodes=0 is not a whole number of at least 1"),
        ("exp[episodes=true]", "not a whole number"),
        ("exp[fraction=0]", "above 0 and at most 1"),
        ("exp[fraction=0.5,episodes=3]", "exactly one of"),
        ("exp[unit=transition]", "exactly one of"),
        ("exp[fraction=0.5,unit=agent]", "unit=agent is unknown"),
        ("exp[episodes=3,unit=transition]", "not episodes="),
    ],
)
def test_bad_names_are_refused_before_anything_runs(toy_task: MakeTask, dataset: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("[", r"\[")):
        regimes.resolve(toy_task().spec, dataset)


def test_parameters_depend_on_the_actions(toy_task: MakeTask) -> None:
    assert dict(regimes.resolve(toy_task(), "expert").params) == {"noise_std": 0.1}
    assert dict(regimes.resolve(toy_task(discrete=True), "expert").params) == {"epsilon": 0.05}
    with pytest.raises(UnknownNameError, match="noise_std"):
        regimes.resolve(toy_task(discrete=True), "expert[noise_std=0.1]")


@pytest.mark.parametrize(
    ("agents", "dataset", "reason"),
    [
        (1, "exp-m", "exp-m: needs 2 agents or more, and toy/walk-1 has 1."),
        (3, "poor", "poor: toy/walk-3 has no 'poor' policy. It has: medium, expert."),
    ],
)
def test_data_that_a_task_cannot_have_are_undefined_and_never_recorded(
    toy_task: MakeTask, agents: int, dataset: str, reason: str
) -> None:
    task = toy_task(agents)
    request = regimes.resolve(task, dataset)
    assert regimes.undefined(task, request) == reason
    for refuse in (
        lambda: regimes.identity(task, request, 10, 0),
        lambda: regimes.collect(task, request, 10, 0, lambda *_: None),
    ):
        with pytest.raises(UsageError, match=reason):
            refuse()
    assert regimes.undefined(task, regimes.resolve(task, "exp")) is None


@pytest.mark.parametrize("name", sorted(set(REGIMES) - {"poor"}))
def test_every_regime_records_valid_data(task: Task, name: str) -> None:
    data = record(task, name, 30, seed=1)
    data.validate()
    assert data.n_episodes == 30
    if name == "exp":
        assert len(set(data.lengths.tolist())) > 3  # of different lengths
    assert data.won is not None
    np.testing.assert_array_equal(data.won, data.terminals[data.episode_starts[1:] - 1])
    ends = data.terminals | data.truncations
    assert ends[data.episode_starts[1:] - 1].all()
    assert ends.sum() == 30


def test_rows_follow_the_engine(task: Task) -> None:
    """A recorded step is the engine's: next observation, reward and mask belong to the action before them."""
    data = record(task, "exp-s", 20)
    env = task.make_env(data.n_steps, 0)
    rows = data.row_of_step()
    env.restore(data.observations[rows])
    step = env.step(data.actions)
    np.testing.assert_array_equal(step.observations, data.observations[rows + 1])
    np.testing.assert_array_equal(step.rewards, data.rewards)
    np.testing.assert_array_equal(step.states, data.states[rows + 1])  # type: ignore[index]
    np.testing.assert_array_equal(step.alive, data.alive[rows + 1])  # type: ignore[index]
    if task.spec.action.discrete:
        np.testing.assert_array_equal(step.available_actions, data.available_actions[rows + 1])  # type: ignore[index]


@pytest.mark.parametrize("name", ["exp-s", "expert", "random"])
def test_fewer_episodes_are_a_prefix_of_more(task: Task, name: str) -> None:
    assert_same(record(task, name, 7), record(task, name, 300).take(range(7)))


@pytest.mark.parametrize("name", ["exp-m", "expert"])
def test_prefix_bit_for_bit_with_a_real_network(name: str) -> None:
    task = make_task("mpe/spread")
    assert_same(record(task, name, 5), record(task, name, 260).take(range(5)))


def test_same_seed_same_data_other_seed_other_data(task: Task) -> None:
    assert_same(record(task, "exp-m", 5, seed=1), record(task, "exp-m", 5, seed=1))
    assert not np.array_equal(
        record(task, "exp-m", 5, seed=1).observations[:2], record(task, "exp-m", 5).observations[:2]
    )


def test_subsampling_by_name_takes_from_what_was_recorded(task: Task) -> None:
    whole, part = record(task, "exp", 40), record(task, "exp[fraction=0.25]", 40)
    assert part.n_episodes == 10
    first = whole.observations[whole.row_starts[:-1]]
    for observation in part.observations[part.row_starts[:-1]]:
        assert (first == observation).all(axis=(1, 2)).sum() == 1


def test_subsampling_to_more_episodes_records_more(task: Task) -> None:
    request = regimes.resolve(task, "exp[episodes=50]")
    assert regimes.episodes_recorded(task, request, 20) == 50
    assert regimes.episodes_recorded(task, request, 80) == 80
    assert record(task, "exp[episodes=50]", 20).n_episodes == 50


def test_subsampling_more_than_there_is(task: Task) -> None:
    with pytest.raises(DataError, match=r"cannot keep transitions=100000 of 10 episodes"):
        record(task, "exp[transitions=100000]", 10)


def test_medium_replay_walks_through_the_training_run(task: Task) -> None:
    data = record(task, "medium-replay", None)  # 40 random episodes, then 60 of the learner
    assert data.n_episodes == 100
    assert data.behaviour is not None
    by_episode = data.behaviour[data.episode_starts[:-1], 0]
    assert by_episode.tolist() == [BEHAVIOURS.index("random")] * 40 + [BEHAVIOURS.index("learner")] * 60


def test_medium_replay_of_another_size_covers_the_run(task: Task) -> None:
    def random_share(episodes: int) -> float:
        data = record(task, "medium-replay", episodes)
        assert data.n_episodes == episodes
        assert data.behaviour is not None
        return float((data.behaviour[data.episode_starts[:-1], 0] == BEHAVIOURS.index("random")).mean())

    assert random_share(50) == pytest.approx(0.4, abs=0.15)
    assert random_share(200) == pytest.approx(0.4)
    small, large = record(task, "medium-replay", 20), record(task, "medium-replay", 50)
    starts = {row.tobytes() for row in large.observations[large.row_starts[:-1]]}
    assert all(row.tobytes() in starts for row in small.observations[small.row_starts[:-1]])


def test_replay_goes_everywhere_in_the_run_however_few_episodes_it_has(task: Task) -> None:
    """200 episodes: 40 random ones, 60 of the learner until medium and 100 after it."""
    few, more = record(task, "replay", 10), record(task, "replay", 50)
    for name, column in few.columns().items():
        if name != "episode_starts":
            np.testing.assert_array_equal(column, more.columns()[name][: len(column)])  # a prefix
    assert more.behaviour is not None
    who = more.behaviour[more.episode_starts[:-1], 0]
    places = [int(i * (1 + 5**0.5) / 2 % 1 * 200) for i in range(50)]
    assert who.tolist() == [BEHAVIOURS.index("random" if place < 40 else "learner") for place in places]
    assert (who == BEHAVIOURS.index("random")).sum() == pytest.approx(10, abs=1)
    if task.spec.action.discrete:  # after medium actions are drawn, and the toy's draws are up or, where barred, down
        late = [e for e, place in enumerate(places) if place >= 100]
        steps = np.concatenate([np.arange(*more.episode_starts[e : e + 2]) for e in late])
        assert set(more.actions[steps].ravel()) == {0, 3, 4}
    assert regimes.episodes_recorded(task, regimes.resolve(task, "replay"), None) == regimes.DEFAULT_EPISODES


def test_identity_changes_with_everything_that_changes_the_data(toy_task: MakeTask) -> None:
    task = toy_task()

    def key(dataset: str, episodes: int | None = 10, seed: int = 0) -> str:
        return repr(regimes.identity(task, regimes.resolve(task, dataset), episodes, seed))

    assert key("exp-m") == key("exp-m[t_imb=4]")
    others = [key("exp-m[t_imb=5]"), key("exp-m", 11), key("exp-m", seed=1), key("exp-s"), key("exp-m[fraction=0.5]")]
    assert len({key("exp-m"), *others}) == 6
    assert key("exp", None) == key("exp", regimes.DEFAULT_EPISODES)
    identity = regimes.identity(task, regimes.resolve(task, "medium-replay"), None, 0)
    assert identity["episodes"] == 100
    assert identity["behaviour"] == {"history": "digest-of-history"}
    assert (identity["engine"], identity["engine_version"], identity["variant"]) == ("toy", "1", "continuous")


def test_no_episodes_is_refused(task: Task) -> None:
    with pytest.raises(UsageError, match="Give 1 or more"):
        record(task, "exp", 0)


def test_progress_reaches_the_total(task: Task) -> None:
    seen: list[tuple[int, int]] = []
    regimes.collect(task, regimes.resolve(task, "random"), 300, 0, lambda done, total, _: seen.append((done, total)))
    assert seen == [(256, 300), (300, 300)]


def test_an_environment_without_a_time_limit_is_named(toy_task: MakeTask) -> None:
    task = toy_task(episode_limit=4)
    real = task.make_env

    class Endless:
        def __init__(self) -> None:
            self.env = real(256, 0)
            self.spec = self.env.spec

        def reset(self, ids: list[int]) -> object:
            return self.env.reset(ids)

        def step(self, actions: np.ndarray) -> object:
            from dataclasses import replace

            step = self.env.step(actions)
            never = np.zeros_like(step.terminals)
            return replace(step, terminals=never, truncations=never)

        def close(self) -> None:
            pass

    task.make_env = lambda num_envs, seed: Endless()  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(DataError, match="256 of 256 episodes neither ended nor were truncated within 4 steps"):
        record(task, "random", 3)


def test_the_card_says_everything(toy_task: MakeTask) -> None:
    task = toy_task()
    request = regimes.resolve(task, "exp-m[t_imb=2,fraction=0.5]")
    data = regimes.collect(task, request, 20, 4, lambda *_: None)
    card = card_of_collected(task, request, data, episodes=20, seed=4)
    assert card.params == {"p_imb": 0.05, "t_imb": 2}
    assert (card.episodes, card.episodes_recorded, card.seed) == (10, 20, 4)
    assert card.subsample == {"fraction": 0.5}
    assert card.behaviour_digests == {"expert": "digest-of-expert"}
    assert card.returns is not None
    assert card.returns.mean == pytest.approx(data.returns().mean())
    assert card.returns.deciles[4] == pytest.approx(np.median(data.returns()))
    assert sum(card.behaviour_mix.values()) == pytest.approx(1)
    assert card.win_rate == data.won.mean()  # type: ignore[union-attr]
