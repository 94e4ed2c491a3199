"""Verification passes what was recorded and finds each planted fault, in the check that should find it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.base import Task
from tasks.datasets import regimes, store
from tasks.datasets.card import card_of_collected
from tasks.datasets.offline import OfflineDataset
from tasks.datasets.subsample import take_transitions
from tasks.datasets.verify import REPLAYED, Finding, verify, verify_data
from tasks.registry import make_task


@pytest.fixture
def path(task: Task, collected: OfflineDataset, tmp_path: Path) -> Path:
    request = regimes.resolve(task, "exp-m")
    path = tmp_path / "data.safetensors"
    store.save(collected, card_of_collected(task, request, collected, episodes=60, seed=3), path)
    return path


def failed(findings: list[Finding]) -> set[str]:
    return {finding.name for finding in findings if not finding.ok}


def changed(column: np.ndarray, index: object, value: object) -> np.ndarray:
    column = column.copy()
    column[index] = value
    return column


def test_recorded_data_pass(task: Task, path: Path) -> None:
    findings = verify(path, task)
    assert failed(findings) == set()
    names = [finding.name for finding in findings]
    assert names == ["checksum", "columns", "card", "values", "flag bytes", "episode ends", "reset range", "replay"]


@pytest.mark.parametrize("name", ["mpe/spread", "mpe/tag", "mpe/world", "mpe/spread[variant=mpe2,actions=discrete]"])
def test_real_engines_pass(name: str) -> None:
    task = make_task(name)
    data = regimes.collect(task, regimes.resolve(task, "random"), 256, 0, lambda *_: None)
    assert failed(verify_data(data, task)) == set()


@pytest.mark.parametrize("name", ["mpe/spread", "mpe/tag"])
def test_shifted_rewards_are_found_in_a_real_engine(name: str) -> None:
    task = make_task(name)
    data = regimes.collect(task, regimes.resolve(task, "random"), 256, 0, lambda *_: None)
    shifted = data.replace(rewards=np.roll(data.rewards, 1, axis=0))
    assert failed(verify_data(shifted, task)) == {"replay"}


def test_planted_faults_are_found(task: Task, collected: OfflineDataset) -> None:
    low, final = collected.actions.dtype == np.int64, collected.row_starts[1:] - 1
    faults: list[tuple[str, dict[str, np.ndarray], set[str]]] = [
        ("shifted rewards", {"rewards": np.roll(collected.rewards, 1, axis=0)}, {"replay"}),
        ("scaled rewards", {"rewards": collected.rewards * np.float32(1.01)}, {"replay"}),
        ("NaN reward", {"rewards": changed(collected.rewards, (5, 1), np.nan)}, {"values"}),
        ("NaN observation", {"observations": changed(collected.observations, (5, 1, 2), np.nan)}, {"values"}),
        ("action", {"actions": changed(collected.actions, (5, 1), 9)}, {"values", "replay"} if low else {"values"}),
        ("no flag", {"terminals": np.zeros_like(collected.terminals)}, {"episode ends"}),
        ("wrong flag", {"truncations": changed(collected.truncations, 0, True)}, {"values"}),
        ("moved", {"observations": collected.observations + np.float32(1)}, {"reset range"}),
        ("noise", {"observations": collected.observations * np.float32(1.001)}, {"replay"}),
        ("final rows", {"observations": changed(collected.observations, final, 0.5)}, {"replay"}),
        ("shuffled actions", {"actions": collected.actions[::-1].copy()}, {"replay"}),
    ]
    for label, columns, expected in faults:
        found = failed(verify_data(collected.replace(**columns), task))
        assert expected <= found, label
        assert not ({"flag bytes", "episode ends", "reset range"} & found - expected), label


def test_a_few_stray_contacts_are_no_fault(task: Task, collected: OfflineDataset) -> None:
    assert collected.n_steps < REPLAYED  # so every step is replayed
    one = collected.replace(rewards=changed(collected.rewards, (5, 1), 7.0))
    replay = verify_data(one, task)[-1]
    assert replay.ok
    assert "1 differ" in replay.detail


def test_flags_that_are_neither_0_nor_1(task: Task, collected: OfflineDataset) -> None:
    strange = collected.terminals.view(np.uint8).copy()
    strange[collected.episode_starts[1] - 1] = 7
    assert "flag bytes" in failed(verify_data(collected.replace(terminals=strange.view(np.bool_)), task))


def test_a_changed_byte_and_a_wrong_card(task: Task, path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "checksum" in failed(verify(path, task))
    card = store.card_path(path)
    card.write_text(card.read_text().replace('"episodes": 60', '"episodes": 61'))
    finding = next(finding for finding in verify(path, task) if finding.name == "card")
    assert not finding.ok
    assert "episodes 61 (found 60)" in finding.detail


def test_an_unreadable_file_is_one_finding(task: Task, path: Path) -> None:
    path.write_bytes(path.read_bytes()[:500])
    findings = verify(path, task)
    assert [finding.name for finding in findings] == ["checksum", "columns"]
    assert failed(findings) == {"checksum", "columns"}


def test_what_cannot_be_checked_is_said(task: Task, collected: OfflineDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.base import BatchedEnv

    single = verify_data(take_transitions(collected, np.arange(50)), task)
    assert failed(single) == set()
    assert "independent transitions" in single[-2].detail
    monkeypatch.setattr(type(task.make_env(1, 0)), "restore", BatchedEnv.restore)
    assert "skipped" in verify_data(collected, task)[-1].detail
    assert failed(verify_data(OfflineDataset.empty(task.spec), task)) == set()
