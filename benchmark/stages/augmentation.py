"""Stage 2: synthetic episodes, one set a replicate, shared by every learner and by no other replicate."""

from __future__ import annotations

import logging
import math
from typing import Any

from benchmark.artefacts import Artefact, load_arrays, save_arrays
from benchmark.checks import check_generated
from benchmark.plans import GroupPlan
from benchmark.stages.context import Context, Found, Stopwatch
from benchmark.stages.datasets import DATA_FILE
from methods.base import Augmenter, Budget, Run
from tasks.common.errors import DataError, MethodError
from tasks.datasets import regimes, store
from tasks.datasets.card import card_of_imported
from tasks.datasets.offline import OfflineDataset

FIT_FILE = "fit.safetensors"
_EXTRA_MARGIN = 1.25  # episodes differ in length, and the oracle may not repeat one


def obtain(plan: GroupPlan, seed: int, original: OfflineDataset, context: Context) -> tuple[Found, Found | None] | None:
    """The synthetic episodes of a replicate and the fitted augmenter behind them; None where nothing is ever added.

    The fitted augmenter is None where there is nothing to keep of it.

    Raises:
        MethodError: if the augmenter breaks its contract.
    """
    key = plan.augmented_key(seed)
    if key is None:
        return None
    artefacts, fit_key = context.store, plan.fit_key(seed)
    with artefacts.lock(key):
        found = artefacts.find_intact(key)
        if found is not None:
            fitted = artefacts.find(fit_key) if fit_key is not None else None
            return Found(found, cached=True), Found(fitted, cached=True) if fitted else None
        augmenter, run = plan.augmenter.build(), _run(plan, seed, original, context)
        shown = original if augmenter.privileged else original.without_privileged()
        fitted_now = _fit(plan, seed, augmenter, shown, run, context)
        with artefacts.writing(key, plan.augmenter.source) as draft:
            watch = Stopwatch()
            with watch.running():
                returned = augmenter.generate(shown, run)
            synthetic = check_generated(returned, shown, plan.spec, plan.augmenter.text).without_privileged()
            _require_amount(synthetic, run.budget.amount, plan.augmenter.text)
            card = card_of_imported(
                synthetic,
                dataset=plan.source.request.text,
                regime=f"augmented by {plan.augmenter.text}",
                origin=f"replicate {seed}",
            )
            store.save(synthetic, card, draft.folder / DATA_FILE)
            draft.cost = watch.cost
        made = artefacts.find(key)
    assert made is not None  # just written, under the lock
    return Found(made, cached=False), fitted_now


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


def _run(plan: GroupPlan, seed: int, original: OfflineDataset, context: Context) -> Run:
    ratio = plan.protocol.amount_ratio
    amount = None if ratio is None else round(ratio * original.n_steps)
    needs_extra = plan.augmenter.method_class.needs_extra_data
    return Run(
        seeds=(plan.augmentation_seed(seed),),
        device=context.device,
        budget=Budget(amount=amount),
        progress=context.progress_of("augmented"),
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


def _fit(
    plan: GroupPlan, seed: int, augmenter: Augmenter[Any], shown: OfflineDataset, run: Run, context: Context
) -> Found | None:
    """Fits the augmenter, or loads what an equal fit learned; returns the artefact, if there is one."""
    key = plan.fit_key(seed)
    if key is None:
        augmenter.fit(shown, run)
        return None
    artefacts = context.store
    with artefacts.lock(key):
        found = artefacts.find_intact(key)
        if found is not None:
            augmenter.load_state(load_arrays(found.folder / FIT_FILE), plan.spec)
            return Found(found, cached=True)
        with artefacts.writing(key, plan.augmenter.source) as draft:
            watch = Stopwatch()
            with watch.running():
                augmenter.fit(shown, run)
            save_arrays(draft.folder / FIT_FILE, augmenter.state())
            draft.cost = watch.cost
        made = artefacts.find(key)
    assert made is not None  # just written, under the lock
    return Found(made, cached=False)
