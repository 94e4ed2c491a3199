"""Units of the task and of the model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from methods.diffusion.codec import Codec
from methods.diffusion.settings import SegmentSettings
from tasks.common.errors import UsageError
from tasks.datasets.offline import OfflineDataset

Make = Callable[..., SegmentSettings]
Episodes = Callable[..., OfflineDataset]


def test_real_data_survive_the_round_trip(tiny: Make, episodes: Episodes) -> None:
    data = episodes()
    codec = Codec.fit(tiny(), data, "cpu")
    x = codec.encode(data.observations)
    assert float(x.abs().max()) <= 1
    np.testing.assert_allclose(codec.decode(x), data.observations, atol=1e-4)
    np.testing.assert_allclose(codec.decode_actions(codec.encode_actions(data.actions)), data.actions, atol=1e-4)
    discrete = episodes(discrete=True)
    codec = Codec.fit(tiny(), discrete, "cpu")
    assert codec.encode_actions(discrete.actions).shape == (23, 3, 4)
    np.testing.assert_array_equal(codec.decode_actions(codec.encode_actions(discrete.actions)), discrete.actions)


def test_actions_may_be_scaled_by_their_bounds(tiny: Make, episodes: Episodes) -> None:
    data = episodes()
    codec = Codec.fit(tiny(action_normaliser="bounds"), data, "cpu")
    np.testing.assert_allclose(codec.encode_actions(data.actions), data.actions, atol=1e-6)  # the bounds are [-1, 1]


def test_a_constant_feature_is_zero_and_decodes_to_its_value(tiny: Make, episodes: Episodes) -> None:
    observations = episodes().observations.copy()
    observations[..., 1] = 7.5
    data = episodes().replace(observations=observations)
    codec = Codec.fit(tiny(), data, "cpu")
    x = codec.encode(data.observations)
    assert not x[..., 1].any()
    assert (codec.decode(x + 0.3)[..., 1] == 7.5).all()


def test_decoded_values_stay_in_the_range_of_the_data(tiny: Make, episodes: Episodes) -> None:
    data = episodes()
    for normaliser in ("cdf", "cdf_mixed", "limits"):
        codec = Codec.fit(tiny(normaliser=normaliser), data, "cpu")
        raw = codec.decode(torch.full((1, 3, 3), 5.0))
        np.testing.assert_allclose(raw[0, 0], data.observations.reshape(-1, 3).max(axis=0), rtol=1e-6)


def test_values_beyond_what_samplers_clip_to_are_refused(tiny: Make) -> None:
    with pytest.raises(UsageError, match="normaliser=standard"):
        tiny(normaliser="standard")


def test_the_state_may_follow_every_observation(tiny: Make, episodes: Episodes) -> None:
    data = episodes(discrete=True)
    assert data.states is not None
    codec = Codec.fit(tiny(append_state=True), data, "cpu")
    x = codec.encode(data.observations, data.states)
    assert codec.features == x.shape[-1] == 5
    np.testing.assert_allclose(codec.decode(x), data.observations, atol=1e-4)
    np.testing.assert_allclose(codec.decode_state(x), data.states, atol=1e-4)
    with pytest.raises(UsageError, match="needs the states"):
        codec.encode(data.observations)


@pytest.mark.parametrize(
    ("rewards", "settings", "scale", "shift"),
    [
        # Episodes of 2 and 1 steps: returns 1 + γ 3 and 2 with γ = 1/2
        ([1, 3, 2], {}, 2.5, 0),
        ([1, 3, 2], {"returns_scale": 10.0}, 10, 0),
        ([-1, -3, -2], {}, 0.5, -2.5),  # −2.5 and −2: shifted by the smallest
        ([0, 0, 0], {}, 1, 0),
        ([-1, 0, -1], {}, 1, -1),  # equal returns: no scale to speak of
    ],
)
def test_the_best_episode_is_one(
    tiny: Make, episodes: Episodes, rewards: list[float], settings: dict[str, float], scale: float, shift: float
) -> None:
    columns = np.repeat(np.array(rewards, np.float32)[:, None], 3, axis=1)
    codec = Codec.fit(tiny(gamma=0.5, **settings), episodes([2, 1]).replace(rewards=columns), "cpu")
    assert (codec.returns_scale, codec.returns_shift) == (scale, shift)
    assert float(codec.condition(shift + scale)) == 1


def test_each_agent_may_have_its_own_return(tiny: Make, episodes: Episodes) -> None:
    data = episodes([2, 1]).replace(rewards=np.array([[1, 0, 0], [2, 0, 8], [0, 0, 5]], np.float32))
    assert Codec.fit(tiny(gamma=0.5, per_agent_returns=True), data, "cpu").returns_scale == 5
    assert Codec.fit(tiny(gamma=0.5), data, "cpu").returns_scale == pytest.approx(2)  # mean: 1/3 + 0.5 · 10/3


def test_arrays_restore_a_codec(tiny: Make, episodes: Episodes) -> None:
    data = episodes()
    codec = Codec.fit(tiny(), data, "cpu")
    again = Codec.from_arrays(codec.arrays(), data.spec, "cpu", append_state=False)
    assert torch.equal(again.encode(data.observations), codec.encode(data.observations))
    assert torch.equal(again.encode_actions(data.actions), codec.encode_actions(data.actions))
    assert torch.equal(again.condition(3.0), codec.condition(3.0))
