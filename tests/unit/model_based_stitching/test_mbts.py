"""What is fitted, what is returned, and what happens with bad input."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmark.checks import sample_dataset
from benchmark.checks.check import EveryCheckpoint
from benchmark.checks.returned import check_generated
from methods.augmenters.mbts import MBTS
from methods.base import Budget, Run, TransitionBudget, UnsupportedError
from methods.journal import Journal
from methods.model_based_stitching.fitting import calibrated_radius, density_losses
from methods.model_based_stitching.model import StitchingModel
from methods.model_based_stitching.steps import Scaling, StepTensors, unit_actions
from methods.model_based_stitching.training import EarlyStop, OneAdam, Stage, train
from methods.model_based_stitching.values import SlowTwin, TwinValues, twin_value_losses
from methods.networks.heads import stretched
from methods.networks.stacked import StackedMLP
from methods.networks.transition_density import TransitionDensity
from tasks.common.errors import DataError, UsageError
from tasks.datasets.offline import OfflineDataset
from tasks.spec import ActionSpec


def run_of(seed: int = 3, amount: int | None = 60, **budget: Any) -> Run:
    return Run(seeds=(seed,), budget=Budget(amount=amount, transition=TransitionBudget(**budget)))


def generated(data: OfflineDataset, amount: int | None = 60, **params: Any) -> tuple[OfflineDataset, MBTS]:
    augmenter = MBTS.tiny(params)
    augmenter.fit(data, run_of(amount=amount))
    returned = augmenter.generate(data, run_of(amount=amount))
    return check_generated(returned, data, data.spec, "mbts"), augmenter


def rows_of(returned: OfflineDataset, data: OfflineDataset) -> NDArray[np.int64]:
    """(S + E,) the row of the data that each returned row is."""
    known = {row.tobytes(): i for i, row in enumerate(data.observations)}
    return np.array([known[row.tobytes()] for row in returned.observations])


# -- what is returned --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["continuous", "discrete", "states-and-deaths", "one-agent"])
def test_every_returned_row_is_real_in_all_its_columns(shape: str) -> None:
    data = sample_dataset(shape).without_privileged()
    apart = np.arange(len(data.observations), dtype=np.float32)[:, None, None]
    data = data.replace(observations=data.observations + np.float32(1e-4) * apart)  # no two rows alike
    returned, _ = generated(data, neighbours=2)
    rows = rows_of(returned, data)
    for name in ("states", "alive", "available_actions"):
        if getattr(data, name) is not None:
            np.testing.assert_array_equal(getattr(returned, name), getattr(data, name)[rows])
    real = {(int(r), int(r) + 1) for r in data.row_of_step()}
    at = returned.row_of_step()
    pairs = list(zip(rows[at].tolist(), rows[at + 1].tolist(), strict=True))
    assert any(pair in real for pair in pairs)
    assert not all(pair in real for pair in pairs)
    kept = [s for s, pair in enumerate(pairs) if pair in real]
    source = {row: step for step, row in enumerate(data.row_of_step().tolist())}
    same = [np.array_equal(returned.actions[s], data.actions[source[pairs[s][0]]]) for s in kept]
    assert np.mean(same) > 0.9  # a jump may by chance lead where the data went
    if returned.won is not None and data.won is not None:
        ends = {int(r): bool(w) for r, w in zip(data.row_starts[1:] - 1, data.won, strict=True)}
        last = rows[returned.row_starts[1:] - 1]
        assert returned.won.tolist() == [ends.get(int(r), False) for r in last]


def test_every_returned_episode_beats_the_worst_by_the_margin_and_differs_from_all() -> None:
    data = sample_dataset("continuous").without_privileged()
    returned, augmenter = generated(data, passes=1, fresh_copies=0, amount=12)
    told = augmenter.diagnosis()["generation"]
    assert told["passes"][0]["episodes_accepted"] == told["changed_episodes"] > 0
    rows, first = rows_of(returned, data), data.row_starts
    for e in range(returned.n_episodes):
        (origin,) = np.flatnonzero(first == rows[returned.row_starts[e]])  # walks begin where an episode began
        old, new = data.returns()[origin], returned.returns()[e]
        assert new > old + 0.1 * abs(old)
        own = rows[returned.row_starts[e] : returned.row_starts[e + 1]]
        assert own.tolist() != list(range(first[origin], first[origin + 1]))


def test_a_larger_amount_draws_actions_again_and_then_repeats() -> None:
    data = sample_dataset("continuous").without_privileged()
    few, augmenter = generated(data, amount=400, fresh_copies=1)
    told = augmenter.diagnosis()["generation"]
    assert told["fresh_copies"] == 1
    assert told["repeated_episodes"] > 0
    assert 400 <= few.n_steps < 400 + data.spec.episode_limit
    many, augmenter = generated(data, amount=400, fresh_copies=500)
    assert augmenter.diagnosis()["generation"]["repeated_episodes"] == 0
    assert len(np.unique(many.actions.reshape(many.n_steps, -1), axis=0)) > len(
        np.unique(few.actions.reshape(few.n_steps, -1), axis=0)
    )


def test_without_an_amount_as_many_transitions_as_the_data_have() -> None:
    data = sample_dataset("discrete").without_privileged()
    returned, _ = generated(data, amount=None)
    assert data.n_steps <= returned.n_steps < data.n_steps + data.spec.episode_limit


def test_bounds_of_actions_other_than_one_are_kept() -> None:
    data = sample_dataset("continuous").without_privileged()
    spec = replace(data.spec, action=ActionSpec(kind="continuous", size=2, low=-0.4, high=0.4))
    data = replace(data, spec=spec, actions=data.actions * np.float32(0.4))
    generated(data)
    raw = torch.linspace(-0.4, 0.4, 9)
    torch.testing.assert_close(stretched(unit_actions(raw, spec.action), spec.action), raw)


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_a_radius_that_admits_nothing_says_so() -> None:
    data = sample_dataset("continuous").without_privileged()
    with pytest.raises(UnsupportedError, match=r"radius 0 .* 0 neighbours .*No row has a neighbour: raise `radius`"):
        generated(data, radius=0.0)


def test_a_margin_that_nothing_passes_says_so() -> None:
    data = sample_dataset("continuous").without_privileged()
    with pytest.raises(UnsupportedError, match=r"episodes jumped, none was accepted. .* lower `accept_margin`"):
        generated(data, accept_margin=1e6)


def test_a_radius_that_admits_everything_is_bounded_by_the_neighbours() -> None:
    data = sample_dataset("continuous").without_privileged()
    _, augmenter = generated(data, radius=float("inf"), neighbours=5)
    told = augmenter.diagnosis()["generation"]
    assert told["mean_neighbours"] == 5
    assert told["rows_at_the_neighbour_limit"] == 1


def test_a_single_transition_is_no_place_to_jump_from() -> None:
    data = sample_dataset("one-step-episodes", episodes=1).without_privileged()
    with pytest.raises(UnsupportedError, match="no episode of sample/one-step-episodes could be made better"):
        generated(data)


def test_values_that_are_not_finite_are_refused() -> None:
    data = sample_dataset("continuous").without_privileged()
    observations = data.observations.copy()
    observations[3, 0, 0] = np.nan
    with pytest.raises(DataError, match=r"1 of 84 rows of 'observations' .*first row 3"):
        MBTS.tiny().fit(data.replace(observations=observations), run_of())


def test_observations_that_never_change_have_nothing_to_tell() -> None:
    data = sample_dataset("continuous").without_privileged()
    still = data.replace(observations=np.ones_like(data.observations))
    augmenter = MBTS.tiny()
    augmenter.fit(still, run_of())
    assert augmenter.diagnosis()["features"] == 1
    with pytest.raises(UnsupportedError):
        augmenter.generate(still, run_of())


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"radius": -1.0}, "radius=-1.0"),
        ({"radius": "auto"}, "radius=auto"),
        ({"passes": 0}, "passes=0"),
        ({"neighbours": 0}, "neighbours=0"),
        ({"members": 2, "kept_members": 3}, "kept_members=3 of members=2"),
        ({"gamma": 1.0}, "gamma=1.0"),
        ({"tau": 0.0}, "tau=0.0"),
        ({"accept_margin": -0.1}, "accept_margin=-0.1"),
        ({"inverse_hidden": 0}, "inverse_hidden=0"),
        ({"value_learning_rate": 0.0}, "value_learning_rate=0.0"),
    ],
)
def test_values_outside_their_range_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        MBTS.from_params(params)


def test_generating_before_fitting_is_an_error() -> None:
    with pytest.raises(UsageError, match="nothing was fitted"):
        MBTS.tiny().generate(sample_dataset("continuous"), run_of())


# -- what is fitted ----------------------------------------------------------------------------------------------------


def test_the_best_members_by_held_out_density_are_kept() -> None:
    data = sample_dataset("continuous").without_privileged()
    augmenter = MBTS.tiny({"members": 5, "kept_members": 3})
    augmenter.fit(data, run_of())
    told = augmenter.diagnosis()
    assert told["kept_members"] == sorted(np.argsort(told["density_heldout_nll"])[:3].tolist())
    assert augmenter.state()["density/net.layers.0.weight"].shape[0] == 3


def test_the_protocol_fixes_sizes_and_updates() -> None:
    data = sample_dataset("continuous").without_privileged()
    augmenter = MBTS.tiny()
    run = run_of(width=5, updates=4, batch_size=6, learning_rate=1e-2)
    augmenter.fit(data, run)
    assert augmenter.diagnosis()["density_updates"] == 4
    widths = {name: augmenter.state()[name].shape[-1] for name in augmenter.state() if name.endswith("layers.0.weight")}
    assert set(widths.values()) == {5}
    settings = augmenter._settings(augmenter._models[0], run.budget.transition)
    assert (settings.value_hidden, settings.value_updates, settings.value_batch_size) == (5, 4, 6)
    assert settings.value_learning_rate == 1e-2


def test_a_fit_goes_on_from_every_checkpoint_as_if_undisturbed() -> None:
    data, seeds = sample_dataset("discrete").without_privileged(), (3, 4)
    kept = EveryCheckpoint()

    def fitted(checkpoint: EveryCheckpoint) -> list[MBTS]:
        members = [MBTS.tiny({"density_epochs": 12, "inverse_updates": 40}) for _ in seeds]
        MBTS.fit_together(members, data, replace(run_of(), seeds=seeds, checkpoint=checkpoint))
        return members

    undisturbed = fitted(kept)
    assert len(kept.states) >= 5
    for stored in kept.states:
        for first, second in zip(undisturbed, fitted(EveryCheckpoint(stored)), strict=True):
            for name, array in first.state().items():
                np.testing.assert_array_equal(array, second.state()[name], err_msg=name)


@pytest.mark.parametrize("scope", ["joint", "per_agent"])
def test_a_generation_goes_on_from_every_checkpoint_as_if_undisturbed(
    scope: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, augmenter = sample_dataset("continuous").without_privileged(), MBTS.tiny({"scope": scope})
    augmenter.fit(data, run_of())
    steps, step, kept = [], OneAdam.step, EveryCheckpoint()

    def counted(descent: OneAdam, *given: Any) -> torch.Tensor:
        steps.append(1)
        return step(descent, *given)

    monkeypatch.setattr(OneAdam, "step", counted)
    undisturbed = augmenter.generate(data, replace(run_of(), checkpoint=kept)).columns()
    all_steps, fewest = len(steps), len(steps)
    assert len(kept.states) >= 2
    for stored in kept.states:
        steps.clear()
        again = augmenter.generate(data, replace(run_of(), checkpoint=EveryCheckpoint(stored))).columns()
        for name, array in again.items():
            np.testing.assert_array_equal(array, undisturbed[name], err_msg=name)
        assert len(steps) < all_steps
        fewest = min(fewest, len(steps))
    assert fewest == 0  # the values of all passes were there


def test_the_radius_is_calibrated_on_other_episodes() -> None:
    data = sample_dataset("one-agent", episodes=2).without_privileged()
    observations = np.zeros_like(data.observations)  # (14, 1, 5)
    observations[:7, 0, 0] = np.arange(7)  # an episode of steps of 1
    observations[7:, 0, 0] = 100 + np.arange(7)
    data = data.replace(observations=observations)
    scaling = Scaling.fit(data)
    assert scaling.kept.tolist() == [0]
    std = observations[:, 0, 0].std()
    distances = np.sort(np.concatenate([94 + np.arange(7), 94 + np.arange(7)])) / std
    radius = calibrated_radius(data, scaling, np.random.default_rng(0))
    np.testing.assert_allclose(radius, 3 * np.quantile(distances, 0.01), rtol=1e-5)
    observations[7] = observations[0]  # both episodes start alike, which tells nothing of the scale
    alike = calibrated_radius(data.replace(observations=observations), scaling, np.random.default_rng(0))
    assert alike > 0
    zeros = data.replace(observations=np.zeros_like(observations))
    assert calibrated_radius(zeros, scaling, np.random.default_rng(0)) == 0.0


def test_the_density_loss_against_a_plain_loop() -> None:
    data = sample_dataset("continuous").without_privileged()
    scaling = Scaling.fit(data)
    steps = StepTensors.of(data, scaling, "cpu")
    module = TransitionDensity(15, 4, [np.random.default_rng(0)], members=2)
    index = torch.tensor([[0, 7, 71], [5, 6, 30]])
    found = density_losses(module, steps, index)
    flat = data.observations.reshape(len(data.observations), -1).astype(np.float64)
    z = (flat - flat.mean(axis=0)) / flat.std(axis=0)
    at = data.row_of_step()
    changes = z[at + 1] - z[at]
    changes = (changes - changes.mean(axis=0)) / changes.std(axis=0)
    for g in range(2):
        total = []
        for step in index[g].tolist():
            x = torch.tensor(z[at[step]], dtype=torch.float32)[None, None].expand(2, 1, 15)
            mean, log_std = (t[g, 0].detach().double().numpy() for t in module(x))
            density = (
                np.exp(-0.5 * ((changes[step] - mean) / np.exp(log_std)) ** 2) / np.sqrt(2 * np.pi) / np.exp(log_std)
            )
            total.append(-np.log(density).sum())
        np.testing.assert_allclose(found[g].item(), np.mean(total), rtol=1e-4)


def test_the_value_loss_and_the_slow_copy_by_hand() -> None:
    values = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])  # (G = 1, 2, B = 2)
    target = torch.tensor([[2.0, 2.0]])
    # V¹: mean of ((−½)², 0); V²: of ((½)², 1²)
    torch.testing.assert_close(twin_value_losses(values, target, 2.0), torch.tensor([0.125 + 0.625]))
    module = TwinValues(2, 3, [np.random.default_rng(0)], 5.0, 2.0)
    slow = TwinValues(2, 3, [np.random.default_rng(1)], 5.0, 2.0)
    watcher = SlowTwin(module, slow, 0.25)
    before = [p.detach().clone() for p in module.parameters()]
    with torch.no_grad():
        for p in module.parameters():
            p += 1.0
    assert not watcher.after(1)
    for p, old in zip(slow.parameters(), before, strict=True):
        torch.testing.assert_close(p, old + 0.25)
    assert module(torch.zeros(1, 4, 2)).shape == (1, 2, 4)


def test_a_network_whose_patience_is_over_stays_at_its_best() -> None:
    module = StackedMLP((1, 1), [np.random.default_rng(0)], 2)
    judged = iter([[3.0, 5.0], [4.0, 4.0], [9.0, 6.0], [1.0, 3.0], [1.0, 2.0]])
    stop = EarlyStop(module, lambda: torch.tensor(next(judged)), every=10, patience=2, last=45)
    done = []
    for update in range(1, 46):
        with torch.no_grad():
            module.layers[0].bias.fill_(float(update))
        done.append(stop.after(update))
    assert stop.loss.tolist() == [3.0, 2.0]  # the first one's patience ended at update 30, before its loss of 1
    assert stop.best["layers.0.bias"][:, 0, 0].tolist() == [10.0, 45.0]
    assert not any(done)


def test_training_learns_and_stops_when_it_is_told_to() -> None:
    module = StackedMLP((1, 8, 1), [np.random.default_rng(0)])
    x = torch.linspace(-1, 1, 64)

    def losses(index: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        return (module(x[index][..., None])[..., 0] - x[index] ** 2).square().mean(dim=1)

    stage = Stage(
        name="test",
        module=module,
        descent=OneAdam(module, losses, 1e-2),
        generators=[np.random.Generator(np.random.Philox(0))],
        steps=[np.arange(64)],
        updates=300,
        batch_size=32,
    )
    trained = train(stage, Journal(run_of(), 300), 0, "cpu")
    assert trained.updates == 300
    assert trained.loss[0] < 0.01
    judge = iter([2.0, 1.0, 3.0, 4.0])
    watcher = EarlyStop(module, lambda: torch.tensor([next(judge)]), every=5, patience=2, last=300)
    stopped = train(replace(stage, watcher=watcher), Journal(run_of(), 300), 0, "cpu")
    assert stopped.updates == 20


def test_rewards_stay_within_what_the_data_pay() -> None:
    data = sample_dataset("continuous").without_privileged()
    augmenter = MBTS.tiny()
    augmenter.fit(data, run_of())
    arrays = {name: np.array(array) for name, array in augmenter.state().items()}
    arrays["reward/layers.2.bias"] = np.full_like(arrays["reward/layers.2.bias"], 1e6)
    model = StitchingModel.from_arrays(arrays, data.spec, "cpu")
    steps = StepTensors.of(data, model.scaling, "cpu")
    z = np.zeros((2, model.inverse.latent), dtype=np.float32)
    _, rewards = model.actions_and_rewards(steps, np.array([0, 1]), np.array([1, 9]), z)
    np.testing.assert_allclose(rewards, data.team_rewards().max(), rtol=1e-6)
