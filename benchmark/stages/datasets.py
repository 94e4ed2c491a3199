"""Stage 1: the original data. One dataset a (task, regime, size, seed), shared by every cell that names it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmark.artefacts import Artefact, ArtefactStore
from benchmark.keys import Key
from benchmark.stages.context import Context, Found, Stopwatch
from tasks.base import Task
from tasks.datasets import regimes, store
from tasks.datasets.card import DatasetCard, card_of_collected
from tasks.datasets.offline import OfflineDataset
from tasks.registry import make_task
from tasks.spec import TaskSpec

DATA_FILE = "data.safetensors"


@dataclass(frozen=True)
class DatasetSource:
    """Which data: a task, a regime with its parameters, how many episodes, and the seed."""

    task: Task
    request: regimes.DatasetRequest
    episodes: int | None
    seed: int

    def key(self) -> Key:
        """The artefact's key. Raises UsageError if a behaviour policy is not shipped."""
        return Key("dataset", regimes.identity(self.task, self.request, self.episodes, self.seed))


def obtain(source: DatasetSource, context: Context) -> Found:
    """The stored dataset, or a new one. A damaged one (wrong checksum) is recorded again, bit for bit."""
    key, artefacts = source.key(), context.store
    with artefacts.lock(key):
        found = artefacts.find_intact(key)
        if found is not None:
            return Found(found, cached=True)
        with artefacts.writing(key) as draft:
            with TemporaryDirectory(prefix="batches-", dir=draft.folder) as waiting:
                watch, progress = Stopwatch(), context.progress_of("dataset")
                with watch.running():
                    data = regimes.collect(
                        source.task, source.request, source.episodes, source.seed, progress, Path(waiting)
                    )
                card = card_of_collected(source.task, source.request, data, episodes=source.episodes, seed=source.seed)
                store.save(data, card, draft.folder / DATA_FILE)
            draft.cost = watch.cost
        made = artefacts.find(key)
    assert made is not None  # just written, under the lock
    return Found(made, cached=False)


def load(artefact: Artefact, spec: TaskSpec) -> OfflineDataset:
    """The data of an artefact, memory-mapped."""
    return store.load(artefact.folder / DATA_FILE, spec)


def card_of(artefact: Artefact) -> tuple[DatasetCard, str]:
    """The card of an artefact, and the digest of the card's file."""
    path = store.card_path(artefact.folder / DATA_FILE)
    return store.load_card(artefact.folder / DATA_FILE), artefact.files[path.name]


def obtain_dataset(
    task: str, dataset: str, *, episodes: int | None, seed: int, home: Path, progress: Callable[[int, int, str], None]
) -> Path:
    """The data file of a dataset in the cache of `home`, recorded if it is not there.

    Task and dataset are selectors, e.g. `mpe/spread` and `exp-m[t_imb=4]`; `episodes` None is the regime's own number.

    Raises:
        UsageError: for an unknown name or parameter, or a behaviour policy that is not shipped.
        StorageError: if it cannot be written.
    """
    built = make_task(task)
    source = DatasetSource(built, regimes.resolve(built, dataset), episodes, seed)
    context = Context(
        store=ArtefactStore(home), report=lambda stage, done, total, message: progress(done, total, message)
    )
    return obtain(source, context).artefact.folder / DATA_FILE
