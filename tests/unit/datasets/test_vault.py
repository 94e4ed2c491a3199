"""OG-MARL's vaults: ours read by flashbax, flashbax's read by us, and what is refused."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.common.errors import DataError, UsageError
from tasks.datasets import vault
from tasks.datasets.offline import OfflineDataset
from tasks.registry import make_task
from tasks.smac.task import StarCraftTask

pytest.importorskip("tensorstore", reason="needs the extra vault")
BATTLE = make_task("smac/3m[engine=sc2]")
assert isinstance(BATTLE, StarCraftTask)
SPEC, BONUS = BATTLE.spec, BATTLE.battle.smallest_win_bonus
Columns = dict[str, NDArray[Any]]


def recorded() -> Columns:
    """Three episodes of 3, 2 and 2 steps: won, truncated, lost; agent 2 is dead from step 1 on in each."""
    generator = np.random.default_rng(0)
    legals = np.zeros((7, 3, 9), dtype=np.float32)
    legals[..., 1:6] = 1
    for step in (1, 2, 4, 6):
        legals[step, 2] = np.eye(9)[0]
    rewards = np.repeat(np.array([1.0, 2.0, 12.0, 0.5, 0.0, 1.0, 3.0], dtype=np.float32)[:, None], 3, axis=1)
    terminals = np.zeros((7, 3), dtype=np.bool_)
    terminals[[2, 6]] = True
    truncations = np.zeros((7, 3), dtype=np.bool_)
    truncations[4] = True
    return {
        "observations": generator.normal(size=(7, 3, 30)).astype(np.float32),
        "actions": legals.argmax(-1).astype(np.int32),
        "rewards": rewards,
        "terminals": terminals,
        "truncations": truncations,
        "infos.legals": legals,
        "infos.state": generator.normal(size=(7, 48)).astype(np.float32),
    }


def by_flashbax(columns: Columns, base: Path) -> Path:
    """The vault that flashbax writes of these steps, through a buffer as OG-MARL's recorder has it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flashbax = pytest.importorskip("flashbax", reason="the reference of this format")
        import jax
        import jax.numpy as jnp
        from flashbax.vault import Vault

        def nested(values: Columns) -> dict[str, Any]:
            result: dict[str, Any] = {}
            for name, value in values.items():
                inner, last = (
                    (result.setdefault("infos", {}), name[6:]) if name.startswith("infos.") else (result, name)
                )
                inner[last] = jnp.asarray(value)
            return result

        buffer = flashbax.make_flat_buffer(max_length=16, min_length=1, sample_batch_size=1, add_sequences=True)
        state = buffer.init(jax.tree.map(lambda leaf: leaf[0], nested(columns)))
        state = buffer.add(state, nested(columns))
        store = Vault(
            "og_marl/smac_v1/3m.vlt", experience_structure=state.experience, vault_uid="Good", rel_dir=str(base)
        )
        store.write(state)
        store.close() if hasattr(store, "close") else None
    return base / "og_marl" / "smac_v1" / "3m.vlt" / "Good"


def test_a_vault_of_flashbax_is_read(tmp_path: Path) -> None:
    columns = recorded()
    imported = vault.read(by_flashbax(columns, tmp_path), SPEC, BONUS)
    data = imported.data
    assert data.episode_starts.tolist() == [0, 3, 5, 7]
    assert data.won is not None
    assert data.won.tolist() == [True, False, False]
    assert data.terminals.tolist() == [False, False, True, False, False, False, True]
    assert data.truncations.tolist() == [False, False, False, False, True, False, False]
    rows = [0, 1, 2, 2, 3, 4, 4, 5, 6, 6]  # the last row of each episode stands in for what came after
    assert (data.observations == columns["observations"][rows]).all()
    assert data.states is not None
    assert (data.states == columns["infos.state"][rows]).all()
    assert (data.actions == columns["actions"]).all()
    assert (data.rewards == columns["rewards"]).all()
    assert data.available_actions is not None
    assert (data.available_actions == columns["infos.legals"][rows].astype(bool)).all()
    assert data.alive is not None
    assert data.alive[:, 2].tolist() == [row in (0, 3, 5) for row in rows]
    assert data.alive[:, :2].all()
    assert "do not say who won" in imported.notes[0]


def test_a_vault_of_ours_is_read_by_flashbax(tmp_path: Path) -> None:
    data = vault.read(by_flashbax(recorded(), tmp_path / "theirs"), SPEC, BONUS).data
    folder = tmp_path / "ours" / "og_marl" / "smac_v1" / "3m.vlt" / "Good"
    vault.write(data, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from flashbax.vault import Vault

        read = Vault("og_marl/smac_v1/3m.vlt", vault_uid="Good", rel_dir=str(tmp_path / "ours")).read().experience
    for name, values in recorded().items():
        found = read["infos"][name[6:]] if name.startswith("infos.") else read[name]
        assert (np.asarray(found)[0] == values).all(), name
    again = vault.read(folder, SPEC, BONUS).data
    for name, column in data.columns().items():
        assert (again.columns()[name] == column).all(), name


def test_continuous_data_make_the_same_round(tmp_path: Path) -> None:
    spec = make_task("mpe/spread").spec
    generator = np.random.default_rng(1)
    observations = generator.normal(size=(27, 3, 18)).astype(np.float32)
    data = OfflineDataset(
        spec=spec,
        observations=observations,
        actions=generator.uniform(-1, 1, (25, 3, 2)).astype(np.float32),
        rewards=generator.normal(size=(25, 3)).astype(np.float32),
        terminals=np.zeros(25, dtype=np.bool_),
        truncations=np.isin(np.arange(25), (9, 24)),
        episode_starts=np.array([0, 10, 25]),
        states=observations.reshape(27, 54),
    )
    vault.write(data, tmp_path / "Expert")
    back = vault.read(tmp_path / "Expert", spec).data
    assert (back.actions == data.actions).all()
    assert (back.episode_starts == data.episode_starts).all()
    assert (back.observations[:10] == data.observations[:10]).all()
    assert (back.observations[10] == data.observations[9]).all()  # what came after the last action is not kept
    with pytest.raises(UsageError, match="holds a vault already"):
        vault.write(data, tmp_path / "Expert")
    with pytest.raises(UsageError, match="no steps"):
        vault.write(OfflineDataset.empty(spec), tmp_path / "Empty")


def written(folder: Path, change: Callable[[Columns], None]) -> Path:
    """A vault of our own making, something about it being wrong."""
    columns = recorded()
    change(columns)
    for name, values in columns.items():
        vault._create(folder, f"{name}.", values[None], (1, 10**13, *values.shape[1:]))
    vault._create(folder, "vault_index", np.array([7], dtype=np.int32), (1,))
    shapes = vault._nested({name: str(values.shape) for name, values in columns.items()})
    (folder / "metadata.json").write_text(json.dumps({"version": 1.2, "structure_shape": shapes}))
    return folder


def set_item(name: str, index: Any, value: float) -> Callable[[Columns], None]:
    def change(columns: Columns) -> None:
        columns[name][index] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("infos.legals"), r"no infos\.legals\. It has: actions, infos\.state"),
        (lambda c: c.pop("infos.state"), r"no infos\.state"),
        (lambda c: c.update(observations=c["observations"].astype(np.float16)), "float16, expected float32"),
        (
            lambda c: c.update(observations=c["observations"][..., :27]),
            r"\(3, 27\) numbers a step, and .* needs \(3, 30\)",
        ),
        (lambda c: c.update(actions=c["rewards"]), "float32, expected whole numbers"),
        (set_item("observations", (3, 0, 0), -np.inf), "not finite"),
        (set_item("rewards", (1, 1), np.nan), "not finite"),
        (set_item("infos.legals", (0, 0, 0), 0.5), "other than 0 and 1"),
        (set_item("actions", (0, 0), 9), "actions reach from 0 to 9, expected 0 to 8"),
        (set_item("actions", (slice(0, 3), 0), 7), r"14\.3% of the actions are not legal"),
    ],
)
def test_what_is_refused(change: Callable[[Columns], None], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        vault.read(written(tmp_path / "Good", change), SPEC, BONUS)


def test_a_tail_without_an_end_is_cut_and_told(tmp_path: Path) -> None:
    imported = vault.read(written(tmp_path / "Good", set_item("terminals", 6, False)), SPEC, BONUS)
    assert imported.data.truncations[-1]
    assert any("has no end" in note for note in imported.notes)


def test_what_is_no_vault_is_told_so(tmp_path: Path) -> None:
    written(tmp_path / "3m.vlt" / "Good", lambda columns: None)
    with pytest.raises(UsageError, match="Did you mean one of its folders Good"):
        vault.read(tmp_path / "3m.vlt", SPEC, BONUS)
    (tmp_path / "3m.vlt" / "Good" / "metadata.json").write_text('{"version": 2.0, "structure_shape": {}}')
    with pytest.raises(DataError, match="version 2.0; versions 1.x"):
        vault.read(tmp_path / "3m.vlt" / "Good", SPEC, BONUS)
    (tmp_path / "3m.vlt" / "Good" / "metadata.json").write_text("[")
    with pytest.raises(DataError, match="cannot be read"):
        vault.read(tmp_path / "3m.vlt" / "Good", SPEC, BONUS)


def test_battles_need_to_know_what_a_victory_pays(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not known what a victory pays"):
        vault.read(written(tmp_path / "Good", lambda columns: None), SPEC)
