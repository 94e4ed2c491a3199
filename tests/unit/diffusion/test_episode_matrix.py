"""Episodes as signals: there and back, padding, ends."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.checks import sample_dataset
from methods.diffusion.episodes.matrix import EpisodeMatrix, EpisodeSignals, Moments
from tasks.common.errors import UsageError
from tasks.datasets.offline import OfflineDataset

Episodes = Callable[..., OfflineDataset]


def encoded(data: OfflineDataset, *, gamma: float = 0.99, with_state: bool = False) -> EpisodeSignals:
    matrix, rows = EpisodeMatrix.fit(data, gamma=gamma, multiple=8, with_state=with_state, device="cpu")
    return EpisodeSignals(data, matrix, rows)


def require_identity(data: OfflineDataset, with_state: bool = False) -> None:
    """Every episode comes back from its signal as it was."""
    of = encoded(data, with_state=with_state)
    signals = of.signals(torch.arange(data.n_episodes))
    found = of.matrix.decode(signals)
    assert float(signals.abs().max()) <= 1
    assert found.lengths.tolist() == data.lengths.tolist()
    assert found.marked.all()
    team, to_go = data.team_rewards(), data.returns_to_go(0.99)
    for e in range(data.n_episodes):
        steps = slice(int(data.episode_starts[e]), int(data.episode_starts[e + 1]))
        rows = slice(int(data.row_starts[e]), int(data.row_starts[e]) + int(data.lengths[e]) + 1)
        own = slice(int(data.lengths[e]))
        np.testing.assert_allclose(found.observations[e, : data.lengths[e] + 1], data.observations[rows], atol=1e-5)
        np.testing.assert_allclose(found.rewards[e, own], team[steps], atol=1e-5)
        np.testing.assert_allclose(found.returns_to_go[e, own], to_go[steps], atol=1e-4)
        if data.spec.action.discrete:
            assert found.actions[e, own].argmax(axis=-1).tolist() == data.actions[steps].tolist()
            np.testing.assert_allclose(found.actions[e, own].sum(axis=-1), 1, atol=1e-6)
        else:
            np.testing.assert_allclose(found.actions[e, own], data.actions[steps], atol=1e-5)
        if with_state:
            assert found.states is not None
            assert data.states is not None
            np.testing.assert_allclose(found.states[e, : data.lengths[e] + 1], data.states[rows], atol=1e-5)


@pytest.mark.parametrize("shape", ["continuous", "discrete", "states-and-deaths", "one-agent", "one-step-episodes"])
def test_a_real_episode_comes_back_as_it_was(shape: str) -> None:
    require_identity(sample_dataset(shape), with_state=shape == "states-and-deaths")


@given(lengths=st.lists(st.integers(1, 10), min_size=1, max_size=5), discrete=st.booleans())
@settings(max_examples=20, deadline=None)
def test_episodes_of_any_lengths_come_back(lengths: list[int], discrete: bool) -> None:
    base = sample_dataset("discrete" if discrete else "continuous", episodes=12)
    chosen = [int(np.argmin(np.abs(base.lengths - length))) for length in lengths]
    require_identity(base.take(chosen))


def test_the_channels_stand_in_the_papers_order(episodes: Episodes) -> None:
    data = episodes((3, 5), discrete=True)
    of = encoded(data, gamma=0.5)
    n, d, a = 3, 3, 4
    assert of.matrix.channels == n * (d + a) + 3
    assert of.matrix.length == 8  # 5 steps and the last row, 6, rounded up
    assert encoded(episodes((3, 8), discrete=True)).matrix.length == 16
    raw = of.matrix._limits.decode(of.signals(torch.tensor([0]))[0]).numpy()  # (L, F)
    reward, to_go = data.team_rewards()[:3], data.returns_to_go(0.5)[:3]
    for t in range(3):
        for i in range(n):
            block = raw[t, i * (d + a) : (i + 1) * (d + a)]
            np.testing.assert_allclose(block[:d], data.observations[t, i], atol=1e-5)
            np.testing.assert_allclose(block[d:], np.eye(a)[data.actions[t, i]], atol=1e-6)
        np.testing.assert_allclose(raw[t, -3:], [reward[t], to_go[t], t == 2], atol=1e-5)
    np.testing.assert_allclose(to_go[1], reward[1] + 0.5 * reward[2], rtol=1e-5)


def test_columns_after_the_end_are_zero_in_the_tasks_units(episodes: Episodes) -> None:
    of = encoded(episodes((3, 7), discrete=True))
    raw = of.matrix._limits.decode(of.signals(torch.tensor([0]))[0]).numpy()
    np.testing.assert_allclose(raw[4:], 0, atol=1e-6)  # rewards and observations have both signs here
    assert of.signals(torch.tensor([0]))[0, 4:].eq(of.matrix.padding).all()
    # The last observation is real; nothing is done, paid or ended there.
    np.testing.assert_allclose(raw[3, -3:], 0, atol=1e-6)
    assert np.abs(raw[3, :3]).sum() > 0


def test_padding_stays_within_the_range_of_a_channel(episodes: Episodes) -> None:
    data = episodes((3, 7))
    far = data.replace(rewards=data.rewards * 0.01 + 5)
    of = encoded(far)
    signals = of.signals(torch.tensor([0]))
    assert signals[0, 5, -3] == -1  # 0 lies below all rewards
    assert float(signals.abs().max()) <= 1


def test_a_signal_is_cut_at_its_first_clear_end_or_where_it_comes_closest(episodes: Episodes) -> None:
    data = episodes((3, 7), discrete=True)
    of = encoded(data)
    signals = of.signals(torch.tensor([1, 1, 1]))
    signals[..., -1] = -1.0  # no end
    signals[0, [2, 4], -1] = torch.tensor([0.2, 0.9])  # 0.6 and 0.95 in the channel's units: the first of them
    signals[1, 7, -1] = 1.0  # behind the last step that an episode can have
    signals[1, 5, -1] = -0.9
    signals[2, [1, 3], -1] = torch.tensor([-0.2, -0.1])  # 0.4 and 0.45: the larger one
    found = of.matrix.decode(signals)
    assert found.lengths.tolist() == [3, 6, 4]
    assert found.marked.tolist() == [True, False, False]


def test_q_is_averaged_over_all_steps_or_an_episodes_own(episodes: Episodes) -> None:
    of = encoded(episodes((3, 7)))
    chosen = torch.tensor([[0], [1]])
    assert of.steps(chosen, own=True).sum(dim=-1).tolist() == [[3], [7]]
    assert of.steps(chosen, own=False).sum(dim=-1).tolist() == [[7], [7]]


def test_a_codec_is_restored(episodes: Episodes) -> None:
    of = encoded(episodes((3, 7), discrete=True), with_state=True)
    again = EpisodeMatrix.from_arrays(of.matrix.arrays(), of.matrix.spec, "cpu")
    assert (again.length, again.channels, again.longest, again.with_state) == (8, 26, 7, True)
    signals = of.signals(torch.arange(2))
    first, second = of.matrix.decode(signals), again.decode(signals)
    np.testing.assert_array_equal(first.observations, second.observations)
    assert torch.equal(of.matrix.padding, again.padding)
    assert torch.equal(of.matrix.moments.mean, again.moments.mean)
    assert torch.equal(of.matrix.moments.deviation, again.moments.deviation)


@given(lengths=st.lists(st.integers(1, 10), min_size=1, max_size=5))
@settings(max_examples=20, deadline=None)
def test_the_moments_are_those_of_every_entry_padding_included(lengths: list[int]) -> None:
    base = sample_dataset("discrete", episodes=12)
    of = encoded(base.take([int(np.argmin(np.abs(base.lengths - length))) for length in lengths]))
    signals, moments = of.signals(torch.arange(len(lengths))), of.matrix.moments
    assert moments.mean.shape == signals.shape[1:]
    torch.testing.assert_close(moments.mean, signals.mean(dim=0), rtol=1e-5, atol=1e-6)
    deviation = signals.double().std(dim=0, correction=0).float()
    torch.testing.assert_close(moments.deviation, deviation.clamp(min=0.02), rtol=1e-4, atol=1e-6)


def test_moments_by_hand(episodes: Episodes) -> None:
    data = episodes((1, 2))
    rows = torch.tensor([[0.5], [-0.5], [1.0], [0.0], [0.8]])  # two and three of them, the last ones of no step
    moments = Moments.of(rows, data, torch.tensor([0.2]), 4)
    torch.testing.assert_close(moments.mean[:, 0], torch.tensor([0.75, -0.25, 0.5, 0.2]))
    torch.testing.assert_close(moments.deviation[:, 0], torch.tensor([0.25, 0.25, 0.3, 0.02]))


def test_an_entry_that_never_varies_can_still_be_corrected(episodes: Episodes) -> None:
    data = episodes((3, 7))
    moments = encoded(data.replace(rewards=np.zeros_like(data.rewards))).matrix.moments
    assert moments.deviation[:, -3].eq(torch.tensor(0.02)).all()


def test_a_state_that_is_not_there_is_refused(episodes: Episodes) -> None:
    with pytest.raises(UsageError, match="no global state"):
        encoded(episodes(), with_state=True)
