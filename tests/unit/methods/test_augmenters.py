from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from benchmark.checks import sample_dataset
from methods.augmenters import AUGMENTERS
from methods.augmenters.noise import Noise, NoiseConfig
from methods.augmenters.rad import RAD, RADConfig
from methods.base import Budget, Run, UnsupportedError
from tasks.common.errors import UsageError
from tasks.common.selector import Scalar
from tasks.datasets.offline import OfflineDataset, concatenate


def generate(name: str, data: OfflineDataset, amount: int | None = None, **params: Scalar) -> OfflineDataset:
    entry = AUGMENTERS.entry(name)
    augmenter = AUGMENTERS.load(name).from_params({**entry.params, **params})
    run = Run(seeds=(3,), budget=Budget(amount=amount), extra_data=sample_dataset("continuous", seed=1))
    augmenter.fit(data, run)
    return augmenter.generate(data, run)


def assert_equal(first: OfflineDataset, second: OfflineDataset) -> None:
    assert first.columns().keys() == second.columns().keys()
    for name, column in first.columns().items():
        np.testing.assert_array_equal(column, getattr(second, name), err_msg=name)


DATA = sample_dataset("continuous", episodes=20).without_privileged()
SMAC_LIKE = sample_dataset("states-and-deaths", episodes=40).without_privileged()


def test_original_mixes_to_the_input_itself() -> None:
    assert_equal(concatenate([DATA, generate("original", DATA, amount=500)]), DATA)


def test_duplicate_is_the_data_once_more() -> None:
    assert_equal(generate("duplicate", DATA), DATA)
    assert_equal(generate("duplicate", DATA, amount=2 * DATA.n_steps), DATA.repeat(2))


def test_more_real_data_returns_only_new_episodes() -> None:
    extra = sample_dataset("continuous", seed=1).without_privileged()
    assert_equal(generate("more-real-data", DATA), extra)
    drawn = generate("more-real-data", DATA, amount=30)
    known = {episode["observations"].tobytes() for episode in extra.episodes()}
    chosen = {episode["observations"].tobytes() for episode in drawn.episodes()}
    assert chosen < known
    assert len(chosen) == drawn.n_episodes == 5
    assert drawn.behaviour is None


def test_more_real_data_says_what_is_missing() -> None:
    with pytest.raises(UnsupportedError, match="only 72 more real"):
        generate("more-real-data", DATA, amount=73)
    augmenter = AUGMENTERS.load("more-real-data")()
    with pytest.raises(UsageError, match="extra_data"):
        augmenter.generate(DATA, Run(seeds=(0,)))


# -- RAD --------------------------------------------------------------------------------------------------------------


def rad_factors(**params: Scalar) -> tuple[np.ndarray[Any, Any], OfflineDataset, OfflineDataset]:
    """(S + E, N, D) z = s' / s, the output, and the copies it came from."""
    out = generate("rad-s", SMAC_LIKE, **params)
    copies = SMAC_LIKE.repeat(5)
    with np.errstate(invalid="ignore", divide="ignore"):
        return out.observations / copies.observations, out, copies


def test_rad_rescales_observations_and_states_and_nothing_else() -> None:
    _, out, copies = rad_factors()
    for name in set(copies.columns()) - {"observations", "states"}:
        np.testing.assert_array_equal(getattr(out, name), getattr(copies, name), err_msg=name)
    assert out.states is not None
    assert copies.states is not None
    assert not np.array_equal(out.states, copies.states)
    assert generate("rad-s", SMAC_LIKE, scale_state=False).states.tobytes() == copies.states.tobytes()  # type: ignore[union-attr]


def test_rad_with_equal_bounds_of_one_is_the_identity() -> None:
    assert_equal(generate("rad-m", SMAC_LIKE, low=1.0, high=1.0, copies=1), SMAC_LIKE)


def test_rad_keeps_zeros_so_that_dead_agents_survive() -> None:
    _, out, copies = rad_factors(per_dimension=True)
    assert (copies.observations == 0).any()
    assert (out.observations[copies.observations == 0] == 0).all()


def test_rad_factors_fill_the_interval_and_stay_in_it() -> None:
    z = rad_factors(per_dimension=True)[0]
    z = z[np.isfinite(z)]
    assert z.min() >= 0.8 - 1e-6
    assert z.max() <= 1.2 + 1e-6
    assert abs(z.mean() - 1.0) < 0.005  # U[0.8, 1.2]: mean 1, std 0.4 / sqrt(12) = 0.1155
    assert abs(z.std() - 0.1155) < 0.002


def spread(z: np.ndarray[Any, Any], axis: int) -> float:
    """Largest spread of finite factors along an axis: 0 where they are shared."""
    return float(np.nan_to_num(np.nanmax(z, axis=axis) - np.nanmin(z, axis=axis)).max())


@pytest.mark.filterwarnings("ignore:All-NaN")
def test_rad_draws_as_its_switches_say() -> None:
    tolerance = 1e-5
    z = rad_factors()[0]
    assert spread(z, 2) < tolerance < spread(z, 1)  # RAD-s: one a row and agent
    z = rad_factors(per_agent=False)[0]
    assert spread(z, 2) < tolerance
    assert spread(z, 1) < tolerance < spread(z, 0)
    z = rad_factors(per_dimension=True)[0]
    assert spread(z, 2) > 0.1
    z, out, _ = rad_factors(granularity="episode")
    for start, stop in zip(out.row_starts[:-1], out.row_starts[1:], strict=True):
        assert spread(z[start:stop], 0) < tolerance
    assert spread(z, 0) > 0.1


def test_rad_gives_the_state_a_factor_of_its_own() -> None:
    z, out, copies = rad_factors()
    assert out.states is not None
    assert copies.states is not None
    of_state = out.states / copies.states  # (S + E, K)
    assert spread(of_state, 1) < 1e-5  # RAD-s: one a row
    assert 0.8 - 1e-6 <= of_state.min() < of_state.max() <= 1.2 + 1e-6
    living = np.isfinite(z[:, 0]).any(axis=1)
    of_agent = np.nanmean(z[living, 0], axis=1)  # (rows,)
    assert abs(np.corrcoef(of_agent, of_state[living, 0])[0, 1]) < 0.1
    assert not np.isclose(of_agent[0], of_state[0, 0], atol=1e-4)  # nor the same stream, read at another pace
    by_feature = generate("rad-m", SMAC_LIKE)
    assert by_feature.states is not None
    assert spread(by_feature.states / copies.states, 1) > 0.1


def test_rad_leaves_agent_ids_alone() -> None:
    names = ("agent_id_0", "agent_id_1", "agent_id_2", "x", "y")
    spec = DATA.spec
    named = DATA.replace()
    object.__setattr__(named, "spec", type(spec)(**{**_fields(spec), "observation_features": names}))
    out = generate("rad-m", named, copies=1)
    np.testing.assert_array_equal(out.observations[..., :3], named.observations[..., :3])
    assert not np.array_equal(out.observations[..., 3:], named.observations[..., 3:])
    scaled = generate("rad-m", named, copies=1, skip_agent_id=False)
    assert not np.array_equal(scaled.observations[..., :3], named.observations[..., :3])


def _fields(spec: Any) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in spec.__slots__}


# -- noise ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("emit", ["episodes", "transitions"])
@pytest.mark.parametrize("data", [DATA, SMAC_LIKE], ids=["continuous", "discrete"])
def test_noise_of_sigma_zero_reproduces_sampled_rows(emit: str, data: OfflineDataset) -> None:
    out = generate("noise", data, amount=200, sigma=0.0, emit=emit)
    known = {row.tobytes() for row in data.observations}
    assert all(row.tobytes() in known for row in out.observations)
    steps = {a.tobytes() + r.tobytes() for a, r in zip(data.actions, data.rewards, strict=True)}
    assert all(a.tobytes() + r.tobytes() in steps for a, r in zip(out.actions, out.rewards, strict=True))
    assert set(out.lengths.tolist()) == ({1} if emit == "transitions" else set(data.lengths.tolist()))


def test_noise_has_the_size_that_it_claims() -> None:
    """The std of (x' − x) / std is σ within 2% on 1e5 rows."""
    data = sample_dataset("continuous", episodes=2_000)
    scales = np.array([1, 10, 0.1, 5, 100], dtype=np.float32)
    data = data.replace(observations=data.observations * scales)
    method = Noise(NoiseConfig(sigma=0.05))
    run = Run(seeds=(0,), budget=Budget(amount=10 * data.n_steps))
    out = method.generate(data, run)
    source = Noise(NoiseConfig(sigma=0.0)).generate(data, run)  # the same seed draws the same episodes
    relative = (out.observations - source.observations) / data.observations.std(axis=0)
    assert len(relative) > 1e5
    np.testing.assert_allclose(relative.std(axis=0), 0.05, rtol=0.02)
    np.testing.assert_allclose(relative.mean(axis=0), 0.0, atol=0.001)
    np.testing.assert_array_equal(out.rewards, source.rewards)
    assert np.abs(out.actions).max() <= 1.0
    moved = (out.actions - source.actions)[np.abs(source.actions) < 0.7]  # no clipping this far inside
    np.testing.assert_allclose(moved.std(), 0.05 * data.actions.std(), rtol=0.05)


def test_noise_keeps_dead_agents_at_zero_and_respects_masks_when_bits_flip() -> None:
    out = generate("noise", SMAC_LIKE, amount=2_000, sigma=2.0)
    out.validate()  # every action is available
    assert out.alive is not None
    assert not out.alive.all()
    assert (out.observations[~out.alive] == 0).all()
    source = generate("noise", SMAC_LIKE, amount=2_000, sigma=0.0)
    changed = float((out.actions != source.actions).mean())
    assert 0.2 < changed < 0.9
    quiet = generate("noise", SMAC_LIKE, amount=2_000)
    np.testing.assert_array_equal(quiet.actions, source.actions)  # 5% of a bit's std flips nothing
    kept = generate("noise", SMAC_LIKE, amount=2_000, sigma=2.0, noise_actions=False)
    np.testing.assert_array_equal(kept.actions, source.actions)


def test_the_variant_of_s4rl_differs_in_sigma_alone() -> None:
    assert AUGMENTERS.entry("noise-s4rl").params == {"sigma": 3e-4}
    assert NoiseConfig().sigma == 0.05


# -- configs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RADConfig(low=1.3), "low no larger than high"),
        (lambda: RADConfig(high=float("nan")), "finite"),
        (lambda: RADConfig(copies=0), "1 or more"),
        (lambda: RADConfig(granularity="row"), "step or episode"),
        (lambda: NoiseConfig(sigma=-1.0), "0 or more"),
        (lambda: NoiseConfig(emit="rows"), "episodes or transitions"),
        (lambda: RAD.from_params({"lo": 0.5}), "no parameter 'lo'"),
        (lambda: RAD.from_params({"copies": "five"}), "expected int"),
    ],
)
def test_a_wrong_value_is_refused_with_what_was_expected(build: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build()
