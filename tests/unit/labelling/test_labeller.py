"""The labeller learns an oracle's answers, and the stage gives every window a label vector."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmark.checks import sample_dataset
from methods.base import Run
from methods.data.windows import WindowIndex
from methods.labelling import stage
from methods.labelling.credit_rule import CreditRule
from methods.labelling.labeller import LabellerNetwork, LabellerSettings, fit_labeller
from methods.labelling.oracle import UNDECIDED, Oracle, Progress
from methods.labelling.stage import LabellingSettings, privileged_labels, quality_labels
from methods.labelling.windows import LabelWindows, label_windows
from tasks.common.errors import UsageError
from tasks.registry import make_task
from tests.chat_server import chat_server, said

TINY = LabellerSettings(hidden=8, epochs=2)


def ignore(done: int, total: int, message: str) -> None:
    """No progress."""


def test_windows_stand_still_past_the_end_and_reward_nothing() -> None:
    data = sample_dataset("discrete")
    index = WindowIndex(data, 8)
    windows = label_windows(index, np.arange(len(index)))
    length = int(data.lengths[0])
    assert windows.steps[:length].tolist() == list(range(length, 0, -1))
    last = data.observations[length]
    for start in range(length):
        assert (windows.observations[start, length - start :] == last).all()
        assert windows.rewards[start, length - start :].sum() == 0
        assert (windows.behaviour[start, length - start :] == -1).all()  # type: ignore[index]
    assert windows.rewards[0, :length] == pytest.approx(data.team_rewards()[:length])
    assert windows.row_valid[0].sum() == length + 1
    assert windows.take(np.array([1])).steps.tolist() == [length - 1]


@pytest.mark.parametrize("scope", ["joint", "per_agent"])
def test_the_labeller_overfits_a_hundred_windows(scope: str) -> None:
    index = WindowIndex(sample_dataset("continuous", episodes=20), 8)
    windows, rng = label_windows(index, np.arange(100)), np.random.default_rng(0)
    labels = rng.integers(3, size=100)  # nothing to understand: it must be learned by heart
    settings = LabellerSettings(
        scope=scope, hidden=64, epochs=80, learning_rate=5e-3, validation_share=0.0, batch_size=50
    )
    labeller = fit_labeller(settings, index.data.spec, windows, labels, rng, "cpu", ignore)
    z = labeller.predict(windows)
    assert (z.argmax(axis=1) == labels).mean() > 0.95
    assert z.sum(axis=1) == pytest.approx(np.ones(100), abs=1e-5)
    assert labeller.diagnosis["validation_accuracy"] is None


def test_what_can_be_learned_is_told_against_chance() -> None:
    index = WindowIndex(sample_dataset("continuous", episodes=100), 8)
    windows = label_windows(index, np.arange(len(index)))
    labels = windows.observations[:, 0, :, 0].argmax(axis=1)  # a rule that is visible in the first row
    settings = LabellerSettings(hidden=32)
    labeller = fit_labeller(settings, index.data.spec, windows, labels, np.random.default_rng(0), "cpu", ignore)
    assert labeller.diagnosis["validation_accuracy"] > 0.6
    assert labeller.diagnosis["chance"] == pytest.approx(1 / 3)


def test_noise_stops_early_and_keeps_the_best_weights() -> None:
    index = WindowIndex(sample_dataset("continuous", episodes=50), 8)
    windows, rng = label_windows(index, np.arange(len(index))), np.random.default_rng(0)
    labels = rng.integers(3, size=len(index))
    labeller = fit_labeller(LabellerSettings(hidden=32), index.data.spec, windows, labels, rng, "cpu", ignore)
    assert labeller.diagnosis["updates"] < 50 * 2
    z = labeller.predict(windows)
    assert -np.log(z[np.arange(len(z)), labels]).mean() < 1.2  # far from the confidence of learning by heart


def test_a_protocol_caps_the_updates() -> None:
    index = WindowIndex(sample_dataset("continuous"), 8)
    windows = label_windows(index, np.arange(len(index)))
    settings, rng = LabellerSettings(hidden=8, batch_size=16), np.random.default_rng(0)
    labels, spec = np.zeros(len(index), dtype=np.int64), index.data.spec
    labeller = fit_labeller(settings, spec, windows, labels, rng, "cpu", ignore, max_updates=3)
    assert labeller.diagnosis["updates"] == 3


def test_padding_does_not_reach_the_logits() -> None:
    data = sample_dataset("discrete")
    network = LabellerNetwork(data.spec, TINY, np.random.default_rng(0))
    points, rewards = torch.randn(2, 7, 3, 10), torch.randn(2, 7)
    steps = torch.tensor([3, 7])
    before = network(points, rewards, steps)
    points[0, 3:], rewards[0, 3:] = 9.0, 9.0
    torch.testing.assert_close(network(points, rewards, steps), before)
    points[1, 6] = 9.0
    assert not torch.allclose(network(points, rewards, steps)[1], before[1])


def test_per_agent_logits_follow_the_agents() -> None:
    data = sample_dataset("continuous")
    network = LabellerNetwork(data.spec, LabellerSettings(scope="per_agent", hidden=8), np.random.default_rng(0))
    points, rewards, steps = torch.randn(2, 7, 3, 7), torch.randn(2, 7), torch.tensor([7, 2])
    turned = network(points[:, :, [2, 0, 1]], rewards, steps)
    torch.testing.assert_close(turned, network(points, rewards, steps)[:, [2, 0, 1]])


class Scripted(Oracle):
    """Knows the answer to the first windows alone."""

    name = "heuristic"

    def __init__(self, known: int) -> None:
        self.known = known

    def label(self, windows: LabelWindows, progress: Progress) -> np.ndarray:
        return np.where(np.arange(len(windows)) < self.known, 1, UNDECIDED)


@pytest.mark.parametrize("known", [0, 1, 5])
def test_every_window_gets_a_label_however_few_are_decided(monkeypatch: pytest.MonkeyPatch, known: int) -> None:
    monkeypatch.setattr(stage, "make_oracle", lambda *_: Scripted(known))
    index = WindowIndex(sample_dataset("continuous"), 8)
    z, told = quality_labels(LabellingSettings(oracle="heuristic", labeller=TINY), index, Run(seeds=(1,)))
    assert z.shape == (len(index), 3)
    assert z.sum(axis=1) == pytest.approx(np.ones(len(index)), abs=1e-5)
    assert (told["shown"], told["decided"]) == (8, known)  # a tenth of 72 windows, rounded up
    assert ("labeller" in told) == (known > 0)
    if not known:
        assert (z == np.float32(1 / 3)).all()


def test_labels_follow_the_seed_of_the_replica() -> None:
    index = WindowIndex(sample_dataset("continuous"), 8)
    settings = LabellingSettings(oracle="heuristic", max_updates=3, labeller=TINY)
    first, second = (quality_labels(settings, index, Run(seeds=(3, 4)), replica)[0] for replica in range(2))
    alone, _ = quality_labels(settings, index, Run(seeds=(4,)))
    assert (second == alone).all()
    assert not np.allclose(first, second)


def test_hard_labels_name_one_agent() -> None:
    index = WindowIndex(sample_dataset("continuous"), 8)
    settings = LabellingSettings(oracle="heuristic", hard=True, max_updates=3, labeller=TINY)
    z, _ = quality_labels(settings, index, Run(seeds=(1,)))
    assert set(np.unique(z)) == {0.0, 1.0}
    assert (z.sum(axis=1) == 1).all()


def test_privileged_labels_need_no_labeller() -> None:
    data = sample_dataset("discrete")
    behaviour = np.full(data.behaviour.shape, 2, dtype=np.int8)  # type: ignore[union-attr]
    starts = data.episode_starts
    behaviour[:, 1] = 0
    behaviour[starts[1] : starts[2]] = 2  # nobody is an expert in episode 1
    behaviour[starts[2] : starts[3], 2] = 0  # and two are in episode 2
    z, told = privileged_labels(WindowIndex(data.replace(behaviour=behaviour), 8), Run(seeds=(0,)))
    assert (z[: starts[1]] == [0, 1, 0]).all()
    assert (z[starts[1] : starts[2]] == [0, 0, 0]).all()
    assert (z[starts[2] : starts[3]] == [0, 1, 1]).all()
    assert told["decided"] == data.n_steps - (starts[3] - starts[1])


def test_one_agent_is_the_best_one_and_no_oracle_is_asked() -> None:
    index = WindowIndex(sample_dataset("one-agent"), 8)
    z, told = quality_labels(LabellingSettings(oracle="llm"), index, Run(seeds=(0,)))
    assert (z == 1).all()
    assert told["shown"] == 0


def test_credit_prefers_the_agent_whose_features_explain_the_return() -> None:
    data = sample_dataset("continuous", episodes=60)
    rewards = np.zeros_like(data.rewards)
    starts = data.episode_starts[:-1]
    rows = data.row_starts[:-1]
    rewards[starts, 0] = 3 * data.observations[rows, 1, 0]  # what agent 1 sees first decides the return
    index = WindowIndex(data.replace(rewards=rewards), 8)
    rule = CreditRule.fit(index, np.random.default_rng(0), "cpu", ignore, updates=150)
    firsts = np.flatnonzero(index.starts == 0)
    windows = label_windows(index, firsts)
    scores = rule(windows)
    spread = np.abs(scores).mean(axis=0)
    assert spread.argmax() == 1
    assert spread[1] > 1.5 * max(spread[0], spread[2])
    high = windows.observations[:, 0, 1, 0] > 0.5
    assert scores[high, 1].mean() > 0


def test_an_endpoint_drives_the_whole_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai")
    index = WindowIndex(sample_dataset("continuous"), 8)
    settings = LabellingSettings(oracle="llm", model="local", labeller=LabellerSettings(hidden=8, learning_rate=0.1))
    with chat_server(lambda number, document: said('{"agent": 2}')) as server:
        monkeypatch.setenv("AUGMARL_LLM_BASE_URL", server.base_url)
        monkeypatch.setenv("AUGMARL_LLM_REQUESTS_PER_MINUTE", "1000000")
        z, told = quality_labels(settings, index, Run(seeds=(1,)))
    assert len(server.requests) == told["asked"] == 8
    assert (told["oracle"], told["model"], told["decided"]) == ("llm", "local", 8)
    assert z.mean(axis=0).argmax() == 2


def test_without_an_endpoint_the_stage_says_what_to_set() -> None:
    index = WindowIndex(sample_dataset("continuous"), 8)
    with pytest.raises(UsageError, match="AUGMARL_LLM_BASE_URL"):
        quality_labels(LabellingSettings(oracle="llm", model="m"), index, Run(seeds=(1,)))


@pytest.mark.parametrize("task", ["mpe/spread", "mpe/tag", "mpe/world[actions=discrete]"])
def test_the_heuristic_works_on_the_particle_tasks(task: str) -> None:
    from tasks.datasets import regimes

    made = make_task(task)
    request = regimes.resolve(made, "random")
    data = regimes.collect(made, request, 4, 0, ignore).without_privileged()
    settings = LabellingSettings(oracle="heuristic", share=0.5, max_updates=5)
    z, told = quality_labels(settings, WindowIndex(data, 8), Run(seeds=(0,)))
    assert told["decided"] > 40
    assert np.isfinite(z).all()
