"""What training draws, and which conditions it drops."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from scipy.stats import chisquare, kstest

from methods.data.windows import TrainingEntries
from methods.diffusion.draws import Draws, kept_conditions, uniforms_needed
from methods.diffusion.settings import SegmentSettings

Make = Callable[..., SegmentSettings]


def test_windows_with_their_rotations_every_noise_level_and_normal_noise(tiny: Make) -> None:
    windows: Any = SimpleNamespace(n_agents=3, features=2, device="cpu")
    # Replica 0 has windows 10 .. 13, replica 1 window 20 and on, each under the rotation of its last digit.
    entries = [TrainingEntries(10 * r + np.arange(n), np.arange(n)) for r, n in ((1, 4), (2, 7))]
    generators = [np.random.default_rng(seed) for seed in (1, 2)]
    chunk = Draws(tiny(batch_size=500), cast(Any, windows), entries, generators).draw()
    assert chunk.windows.shape == chunk.turns.shape == chunk.k.shape == (2, 16, 500)
    assert chunk.noise.shape == (2, 16, 500, 8, 3, 2)
    assert chunk.uniforms.shape == (2, 16, 500, 3)
    for r, (tens, n) in enumerate(((1, 4), (2, 7))):
        assert torch.equal(chunk.windows[r] - 10 * tens, chunk.turns[r])
        assert chisquare(np.bincount(chunk.turns[r].flatten(), minlength=n)).pvalue > 0.01
        assert chisquare(np.bincount(chunk.k[r].flatten(), minlength=10)).pvalue > 0.01  # 0 .. K − 1
        assert kstest(chunk.noise[r].flatten(), "norm").pvalue > 0.01
        assert kstest(chunk.uniforms[r].flatten(), "uniform").pvalue > 0.01


def test_the_return_is_dropped_for_every_agent_or_for_all(tiny: Make) -> None:
    uniforms = torch.tensor([[0.24, 0.25, 0.9], [0.9, 0.1, 0.1]])
    keep, _ = kept_conditions(tiny(), uniforms, 3)
    assert keep.tolist() == [[False, True, True], [True, False, False]]
    keep, _ = kept_conditions(tiny(dropout_per_agent=False), uniforms, 3)
    assert keep.tolist() == [[False] * 3, [True] * 3]


def test_labels_are_dropped_with_the_return_or_one_by_one(tiny: Make) -> None:
    settings = tiny(labels=True, label_single_keep=0.5)
    # joint, single, which | returns of 2 agents | labels of 2 agents
    uniforms = torch.tensor(
        [
            [0.2, 0.9, 0.0, 0.9, 0.9, 0.9, 0.9],  # both dropped together
            [0.3, 0.9, 0.0, 0.1, 0.9, 0.9, 0.2],  # one return, one label
            [0.3, 0.4, 0.6, 0.9, 0.9, 0.1, 0.1],  # exactly label ⌊0.6 · 2⌋ = 1
        ]
    )
    assert uniforms.shape[-1] == uniforms_needed(settings, 2)
    returns, labels = kept_conditions(settings, uniforms, 2)
    assert returns.tolist() == [[False, False], [False, True], [True, True]]
    assert labels.tolist() == [[False, False], [True, False], [False, True]]


def test_how_often_each_case_of_labels_is_seen(tiny: Make) -> None:
    # p = 1/4, N = 3: nothing is given with p + (1 − p) p^4, exactly one label with (1 − p) · 3 · 3/4 · 1/16
    settings = tiny(labels=True, dropout_per_agent=False)
    drawn = torch.from_numpy(np.random.default_rng(5).random((200_000, 9), dtype=np.float32))
    returns, labels = kept_conditions(settings, drawn, 3)
    nothing = ~returns.any(dim=-1) & ~labels.any(dim=-1)
    assert abs(nothing.float().mean() - (0.25 + 0.75 * 0.25**4)) < 0.004
    assert abs((labels.sum(dim=-1) == 1).float().mean() - 0.75 * 3 * 0.75 / 16) < 0.004
