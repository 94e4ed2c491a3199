"""MASTARS: what each pass regenerates, and that everything else stays, on a model whose value is a feature."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from methods.augmenters.mastars import MASTARS, MASTARSConfig
from methods.diffusion.known import ClampConditioning, Known, RepaintConditioning
from methods.diffusion.model import SegmentModel
from methods.diffusion.samplers import make_sampler
from methods.diffusion.sampling import numpy_noise, sample
from methods.diffusion.schedule import CosineSchedule
from methods.synthesis.segment_augmenter import Generated, Sampling, SourceWindows
from tasks.common.errors import UsageError

# Three windows of 4 rows and 3 agents: the value of each row, which is also its feature 0.
VALUES = torch.tensor(
    [
        [[0.1, 0.5, 0.2], [0.4, 0.1, 0.2], [0.2, 0.2, 0.2], [0.3, 0.3, 0.9]],  # goals 1, 0, 3; order 2, 0, 1
        [[0.0, 0.0, 0.7], [0.1, 0.6, 0.1], [0.2, 0.6, 0.1], [0.3, 0.1, 0.1]],  # goals 3, 1, 0; order 0, 1, 2
        [[0.0, 0.0, 0.0], [0.1, 0.1, 0.1], [0.2, 0.2, 0.2], [0.3, 0.3, 0.3]],  # goals 3, 3, 3: all of it is kept
    ]
)
LENGTHS = np.array([3, 3, 3])
GOALS = np.array([[1, 0, 3], [3, 1, 0], [3, 3, 3]])


class FeatureModel:
    """V is feature 0; the denoiser mixes agents and rows. Keeps the requests it gets, and the first rows it sees."""

    def __init__(self) -> None:
        self.requests: list[tuple[Known, dict[str, Any], Tensor]] = []
        self.first_rows: list[tuple[Known, Tensor]] = []

    def value(self, x: Tensor) -> Tensor:
        return x[..., 0]

    def sample(self, known: Known, *, noise: Any, sampler: Any, conditioning: Any, **options: Any) -> Tensor:
        def denoise(x: Tensor, k: int) -> Tensor:
            self.first_rows.append((known, x[:, 0].clone()))
            return 0.5 * x + 0.1 * x.mean(dim=(1, 2), keepdim=True)

        shape = tuple(known.values.shape)
        result = sample(denoise, sampler, shape, noise, known=known, conditioning=conditioning)
        self.requests.append((known, {**options, "conditioning": conditioning}, result))
        return result


def source(values: Tensor = VALUES, lengths: Any = LENGTHS) -> SourceWindows:
    rest = torch.linspace(-0.9, 0.9, values.numel()).reshape(values.shape)
    return SourceWindows(x=torch.stack([values, rest, rest.flip(0)], dim=-1), lengths=lengths)


def regenerate(windows: SourceWindows, **params: Any) -> tuple[Generated, FeatureModel]:
    model = FeatureModel()
    generator = np.random.Generator(np.random.Philox(5))
    sampling = Sampling(
        model=cast(SegmentModel, model),
        sampler=make_sampler("ddim", CosineSchedule(20), 5),
        noise=numpy_noise(generator, "cpu"),
        choices=np.random.Generator(np.random.Philox(6)),
    )
    return MASTARS(MASTARSConfig(**params)).regenerate(windows, sampling), model


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"order": "sg"},
        {"order": "random"},
        {"sequential": False},
        {"inpainting": False},
        {"known_level": "repaint"},
    ],
    ids=str,
)
def test_what_leads_to_the_subgoals_stays_to_the_last_bit(params: dict[str, Any]) -> None:
    windows = source()
    generated, _ = regenerate(windows, **params)
    rows_after = np.arange(4)[:, None] > GOALS[:, None]  # (B, H, N)
    np.testing.assert_array_equal(generated.new, rows_after)
    changed = (generated.x != windows.x).any(dim=-1).numpy()
    np.testing.assert_array_equal(changed, rows_after)


@pytest.mark.parametrize(
    "params",
    [{}, {"known_level": "repaint"}, {"jump_length": 2, "resamples": 3}, {"sequential": False}, {"inpainting": False}],
    ids=str,
)
def test_the_network_sees_first_rows_clean_at_every_call(params: dict[str, Any]) -> None:
    _, model = regenerate(source(), **params)
    assert len(model.first_rows) >= 5 * len(model.requests)
    for known, rows in model.first_rows:
        assert torch.equal(rows, known.values[:, 0])


def test_a_window_in_which_all_is_kept_is_not_sampled() -> None:
    windows = source(VALUES[2:], LENGTHS[2:])
    generated, model = regenerate(windows)
    assert torch.equal(generated.x, windows.x)
    assert not model.requests


def test_agents_take_turns_given_what_is_fixed_by_then() -> None:
    windows = source()
    _, model = regenerate(windows)
    # First come agents 2 and 0 of windows 0 and 1, which keep everything. Then agents 0 and 1, then 1 and 2.
    assert [len(known.values) for known, _, _ in model.requests] == [2, 2]
    (second, _, after_second), (third, _, _) = model.requests
    assert torch.equal(second.values, windows.x[:2])
    unknown = ~second.mask
    assert unknown[0].T.tolist() == [[False, False, True, True], [False] * 4, [False] * 4]
    assert unknown[1].T.tolist() == [[False] * 4, [False, False, True, True], [False] * 4]
    assert torch.equal(after_second[second.mask], windows.x[:2][second.mask])
    assert torch.equal(third.values, after_second)  # agents that are done are new, the others still the originals
    assert (~third.mask)[0].T.tolist() == [[False] * 4, [False, True, True, True], [False] * 4]
    assert (~third.mask)[1].T.tolist() == [[False] * 4, [False] * 4, [False, True, True, True]]


def test_reverse_begins_with_the_lowest_value() -> None:
    _, model = regenerate(source(VALUES[:1], LENGTHS[:1]), order="reverse")
    turns = [(~known.mask).any(dim=1)[0].tolist() for known, _, _ in model.requests]
    assert turns == [[False, True, False], [True, False, False]]  # 1, 0; agent 2 has nothing to regenerate


def test_without_sequence_all_agents_share_one_pass() -> None:
    _, model = regenerate(source(), sequential=False)
    ((known, _, _),) = model.requests
    assert (~known.mask).numpy().tolist() == (np.arange(4)[:, None] > GOALS[:2, None]).tolist()


def test_without_subgoals_only_first_rows_stay() -> None:
    generated, model = regenerate(source(), subgoal=False)
    assert generated.new[:, 1:].all()
    assert not generated.new[:, 0].any()
    assert [len(known.values) for known, _, _ in model.requests] == [3, 3, 3]


def test_without_inpainting_agents_are_sampled_from_first_rows_and_cut_in() -> None:
    windows = source()
    generated, model = regenerate(windows, inpainting=False)
    assert all((known.mask == (torch.arange(4) == 0)[:, None]).all() for known, _, _ in model.requests)
    assert all(options["conditioning"] == ClampConditioning() for _, options, _ in model.requests)
    assert torch.equal(generated.x[0, 2:, 0], model.requests[0][2][0, 2:, 0])


def test_what_is_asked_of_the_model() -> None:
    _, model = regenerate(source(), target=0.8, guidance=1.5, known_level="repaint", jump_length=2, resamples=3)
    assert model.requests[0][1] == {
        "target": 0.8,
        "guidance": 1.5,
        "conditioning": RepaintConditioning(level="repaint", jump_length=2, resamples=3),
    }


def test_rows_beyond_the_episode_end_neither_goals_nor_known() -> None:
    windows = source(VALUES[:1], np.array([2]))  # row 3 repeats nothing here, but must not be a goal
    generated, _ = regenerate(windows)
    assert generated.new[0].T.tolist() == [
        [False, False, True, True],
        [False, True, True, True],
        [False, True, True, True],
    ]
    assert generated.lengths.tolist() == [2]


def test_noise_on_values_moves_subgoals() -> None:
    values = torch.full((200, 4, 3), 0.5)
    values[:, 2] = 0.52
    exact, _ = regenerate(source(values, np.full(200, 3)))
    noisy, _ = regenerate(source(values, np.full(200, 3)), value_noise=0.15)
    assert (exact.new.sum(axis=1) == 1).all()
    assert 0.3 < (noisy.new.sum(axis=1) != 1).mean() < 0.9


def test_one_agent() -> None:
    windows = source(VALUES[:2, :, 1:2], LENGTHS[:2])
    generated, model = regenerate(windows)
    assert generated.new.sum(axis=1).tolist() == [[3], [2]]
    assert len(model.requests) == 1


@pytest.mark.parametrize(
    "params",
    [
        {"order": "backwards"},
        {"accept": "max"},
        {"epsilon": -1.0},
        {"quantile": 0.0},
        {"calibrate": "both"},
        {"value_noise": 2.0},
        {"known_level": "eq5c"},
        {"resamples": 0},
        {"state_mode": "none"},
        {"segments": 0},
    ],
    ids=str,
)
def test_impossible_configs_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        MASTARSConfig(**params)
