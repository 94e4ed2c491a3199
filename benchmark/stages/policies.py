"""Stage 3: policies. All replicates of a group that are missing train together, in one program."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np

from benchmark.artefacts import Artefact, load_arrays, save_arrays
from benchmark.checkpoints import checkpoint_of
from benchmark.plans import GroupPlan
from benchmark.protocols import Mix
from benchmark.stages.context import Context, Found, Stopwatch
from methods.base import Arrays, Budget, LearnedPolicy, Run
from tasks.common.errors import MethodError
from tasks.datasets.offline import OfflineDataset, concatenate

FINAL_FILE = "policy.safetensors"


def mixed(original: OfflineDataset, synthetic: OfflineDataset | None, mix: Mix) -> tuple[OfflineDataset, int]:
    """The training set of a replicate, and how many of its first episodes are the original ones."""
    if synthetic is None or not synthetic.n_episodes:
        return original, original.n_episodes
    if mix.rule == "replace":
        return synthetic, 0
    return concatenate([original, *[synthetic] * mix.factor]), original.n_episodes


def obtain(
    plan: GroupPlan,
    synthetic: Mapping[int, OfflineDataset | None],
    original: OfflineDataset,
    context: Context,
) -> dict[int, Found]:
    """The trained policies of the replicates in `synthetic`, by seed.

    Raises:
        MethodError: if the learner breaks its contract.
        TimeoutError: after the context's deadline.
    """
    artefacts, seeds = context.store, sorted(synthetic)
    keys = {seed: plan.policy_key(seed) for seed in seeds}
    with ExitStack() as locks:
        for key in sorted(keys.values(), key=lambda key: key.digest):  # one order for all: no two wait for each other
            locks.enter_context(artefacts.lock(key))
        found = {seed: artefacts.find_intact(keys[seed]) for seed in seeds}
        missing = [seed for seed in seeds if found[seed] is None]
        if missing:
            _train(plan, {seed: synthetic[seed] for seed in missing}, original, context)
        result = {}
        for seed in seeds:
            artefact = found[seed] or artefacts.find(keys[seed])
            assert artefact is not None  # found, or just written under the lock
            result[seed] = Found(artefact, cached=seed not in missing)
    return result


def snapshot_file(updates: int) -> str:
    """The file of a point of the learning curve."""
    return f"updates-{updates:09d}.safetensors"


def load_states(artefact: Artefact) -> tuple[dict[int, Arrays], Arrays]:
    """The points of the learning curve before the end, {updates: arrays}, and the final policy's arrays."""
    curve: dict[int, Arrays] = {
        updates: load_arrays(artefact.folder / snapshot_file(updates)) for updates in artefact.notes["curve"]
    }
    return curve, load_arrays(artefact.folder / FINAL_FILE)


def _train(
    plan: GroupPlan, synthetic: Mapping[int, OfflineDataset | None], original: OfflineDataset, context: Context
) -> None:
    """Trains the replicates together and stores one artefact each; goes on where a killed process was."""
    seeds, learner, protocol = list(synthetic), plan.learner.build(), plan.protocol
    shown = original if learner.privileged else original.without_privileged()
    data, original_episodes = zip(*(mixed(shown, synthetic[seed], protocol.mix) for seed in seeds), strict=True)
    curve: dict[int, list[Arrays]] = {}
    keys = {seed: plan.policy_key(seed) for seed in seeds}
    checkpoint = checkpoint_of(
        context.store.home,
        list(keys.values()),
        source=plan.learner.source,
        device=context.device,
        seconds=context.checkpoint_seconds,
    )

    def keep(updates: int, policy: LearnedPolicy) -> None:
        curve[updates] = [_copied(policy.state(replica)) for replica in range(len(seeds))]

    run = Run(
        seeds=tuple(plan.learner_seed(seed) for seed in seeds),
        device=context.device,
        budget=Budget(updates=protocol.updates, batch_size=protocol.batch_size, snapshots=protocol.snapshots),
        progress=context.progress_of("policy"),
        snapshot=keep,
        logger=logging.getLogger(f"augmarl.{plan.learner.text}"),
        deadline=context.deadline,
        original=shown,
        original_episodes=original_episodes,
        checkpoint=checkpoint,
    )
    watch = Stopwatch(together=len(seeds))
    with watch.running():
        policy = learner.fit(data, run)
    if policy.replicas != len(seeds):
        raise MethodError(f"{plan.learner.text}: fit returned {policy.replicas} policies for {len(seeds)} seeds.")
    final_updates = max(curve, default=protocol.updates or 0)
    curve.pop(final_updates, None)  # the final policy is what `fit` returned
    with ExitStack() as drafts:  # all replicates are renamed into place together, at the end
        for replica, seed in enumerate(seeds):
            draft = drafts.enter_context(context.store.writing(keys[seed], plan.learner.source))
            save_arrays(draft.folder / FINAL_FILE, policy.state(replica))
            for updates, states in curve.items():
                save_arrays(draft.folder / snapshot_file(updates), states[replica])
            draft.cost = replace(watch.cost, wall_seconds=checkpoint.spent + watch.cost.wall_seconds)
            draft.notes = {
                "curve": sorted(curve),
                "updates": final_updates,
                "diverged": policy.diverged(replica),
                "diagnosis": _finite(policy.diagnosis(replica)),
                "device": context.device,
            }
    checkpoint.discard()


def _copied(arrays: Arrays) -> Arrays:
    # A learner may hand out views of weights that it goes on changing.
    return {name: np.array(array) for name, array in arrays.items()}


def _finite(numbers: Mapping[str, float | None]) -> dict[str, Any]:
    return {k: None if v is None or not np.isfinite(v) else float(v) for k, v in numbers.items()}


def states_of(artefacts: Sequence[Artefact]) -> tuple[dict[int, list[Arrays]], list[Arrays]]:
    """The learning curves and final policies of several replicates: {updates: arrays of each}, arrays of each.

    Points that not all of them have are left out.
    """
    loaded = [load_states(artefact) for artefact in artefacts]
    shared = set.intersection(*(set(curve) for curve, _ in loaded))
    curves = {updates: [curve[updates] for curve, _ in loaded] for updates in sorted(shared)}
    return curves, [final for _, final in loaded]
