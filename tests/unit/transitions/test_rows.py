"""From drawn tokens to valid rows: actions, availability, death, ends, states, ranges (one policy for all)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark.checks import sample_dataset
from methods.base import Run
from methods.data.windows import held_out_split
from methods.journal import Journal
from methods.synthesis.bits import action_codes
from methods.transitions.rows import HeadSettings, RowHeads, fit_row_heads
from methods.transitions.tokens import RawTransitions

SETTINGS = HeadSettings(hidden=8, updates=2, batch_size=8, learning_rate=1e-3)
BATTLE = sample_dataset("states-and-deaths").without_privileged()


class Told(RowHeads):
    """Heads that say what a test wants: what is available (M, N, A), who lives (M, 2, N)."""

    available: np.ndarray[Any, Any] | None = None
    living: np.ndarray[Any, Any] | None = None

    def availability(self, x: Tensor) -> Tensor:
        if self.available is None:
            return super().availability(x)
        both = torch.from_numpy(self.available)
        return both if x.dim() == 3 else torch.stack([both, both], dim=1)

    def alive(self, x: Tensor) -> Tensor:
        return super().alive(x) if self.living is None else torch.from_numpy(self.living)


def told(shape: str = "states-and-deaths", *, append_state: bool = False, **says: Any) -> Told:
    data = sample_dataset(shape).without_privileged()
    run = Run(seeds=(0,))
    splits = [held_out_split(data.n_episodes, run.generator("split"))]
    settings = SETTINGS.segment_settings(append_state=append_state, before=1)
    (fitted,), _ = fit_row_heads(settings, data, splits, run, Journal(run, 3))
    heads = Told.from_arrays(fitted.arrays(), data.spec, "cpu")
    for name, value in says.items():
        setattr(heads, name, value)
    return heads


def drawn(count: int = 1, **parts: Any) -> RawTransitions:
    """Zeros in a battle, but for what is given."""
    whole = {
        "observations": np.zeros((count, 2, 3, 5), dtype=np.float32),
        "actions": np.zeros((count, 3, 3), dtype=np.float32),
        "rewards": np.zeros(count, dtype=np.float32),
        "terminal": np.zeros(count, dtype=np.bool_),
        "states": None,
    }
    return RawTransitions(**{**whole, **parts})


def test_bits_become_the_nearest_available_action() -> None:
    """Code 4 is 100; where that is not available, 0 (000) is nearest. 111 stands for nothing and becomes 3 (011)."""
    bits = np.array([[[0.9, 0.1, 0.2], [0.9, 0.1, 0.2], [1.0, 1.0, 1.0]]], dtype=np.float32)
    available = np.ones((1, 3, 5), dtype=np.bool_)
    available[0, 1, 4] = False
    living = np.ones((1, 2, 3), dtype=np.bool_)
    found = told(available=available, living=living).emit(drawn(actions=bits), BATTLE)
    assert found.actions.tolist() == [[4, 0, 3]]
    found.validate()


def test_codes_that_stand_for_no_action_become_the_nearest_ones() -> None:
    """Of five actions 101, 110 and 111 mean nothing: 001 is as near to 101 as 100 is, and the first of them wins."""
    bits = np.array([[[1.0, 0.0, 1.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]] * 4, dtype=np.float32)
    available, living = np.ones((4, 3, 5), dtype=np.bool_), np.ones((4, 2, 3), dtype=np.bool_)
    available[1, :, 1:4] = False  # what remains is 0 and 4
    found = told(available=available, living=living).emit(drawn(4, actions=bits), BATTLE)
    assert found.actions[[0, 2, 3]].tolist() == [[1, 2, 3]] * 3
    assert found.actions[1].tolist() == [4, 4, 4]
    found.validate()


def test_what_was_chosen_is_available_and_something_always_is() -> None:
    bits = np.tile(action_codes(5)[2], (1, 3, 1)).astype(np.float32)
    nothing, living = np.zeros((1, 3, 5), dtype=np.bool_), np.ones((1, 2, 3), dtype=np.bool_)
    found = told(available=nothing, living=living).emit(drawn(actions=bits), BATTLE)
    assert found.actions.tolist() == [[2, 2, 2]]
    assert found.available_actions is not None
    assert found.available_actions[0].sum(axis=-1).tolist() == [1, 1, 1]
    assert found.available_actions[1].tolist() == [[True, False, False, False, False]] * 3


def test_the_dead_stay_dead_see_nothing_and_do_nothing() -> None:
    living = np.array([[[False, True, True], [True, False, True]]])
    observations = np.full((1, 2, 3, 5), 0.5, dtype=np.float32)
    bits = np.tile(action_codes(5)[3], (1, 3, 1)).astype(np.float32)
    available = np.ones((1, 3, 5), dtype=np.bool_)
    heads = told(living=living, available=available)
    found = heads.emit(drawn(observations=observations, actions=bits), BATTLE)
    assert found.alive is not None
    assert found.available_actions is not None
    assert found.alive.tolist() == [[False, True, True], [False, False, True]]
    assert not found.observations[~found.alive].any()
    np.testing.assert_allclose(found.observations[found.alive], 0.5, atol=1e-6)
    assert found.actions.tolist() == [[0, 3, 3]]
    assert (found.available_actions[~found.alive].argmax(axis=-1) == 0).all()
    assert (found.available_actions[~found.alive].sum(axis=-1) == 1).all()


def test_only_a_drawn_end_has_a_flag() -> None:
    found = told().emit(drawn(3, terminal=np.array([False, True, False])), BATTLE)
    assert found.terminals.tolist() == [False, True, False]
    assert not found.truncations.any()
    assert found.lengths.tolist() == [1, 1, 1]


def test_values_are_held_to_the_range_of_the_data_and_rewards_are_shared() -> None:
    wild = np.full((1, 2, 3, 5), 1e6, dtype=np.float32)
    found = told(living=np.ones((1, 2, 3), dtype=np.bool_)).emit(
        drawn(observations=wild, rewards=np.array([6.0], dtype=np.float32)), BATTLE
    )
    np.testing.assert_allclose(found.observations.max(axis=(0, 1)), BATTLE.observations.max(axis=(0, 1)), rtol=1e-6)
    assert found.rewards.tolist() == [[2, 2, 2]]
    data = sample_dataset("continuous")
    heads = told("continuous")
    moved = heads.emit(drawn(actions=np.array([[[5, -5], [0.5, 0], [0, 1]]], dtype=np.float32)), data)
    np.testing.assert_allclose(moved.actions, [[[1, -1], [0.5, 0], [0, 1]]], rtol=1e-6)
    assert moved.available_actions is None


def test_a_state_that_was_drawn_is_the_state_that_comes_out() -> None:
    states = np.array([[[0.1, 0.2, 0.3, 0.4], [0.5, 99, -0.3, -0.4]]], dtype=np.float32)
    found = told(append_state=True).emit(drawn(states=states), BATTLE)
    assert found.states is not None
    assert BATTLE.states is not None
    expected = states[0].copy()
    expected[1, 1] = BATTLE.states[:, 1].max()
    np.testing.assert_allclose(found.states, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "names"),
    [("continuous", ()), ("discrete", ("availability",)), ("states-and-deaths", ("availability", "alive", "state"))],
)
def test_only_heads_that_data_can_teach_are_fitted(shape: str, names: tuple[str, ...]) -> None:
    assert told(shape).heads.names == names
