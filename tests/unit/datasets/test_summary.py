"""The numbers of `inspect`, and its picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tasks.base import Task
from tasks.common.errors import StorageError
from tasks.datasets import draw
from tasks.datasets.card import card_of_imported
from tasks.datasets.offline import OfflineDataset
from tasks.datasets.subsample import take_transitions
from tasks.datasets.summary import Summary, summarise


def summary_of(data: OfflineDataset) -> Summary:
    return summarise(data, card_of_imported(data, dataset="exp-m", regime="exp-m", origin="here"))


def test_numbers_are_the_datas(collected: OfflineDataset) -> None:
    summary = summary_of(collected)
    assert (summary.episodes, summary.steps) == (60, collected.n_steps)
    assert summary.mean_return == pytest.approx(collected.returns().mean())
    assert sum(summary.return_histogram.counts) == 60
    assert sum(summary.agent_returns) == pytest.approx(summary.mean_return, rel=1e-5)
    assert sum(length * count for length, count in summary.lengths.items()) == collected.n_steps
    assert summary.win_rate == pytest.approx(summary.terminal_share)
    for row in summary.behaviour_by_agent:
        assert sum(row.values()) == pytest.approx(1)
    if collected.spec.action.discrete:
        taken = collected.actions[:, 1]
        assert summary.action_use[1] == pytest.approx(np.bincount(taken, minlength=5) / len(taken))
        assert summary.action_names[4] == "up"
    else:
        assert sum(summary.action_histograms[0].counts) == collected.n_steps * 3
        assert summary.action_mean[2][1] == pytest.approx(collected.actions[:, 2, 1].mean(), abs=1e-5)


def test_the_interval_is_that_of_a_mean(collected: OfflineDataset) -> None:
    """Close to 1.96 standard errors, and the mean itself where all episodes return the same."""
    returns = collected.returns()
    interval = summary_of(collected).mean_interval
    assert interval is not None
    half = 1.96 * returns.std() / np.sqrt(len(returns))
    assert interval == pytest.approx((returns.mean() - half, returns.mean() + half), abs=half / 3)
    same = collected.replace(rewards=np.zeros_like(collected.rewards))
    assert summary_of(same).mean_interval == (0.0, 0.0)


def test_the_document_is_strict_json(collected: OfflineDataset) -> None:
    broken = collected.replace(observations=np.full_like(collected.observations, np.nan))
    document = json.loads(json.dumps(summary_of(broken).document(), allow_nan=False))
    assert {"mean_return", "episodes", "steps"} <= document.keys()
    assert document["observation_ranges"]["x"] == [None, None]


def test_every_dataset_can_be_drawn(task: Task, collected: OfflineDataset, tmp_path: Path) -> None:
    several = {
        "usual": collected,
        "single": take_transitions(collected, np.arange(30)),
        "unknown": collected.without_privileged(),
        "empty": OfflineDataset.empty(task.spec),
    }
    for name, data in several.items():
        path = tmp_path / f"{name}.png"
        draw.draw(summary_of(data), path)
        assert path.read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_written(collected: OfflineDataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        draw.draw(summary_of(collected), tmp_path / "file" / "x.png")
