"""Augmented data as they are stored: the synthetic episodes, the original ones, and what was measured and told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.artefacts import META, Artefact, ArtefactStore
from benchmark.cells import parse_cell
from benchmark.plans import plan_cell
from benchmark.quality import QualityReport, measure, read_report
from benchmark.stages.datasets import DATA_FILE
from tasks.base import Task
from tasks.common.errors import DataError, UsageError
from tasks.datasets import store
from tasks.datasets.card import DatasetCard
from tasks.datasets.offline import OfflineDataset
from tasks.registry import make_task

AUGMENTED_BY = "augmented by "
"""How the regime of a card begins whose data an augmenter made."""


@dataclass(frozen=True, kw_only=True)
class AugmentedData:
    """One artefact of stage `augmented`, with everything that it refers to.

    Attributes:
        path, original_path: the two data files.
        quality: as measured when the data were made; measured now, without the fitted augmenter, where they are older.
        diagnosis: what the augmenter told of its fit and, under `generation`, of its generation.
    """

    path: Path
    original_path: Path
    card: DatasetCard
    task: Task
    synthetic: OfflineDataset
    original: OfflineDataset
    quality: QualityReport
    diagnosis: Mapping[str, Any]

    @property
    def augmenter(self) -> str:
        """The name under which it ran."""
        return self.card.regime.removeprefix(AUGMENTED_BY)


def names_cell(text: str) -> bool:
    """Whether a text can only mean a cell, such as `quick/mpe/spread/exp/rad-s/bc/seed-0`."""
    return re.search(r"/seed-\d+$", text) is not None and not Path(text).exists()


def is_augmented(path: Path) -> bool:
    """Whether an augmenter made a data file, by its card. Raises DataError if that is missing or damaged."""
    return store.load_card(path).regime.startswith(AUGMENTED_BY)


def of_cell(text: str, home: Path) -> AugmentedData:
    """The augmented data of a cell that has been run.

    Raises:
        UsageError: if the text names no cell, its augmenter adds nothing, or the cell was not run under this home.
    """
    wanted = parse_cell(text)
    plan = plan_cell(wanted)
    key, artefacts = plan.augmented_key(wanted.seed), ArtefactStore(home)
    if key is None:
        raise UsageError(
            f"{text}: {wanted.augmenter} adds no data. Inspect the original: {wanted.task} {wanted.dataset}."
        )
    found = artefacts.find(key)
    if found is None:
        raise UsageError(
            f"{text}: its augmented data are not stored under {home}. Run the cell first, or ask `bench explain` which "
            "part of its key changed."
        )
    return _opened(found, artefacts)


def of_file(path: Path) -> AugmentedData:
    """The augmented data whose file lies in its artefact's folder.

    Raises:
        DataError: if it was copied away from there: then nothing says which data it was made from.
    """
    path = path.resolve()
    meta, parents = path.parent / META, path.parents
    if path.name != DATA_FILE or not meta.is_file() or len(parents) < 5 or parents[2].name != "augmented":
        raise DataError(
            f"{path} was made by an augmenter, and no {META} beside it says from which data. Inspect it in its folder "
            "under AUGMARL_HOME, or by the name of its cell, e.g. quick/mpe/spread/exp/rad-s/bc/seed-0."
        )
    artefacts = ArtefactStore(parents[4])
    found = artefacts.find_digest("augmented", path.parent.name)
    if found is None:
        raise DataError(f"{meta} is damaged. Delete its folder and run the cell again.")
    return _opened(found, artefacts)


def _opened(artefact: Artefact, artefacts: ArtefactStore) -> AugmentedData:
    path = artefact.folder / DATA_FILE
    card = store.load_card(path)
    digest = str(artefact.parts["dataset"])
    source = artefacts.find_digest("dataset", digest)
    if source is None:
        raise DataError(
            f"{path}: the original data {digest[:12]} ({card.task} {card.dataset}) are no longer stored. Record them "
            f"again with `bench data build '{card.task}' '{card.dataset}'`, in the size and with the seed of the cell."
        )
    task, original_path = make_task(card.task), source.folder / DATA_FILE
    for file in (path, original_path):
        store.verify_checksum(file)
    synthetic, original = store.load(path, task.spec), store.load(original_path, task.spec).without_privileged()
    quality = read_report(artefact.folder)
    if quality is None:
        name = card.regime.removeprefix(AUGMENTED_BY)
        quality = measure(original, synthetic, task, seed=int(artefact.parts.get("seed", 0)), name=name)
    return AugmentedData(
        path=path,
        original_path=original_path,
        card=card,
        task=task,
        synthetic=synthetic,
        original=original,
        quality=quality,
        diagnosis=artefact.notes.get("diagnosis", {}),
    )
