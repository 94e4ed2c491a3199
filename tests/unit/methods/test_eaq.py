"""EAQ: what is asked of the model, and how its signals become episodes."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark.checks import sample_dataset
from methods.augmenters import AUGMENTERS
from methods.augmenters.eaq import EAQ, EAQConfig
from methods.base import Budget, EpisodeBudget, Run
from methods.diffusion.episodes.matrix import EpisodeMatrix, EpisodeSignals
from methods.diffusion.episodes.model import EpisodeModel
from methods.diffusion.heads import HeadQueries
from methods.diffusion.samplers import make_sampler
from methods.diffusion.sampling import numpy_noise
from methods.diffusion.schedule import LinearSchedule
from methods.synthesis import whole_episodes
from methods.synthesis.emission import emit_episodes
from methods.synthesis.whole_episodes import to_rows
from tasks.common.errors import MethodError, UsageError
from tasks.common.seeding import make_generator
from tasks.datasets.offline import OfflineDataset
from tests.unit.checkpoints import KilledError, Memory

CONTINUOUS = sample_dataset("continuous").without_privileged()
DISCRETE = sample_dataset("discrete").without_privileged()
BATTLE = sample_dataset("states-and-deaths").without_privileged()


def fitted(data: OfflineDataset, **params: Any) -> EAQ:
    eaq = EAQ.tiny(params)
    eaq.fit(data, Run(seeds=(0,)))
    return eaq


@pytest.fixture(scope="module")
def battle() -> EAQ:
    return fitted(BATTLE)


def signals_of(eaq: EAQ, data: OfflineDataset) -> Tensor:
    """The episodes of the data as the model sees them."""
    settings = eaq.model_on("cpu").settings
    matrix, rows = EpisodeMatrix.fit(
        data, gamma=settings.gamma, multiple=8, with_state=settings.model_state, device="cpu"
    )
    return EpisodeSignals(data, matrix, rows).signals(torch.arange(data.n_episodes))


def emitted(eaq: EAQ, signals: Tensor, data: OfflineDataset) -> OfflineDataset:
    model = eaq.model_on("cpu")
    return emit_episodes(model, to_rows(model, model.matrix.decode(signals)), data)


@pytest.mark.parametrize("data", [CONTINUOUS, DISCRETE], ids=["continuous", "discrete"])
def test_signals_of_real_episodes_are_emitted_as_those_episodes(
    data: OfflineDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    eaq = fitted(data)
    # What is available is learned: here, everything.
    monkeypatch.setattr(HeadQueries, "availability", lambda model, x: torch.ones(*x.shape[:-1], 5, dtype=torch.bool))
    found = emitted(eaq, signals_of(eaq, data), data)
    assert found.lengths.tolist() == data.lengths.tolist()
    np.testing.assert_allclose(found.observations, data.observations, atol=1e-5)
    np.testing.assert_allclose(found.actions, data.actions, atol=1e-5)
    np.testing.assert_allclose(found.team_rewards(), data.team_rewards(), atol=1e-4)


def test_ends_before_the_limit_are_true_and_those_at_it_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    eaq = fitted(DISCRETE)
    signals, last = signals_of(eaq, DISCRETE), DISCRETE.episode_starts[1:] - 1
    early = DISCRETE.lengths < 6
    for judged in (False, True):
        answer = torch.full((len(signals),), judged)
        monkeypatch.setattr(HeadQueries, "termination", lambda model, x, answer=answer: answer[: len(x)])
        found = emitted(eaq, signals, DISCRETE)
        assert found.terminals[last].tolist() == (early | judged).tolist()
        assert (found.terminals ^ found.truncations)[last].all()
    signals[..., -1] = -1.0
    signals[:, 3, -1] = -0.8  # no clear end, and here the least unclear
    cut = emitted(eaq, signals, DISCRETE)
    assert (cut.lengths == 4).all()
    assert cut.terminals[cut.episode_starts[1:] - 1].all()


def test_without_true_ends_in_the_data_every_end_is_a_cut() -> None:
    eaq = fitted(CONTINUOUS)
    signals = signals_of(eaq, CONTINUOUS)
    signals[:, 2, -1] = 1.0  # earlier than any real episode
    found = emitted(eaq, signals, CONTINUOUS)
    assert (found.lengths == 3).all()
    assert not found.terminals.any()
    assert found.truncations.sum() == found.n_episodes


def test_padding_never_appears_in_what_is_emitted(battle: EAQ) -> None:
    signals = signals_of(battle, BATTLE)
    columns = torch.arange(signals.shape[1])
    beyond = (columns > torch.from_numpy(BATTLE.lengths)[:, None])[..., None]
    clean = emitted(battle, signals, BATTLE)
    spoilt = emitted(battle, torch.where(beyond, 0.9, signals), BATTLE)
    for name, column in clean.columns().items():
        np.testing.assert_array_equal(column, spoilt.columns()[name], err_msg=name)


def test_actions_are_the_best_of_those_predicted_to_be_available(monkeypatch: pytest.MonkeyPatch) -> None:
    eaq = fitted(DISCRETE)
    model = eaq.model_on("cpu")
    speaks = np.zeros((1, 2, 3, 5), np.float32)
    speaks[..., :] = [0.1, 0.9, 0.8, 0.3, 0.2]
    allowed = torch.ones(1, 2, 3, 5, dtype=torch.bool)
    allowed[0, 0, 1, 1] = False  # agent 1 may not take its favourite at first
    monkeypatch.setattr(HeadQueries, "availability", lambda model, x: allowed)
    chosen = model.decode_actions(model.chosen_actions(speaks, torch.zeros(1, 2, 3, 5)))
    assert chosen.tolist() == [[[1, 2, 1], [1, 1, 1]]]


def test_battles_keep_every_rule_of_the_data_model(battle: EAQ) -> None:
    found = battle.generate(BATTLE, Run(seeds=(1,), budget=Budget(amount=100)))
    found.validate()
    assert found.alive is not None
    assert not found.observations[~found.alive].any()
    assert found.states is not None
    assert BATTLE.states is not None
    assert (found.states >= BATTLE.states.min(axis=0)).all()


def test_the_global_state_can_be_part_of_the_signal() -> None:
    eaq = fitted(BATTLE, model_state=True)
    model = eaq.model_on("cpu")
    assert model.matrix.channels == 3 * (5 + 5) + 4 + 3
    assert not model.has("state")
    found = emitted(eaq, signals_of(eaq, BATTLE), BATTLE)
    assert found.states is not None
    assert BATTLE.states is not None
    np.testing.assert_allclose(found.states, BATTLE.states, atol=1e-5)
    eaq.generate(BATTLE, Run(seeds=(1,), budget=Budget(amount=20))).validate()
    with pytest.raises(UsageError, match="no global state"):
        fitted(CONTINUOUS, model_state=True)


def test_without_an_amount_there_are_copies_of_the_number_of_episodes() -> None:
    few = CONTINUOUS.take([0, 1])
    assert fitted(few, copies=2).generate(few, Run(seeds=(1,))).n_episodes == 4
    assert EAQConfig().copies == 5


def test_batches_bound_the_memory_and_the_noise_of_a_batch_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    eaq, counts = fitted(CONTINUOUS), []
    model = eaq.model_on("cpu")
    draw = EpisodeModel.sample

    def counted(model: EpisodeModel, count: int, **how: Any) -> Tensor:
        counts.append(count)
        return draw(model, count, **how)

    monkeypatch.setattr(EpisodeModel, "sample", counted)
    monkeypatch.setattr(whole_episodes, "_VALUES_AT_ONCE", 3 * model.matrix.length * model.matrix.channels + 1)
    found = eaq.generate(CONTINUOUS, Run(seeds=(1,), budget=Budget(amount=60)))
    assert max(counts) == 3
    assert found.n_steps >= 60
    assert len(np.unique(found.observations[found.row_starts[:-1]], axis=0)) == found.n_episodes


def test_a_generation_killed_after_any_batch_ends_in_the_same_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_episodes, "_EPISODES_AT_ONCE", 5)
    eaq, drawn, sample = fitted(BATTLE), [], EpisodeModel.sample

    def counted(model: EpisodeModel, count: int, **how: Any) -> Tensor:
        drawn.append(count)
        return sample(model, count, **how)

    monkeypatch.setattr(EpisodeModel, "sample", counted)

    def generated(checkpoint: Memory | None = None) -> dict[str, bytes]:
        run = Run(seeds=(1,), budget=Budget(amount=60), checkpoint=checkpoint)
        columns = eaq.generate(BATTLE, run).columns()
        told: Any = eaq.generation_told()
        return {
            **{name: column.tobytes() for name, column in columns.items()},
            "told": json.dumps([told["distributions"], told["marked_share"]]).encode(),
        }

    plain, batches = generated(), len(drawn)
    assert batches > 2
    told: Any = eaq.generation_told()
    assert told["acceptance_by_position"] == []  # every signal begins where an episode does
    for kill_at in range(1, batches + 1):
        checkpoint = Memory(kill_at)
        with pytest.raises(KilledError):
            generated(checkpoint)
        drawn.clear()
        assert generated(checkpoint) == plain
        assert len(drawn) == batches - kill_at  # none is drawn twice


def test_a_pass_that_does_not_fit_is_halved_with_the_same_result(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = fitted(CONTINUOUS).model_on("cpu")
    sampler = make_sampler("ddpm", LinearSchedule(4), 2)

    def drawn() -> Tensor:
        return model.sample(8, noise=numpy_noise(make_generator("halved"), "cpu"), sampler=sampler)

    before, predict = drawn(), EpisodeModel.predict

    def hungry(model: EpisodeModel, x: Tensor, k: Tensor) -> Tensor:
        if x.shape[1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return predict(model, x, k)

    monkeypatch.setattr(EpisodeModel, "predict", hungry)
    with caplog.at_level(logging.WARNING, "methods"):
        torch.testing.assert_close(drawn(), before, rtol=1e-5, atol=1e-5)
    assert "going on with batches of 2" in caplog.text


def test_long_episodes_of_different_lengths() -> None:
    base = sample_dataset("discrete", episodes=40).without_privileged()
    steps = np.array([1, 90, 40])
    rows = np.concatenate([np.arange(length + 1) % len(base.observations) for length in steps])
    of_step = np.concatenate([np.arange(length) % base.n_steps for length in steps])
    starts = np.concatenate([[0], np.cumsum(steps)])
    ends = np.zeros(starts[-1], np.bool_)
    ends[starts[1:] - 1] = True
    assert base.available_actions is not None
    data = OfflineDataset(
        spec=replace(base.spec, episode_limit=120),
        observations=base.observations[rows],
        actions=base.actions[of_step],
        rewards=base.rewards[of_step],
        terminals=ends,
        truncations=np.zeros_like(ends),
        episode_starts=starts,
        available_actions=np.ones_like(base.available_actions[rows]),
    )
    eaq = fitted(data)
    assert eaq.model_on("cpu").matrix.length == 96
    found = eaq.generate(data, Run(seeds=(1,), budget=Budget(amount=200)))
    assert found.lengths.max() <= 90
    again = emitted(eaq, signals_of(eaq, data), data)
    assert again.lengths.tolist() == [1, 90, 40]
    assert again.terminals[again.episode_starts[1:] - 1].all()


def test_a_diagnosis_tells_of_values_and_returns() -> None:
    eaq = fitted(CONTINUOUS)
    found = eaq.generate(CONTINUOUS, Run(seeds=(1,), budget=Budget(amount=30)))
    told = eaq.diagnosis()
    assert told["compute"]["width"] == 8
    assert told["signal"] == {"length": 8, "channels": 3 * (5 + 2) + 3}
    assert np.isfinite([told["heldout_reconstruction_loss"], told["heldout_value_gap"]]).all()
    of = told["generation"]
    assert of["sampler"] == {"name": "ddpm", "steps": 2}
    assert of["accepted"] == found.n_episodes
    spread = of["distributions"]
    assert spread["returns"]["original"][0] == pytest.approx(CONTINUOUS.returns().min())
    assert spread["returns"]["generated"][-1] == pytest.approx(found.returns().max())
    assert spread["values"]["original"][-1] == pytest.approx(
        CONTINUOUS.returns_to_go(0.99)[CONTINUOUS.episode_starts[:-1]].max()
    )


def test_lambda_moves_what_is_learned_and_the_ablation_has_none() -> None:
    assert AUGMENTERS.entry("eaq-noq").params == {"lambda_q": 0.0}
    plain, pushed = (fitted(CONTINUOUS, lambda_q=weight).state() for weight in (0.0, 0.5))
    assert any((plain[key] != pushed[key]).any() for key in plain if key.startswith("unet/"))


def test_the_sampler_of_the_protocol_wins() -> None:
    eaq = fitted(CONTINUOUS)
    budget = Budget(amount=10, episode=EpisodeBudget(sampler="ddim", sampling_steps=3))
    eaq.generate(CONTINUOUS, Run(seeds=(1,), budget=budget))
    assert eaq.diagnosis()["generation"]["sampler"] == {"name": "ddim", "steps": 3}


def test_progress_is_reported_before_every_pass_and_a_deadline_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    eaq, seen = fitted(CONTINUOUS), []
    budget = Budget(amount=20, episode=EpisodeBudget(sampler="ddim", sampling_steps=3))
    run = Run(seeds=(1,), budget=budget, progress=lambda done, total, message: seen.append((done, total)))
    monkeypatch.setattr(whole_episodes, "_REPORT_SECONDS", 0.0)
    eaq.generate(CONTINUOUS, run)
    assert seen[:4] == [(0, 20)] * 4  # at the beginning and at each of three steps
    with pytest.raises(TimeoutError):
        eaq.generate(CONTINUOUS, replace(run, deadline=0.0))


def test_weights_that_diverged_generate_nothing() -> None:
    eaq = fitted(CONTINUOUS)
    arrays = dict(eaq.state())
    arrays["unet/stem.bias"] = arrays["unet/stem.bias"] * np.nan
    eaq.load_state(arrays, CONTINUOUS.spec)
    with pytest.raises(MethodError, match="diverged"):
        eaq.generate(CONTINUOUS, Run(seeds=(1,), budget=Budget(amount=5)))


def test_nothing_can_be_generated_before_a_fit() -> None:
    with pytest.raises(UsageError, match="Call `fit`"):
        EAQ.tiny().generate(CONTINUOUS, Run(seeds=(0,), budget=Budget(amount=5)))


@pytest.mark.parametrize(
    ("params", "told"),
    [({"copies": 0}, "copies=0"), ({"q_mean": "all"}, "padded or valid"), ({"sampling_steps": 2_000}, "1 to 1000")],
)
def test_parameters_that_make_no_sense_are_refused(params: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        EAQ.from_params(params)
