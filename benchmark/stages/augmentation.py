"""Stage 2: synthetic episodes, one set a replicate, shared by every learner and by no other replicate."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace

from benchmark.artefacts import Artefact
from benchmark.checkpoints import checkpoint_of
from benchmark.checks import check_generated
from benchmark.diagnosis import merged, plain
from benchmark.plans import GroupPlan
from benchmark.quality import measure
from benchmark.stages import fits
from benchmark.stages.context import Context, Found, Stopwatch
from benchmark.stages.datasets import DATA_FILE
from methods.base import Budget, Run
from tasks.common.errors import DataError, MethodError
from tasks.datasets import regimes, store
from tasks.datasets.card import card_of_imported
from tasks.datasets.offline import OfflineDataset

_EXTRA_MARGIN = 1.25  # episodes differ in length, and the oracle may not repeat one


def missing(plan: GroupPlan, seeds: Sequence[int], context: Context) -> list[int]:
    """The replicates whose synthetic episodes must still be made."""
    keys = {seed: plan.augmented_key(seed) for seed in seeds}
    return [seed for seed, key in keys.items() if key is not None and context.store.find_intact(key) is None]


def obtain_fits(plan: GroupPlan, seeds: Sequence[int], original: OfflineDataset, context: Context) -> dict[int, Found]:
    """The fitted augmenters of replicates, for a method that trains. Those that are missing are fitted together."""
    if not seeds:
        return {}
    return fits.obtain(plan, seeds, _shown(plan, original), _run(plan, seeds[0], original, context, "fit"), context)


def obtain(
    plan: GroupPlan, seed: int, original: OfflineDataset, fitted: Found | None, context: Context
) -> tuple[Found, Found | None] | None:
    """The synthetic episodes of a replicate and the fitted augmenter behind them; None where nothing is ever added.

    `fitted` is what `obtain_fits` gave. The fitted augmenter is None where there is nothing to keep of it.

    Raises:
        MethodError: if the augmenter breaks its contract.
    """
    key = plan.augmented_key(seed)
    if key is None:
        return None
    artefacts = context.store
    with artefacts.lock(key):
        found = artefacts.find_intact(key)
        if found is not None:
            return Found(found, cached=True), fitted or fits.stored(plan, seed, context)
        run, shown = _run(plan, seed, original, context, "augmented"), _shown(plan, original)
        if not plan.augmenter.method_class.trains:
            augmenter = plan.augmenter.build()
            augmenter.fit(shown, run)
        else:  # also what this very process has fitted: one way, and one member in memory at a time
            fitted = fitted or obtain_fits(plan, [seed], original, context)[seed]
            augmenter = fits.restore(plan, fitted.artefact)
        with artefacts.writing(key, plan.augmenter.source) as draft:
            watch = Stopwatch()
            checkpoint = checkpoint_of(
                artefacts.home,
                [key],
                source=plan.augmenter.source,
                device=context.device,
                seconds=context.checkpoint_seconds,
            )
            with watch.running():
                kept = replace(run, checkpoint=checkpoint, folder=checkpoint.folder)
                returned = augmenter.generate(shown, kept)
            synthetic = check_generated(returned, shown, plan.spec, plan.augmenter.text).without_privileged()
            _require_amount(synthetic, run.budget.amount, plan.augmenter.text)
            told = plain(augmenter.diagnosis(), plan.augmenter.text)
            if fitted is not None:
                told = merged(fitted.artefact.notes.get("diagnosis", {}), told)
            card = card_of_imported(
                synthetic,
                dataset=plan.source.request.text,
                regime=f"augmented by {plan.augmenter.text}",
                origin=f"replicate {seed}",
                augmentation=told or None,
            )
            store.save(synthetic, card, draft.folder / DATA_FILE)
            quality = measure(
                shown, synthetic, plan.task, augmenter, plan.augmentation_seed(seed), name=plan.augmenter.text
            )
            quality.write(draft.folder)
            draft.cost = replace(watch.cost, wall_seconds=checkpoint.spent + watch.cost.wall_seconds)
            draft.notes = {"diagnosis": told, "quality": quality.values()}
        checkpoint.discard()
        made = artefacts.find(key)
    assert made is not None  # just written, under the lock
    return Found(made, cached=False), fitted


def load(artefact: Artefact, original: OfflineDataset) -> OfflineDataset:
    """The synthetic episodes of an artefact, memory-mapped."""
    return store.load(artefact.folder / DATA_FILE, original.spec)


def _require_amount(synthetic: OfflineDataset, amount: int | None, name: str) -> None:
    """Less than the protocol's amount would be compared unfairly with methods that keep to it."""
    if amount is not None and synthetic.n_steps < amount:
        raise MethodError(
            f"Augmenter {name!r} returned {synthetic.n_steps} transitions where `run.budget.amount` asks for {amount} "
            "or more. Whole episodes may pass the amount and must not fall short of it."
        )


def _shown(plan: GroupPlan, original: OfflineDataset) -> OfflineDataset:
    """The data as the augmenter may see them."""
    return original if plan.augmenter.method_class.privileged else original.without_privileged()


def _run(plan: GroupPlan, seed: int, original: OfflineDataset, context: Context, stage: str) -> Run:
    ratio = plan.protocol.amount_ratio
    amount = None if ratio is None else round(ratio * original.n_steps)
    needs_extra = plan.augmenter.method_class.needs_extra_data
    return Run(
        seeds=(plan.augmentation_seed(seed),),
        device=context.device,
        budget=Budget(
            amount=amount,
            diffusion=plan.protocol.diffusion,
            episode=plan.protocol.episode,
            transition=plan.protocol.transition,
        ),
        progress=context.progress_of(stage),
        logger=logging.getLogger(f"augmarl.{plan.augmenter.text}"),
        deadline=context.deadline,
        extra_data=_extra_data(plan, seed, original, amount, context) if needs_extra else None,
    )


def _extra_data(
    plan: GroupPlan, seed: int, original: OfflineDataset, amount: int | None, context: Context
) -> OfflineDataset:
    """Further real episodes of the same regime, from a seed that no dataset has: none is in the original data."""
    # Without sub-sampling: a name that keeps 3% of a regime would otherwise keep 3% of these as well.
    request = regimes.resolve(plan.task, plan.source.request.regime)
    whole = regimes.DatasetRequest(
        regime=request.regime, params=plan.source.request.params, subsample=None, text=request.text
    )
    episodes = original.n_episodes
    if amount is not None and original.n_steps:
        episodes = math.ceil(_EXTRA_MARGIN * amount / float(original.lengths.mean()))
    data = regimes.collect(plan.task, whole, max(episodes, 1), plan.extra_seed(seed), context.progress_of("dataset"))
    if amount is not None and data.n_steps < amount:
        raise DataError(f"{plan.group.name}: {data.n_steps} further real transitions were recorded, {amount} needed.")
    return data.without_privileged()
