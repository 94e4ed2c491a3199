"""Tokens of transitions: where each part stands, there and back, ends, states, and how they are normalised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmark.checks import sample_dataset
from benchmark.checks.sample_data import SHAPES, sample_spec
from methods.base import UnsupportedError
from methods.synthesis.bits import action_codes
from methods.transitions.tokens import TokenLayout, fit_normaliser

STEPS = np.array([3, 0, 17])


def test_parts_by_hand() -> None:
    """5 features, 2 actions: o, a, r, o', e of one agent, then of three at once."""
    spec = sample_spec("continuous")
    own = TokenLayout(spec=spec, done=True)
    assert (own.tokens, own.features) == (3, 5 + 2 + 1 + 5 + 1)
    assert own.parts()["next_observations"] == slice(8, 13)
    joint = TokenLayout(spec=spec, joint=True)
    assert (joint.tokens, joint.features) == (1, 15 + 6 + 1 + 15)
    with_state = TokenLayout(spec=sample_spec("states-and-deaths"), append_state=True)
    assert with_state.code_size == 3  # 5 actions
    assert with_state.features == 5 + 3 + 1 + 5 + 0 + 4 + 4


def test_a_token_by_hand() -> None:
    data = sample_dataset("discrete")
    tokens = TokenLayout(spec=data.spec, done=True).assemble(data, STEPS)
    for m, step in enumerate(STEPS):
        row = data.row_of_step()[step]
        for agent in range(3):
            expected = [
                *data.observations[row, agent],
                *action_codes(5)[data.actions[step, agent]],
                data.rewards[step].sum(),
                *data.observations[row + 1, agent],
                float(data.terminals[step]),
            ]
            np.testing.assert_allclose(tokens[m, agent], expected, rtol=1e-6)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_splitting_what_was_assembled_is_the_identity(shape: str, joint: bool) -> None:
    data = sample_dataset(shape)
    state = data.states is not None
    layout = TokenLayout(spec=data.spec, joint=joint, done=True, append_state=state)
    steps = np.arange(data.n_steps)
    found = layout.split(layout.assemble(data, steps))
    rows = data.row_of_step()
    np.testing.assert_array_equal(found.observations[:, 0], data.observations[rows])
    np.testing.assert_array_equal(found.observations[:, 1], data.observations[rows + 1])
    discrete = data.spec.action.discrete
    np.testing.assert_array_equal(found.actions, action_codes(5)[data.actions] if discrete else data.actions)
    np.testing.assert_allclose(found.rewards, data.team_rewards(), rtol=1e-6)
    np.testing.assert_array_equal(found.terminal, data.terminals)
    if state:
        assert found.states is not None
        assert data.states is not None
        np.testing.assert_allclose(found.states[:, 1], data.states[rows + 1], rtol=1e-6)


def test_the_end_is_what_most_tokens_say_and_the_reward_their_mean() -> None:
    layout = TokenLayout(spec=sample_spec("continuous"), done=True)
    tokens = np.zeros((3, 3, layout.features), dtype=np.float32)
    tokens[..., layout.parts()["done"].start] = [[0.6, 0.7, 0.1], [0.4, 0.9, 0.2], [1, 1, 1]]
    tokens[..., layout.parts()["rewards"].start] = [[1, 2, 6], [0, 0, 0], [-1, 1, 3]]
    found = layout.split(tokens)
    assert found.terminal.tolist() == [True, False, True]
    np.testing.assert_allclose(found.rewards, [3, 0, 1])
    two = TokenLayout(spec=replace(sample_spec("continuous"), n_agents=2, agent_groups=((0, 1),)), done=True)
    halves = np.zeros((1, 2, two.features), dtype=np.float32)
    halves[0, 0, two.parts()["done"].start] = 1
    assert not two.split(halves).terminal[0]  # half is not most


def test_without_an_end_in_the_tokens_nothing_ends() -> None:
    data = sample_dataset("discrete")
    layout = TokenLayout(spec=data.spec)
    assert not layout.split(layout.assemble(data, np.arange(data.n_steps))).terminal.any()


@pytest.mark.parametrize(("apart", "count"), [(True, 3), (False, 1)])
def test_tokens_are_standardised_but_for_the_end(apart: bool, count: int) -> None:
    data = sample_dataset("discrete")
    layout = TokenLayout(spec=data.spec, done=True)
    raw = layout.assemble(data, np.arange(data.n_steps))
    normaliser = fit_normaliser(layout, raw, apart=apart)
    assert normaliser.mean.shape == (count, layout.features)
    encoded = normaliser.encode(torch.from_numpy(raw))
    flag = layout.parts()["done"].start
    np.testing.assert_array_equal(encoded[..., flag].numpy(), raw[..., flag])
    over = (0,) if apart else (0, 1)
    others = [f for f in range(layout.features) if f != flag]
    np.testing.assert_allclose(encoded[..., others].mean(dim=over), 0, atol=1e-5)
    np.testing.assert_allclose(encoded[..., others].std(dim=over, correction=0), 1, atol=1e-3)
    np.testing.assert_allclose(normaliser.decode(encoded).numpy(), raw, atol=1e-5)


def test_a_state_must_be_there_to_be_appended() -> None:
    with pytest.raises(UnsupportedError, match="no global state"):
        TokenLayout(spec=sample_spec("continuous"), append_state=True)
