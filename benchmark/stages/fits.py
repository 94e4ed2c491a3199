"""Between stages 1 and 2: fitted augmenters, one a replicate. All that a group is missing are fitted in one program.

Variants that differ in generation alone, and all learners, share a fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from benchmark.artefacts import Artefact, load_arrays, save_arrays
from benchmark.checkpoints import checkpoint_of
from benchmark.diagnosis import plain
from benchmark.keys import Key
from benchmark.plans import GroupPlan
from benchmark.stages.context import Context, Found, Stopwatch
from methods.base import Augmenter, Run
from tasks.datasets.offline import OfflineDataset

FIT_FILE = "fit.safetensors"


def obtain(
    plan: GroupPlan, seeds: Sequence[int], shown: OfflineDataset, run: Run, context: Context
) -> dict[int, Found]:
    """The fitted augmenters of these replicates, by seed; those that are missing are fitted together.

    Args:
        plan: of an augmenter that trains.
        seeds: the replicates.
        shown: the data as the augmenter may see them.
        run: what all of them may use; seeds and checkpoint are set here.
        context: where to work.
    """
    artefacts, keys = context.store, {seed: _key(plan, seed) for seed in seeds}
    with ExitStack() as locks:
        for key in sorted(keys.values(), key=lambda key: key.digest):  # one order for all: no two wait for each other
            locks.enter_context(artefacts.lock(key))
        found = {seed: artefacts.find_intact(key) for seed, key in keys.items()}
        missing = [seed for seed, artefact in found.items() if artefact is None]
        if missing:
            _fit_together(plan, {seed: keys[seed] for seed in missing}, shown, run, context)
        result = {}
        for seed, artefact in found.items():
            stored = artefact or artefacts.find(keys[seed])
            assert stored is not None  # found, or just written under the lock
            result[seed] = Found(stored, cached=seed not in missing)
    return result


def stored(plan: GroupPlan, seed: int, context: Context) -> Found | None:
    """The fitted augmenter of a replicate if it is there; None for an augmenter that does not train as well."""
    key = plan.fit_key(seed)
    artefact = None if key is None else context.store.find(key)
    return None if artefact is None else Found(artefact, cached=True)


def restore(plan: GroupPlan, artefact: Artefact) -> Augmenter[Any]:
    """A fresh augmenter that knows what the fit learned."""
    augmenter = plan.augmenter.build()
    augmenter.load_state(load_arrays(artefact.folder / FIT_FILE), plan.spec)
    return augmenter


def _fit_together(plan: GroupPlan, keys: dict[int, Key], shown: OfflineDataset, run: Run, context: Context) -> None:
    """Fits the replicates in one program and stores one artefact each."""
    choice = plan.augmenter
    members = [choice.build() for _ in keys]
    checkpoint = checkpoint_of(
        context.store.home,
        list(keys.values()),
        source=choice.source,
        device=context.device,
        seconds=context.checkpoint_seconds,
    )
    seeds = tuple(plan.augmentation_seed(seed) for seed in keys)
    watch = Stopwatch(together=len(members))
    with watch.running():
        choice.method_class.fit_together(members, shown, replace(run, seeds=seeds, checkpoint=checkpoint))
    with ExitStack() as drafts:  # all replicates are renamed into place together, at the end
        for member, key in zip(members, keys.values(), strict=True):
            draft = drafts.enter_context(context.store.writing(key, choice.source))
            save_arrays(draft.folder / FIT_FILE, member.state())
            draft.cost = replace(watch.cost, wall_seconds=checkpoint.spent + watch.cost.wall_seconds)
            draft.notes = {"diagnosis": plain(member.diagnosis(), choice.text), "device": context.device}
    checkpoint.discard()


def _key(plan: GroupPlan, seed: int) -> Key:
    key = plan.fit_key(seed)
    if key is None:
        raise ValueError(f"{plan.augmenter.text} does not train, so there is nothing to fit ahead")
    return key
