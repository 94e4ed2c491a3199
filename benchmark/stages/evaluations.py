"""Stage 4: what the trained policies do in the environment, all replicates of a group in one batch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from benchmark.artefacts import Artefact
from benchmark.evaluation import evaluate
from benchmark.plans import GroupPlan
from benchmark.records import CurvePoint, Evaluation
from benchmark.stages.context import Context, Found, Stopwatch
from benchmark.stages.policies import states_of
from tasks.common.files import write_bytes

EVALUATION_FILE = "evaluation.json"


def obtain(
    plan: GroupPlan, policies: Mapping[int, Artefact], notes: Mapping[int, Mapping[str, Any]], context: Context
) -> dict[int, Found]:
    """The evaluations of trained policies, by seed. A diverged policy is not run: its artefact says so.

    `notes` is what else to keep beside each evaluation: the data's summary, and the costs of the earlier stages.

    Raises:
        MethodError: if a policy returns actions that the task forbids.
    """
    store, keys = context.store, {seed: plan.evaluation_key(seed) for seed in policies}
    with ExitStack() as locks:
        for key in sorted(keys.values(), key=lambda key: key.digest):  # one order for all: no two wait for each other
            locks.enter_context(store.lock(key))
        found = {seed: store.find_intact(key) for seed, key in keys.items()}
        missing = [seed for seed, artefact in found.items() if artefact is None]
        healthy = [seed for seed in missing if not policies[seed].notes["diverged"]]
        watch = Stopwatch(together=max(1, len(healthy)))
        with watch.running():
            evaluations = _evaluate(plan, {seed: policies[seed] for seed in healthy}, context) if healthy else {}
        for seed in missing:
            with store.writing(keys[seed], plan.learner.source) as draft:
                document = evaluations[seed].model_dump(mode="json") if seed in evaluations else None
                write_bytes(draft.folder / EVALUATION_FILE, json.dumps(document).encode())
                draft.cost = watch.cost
                draft.notes = {**notes[seed], "diagnosis": _diagnosis(policies[seed], evaluations.get(seed))}
        result = {}
        for seed, artefact in found.items():
            stored = artefact or store.find(keys[seed])
            assert stored is not None  # found, or just written under the lock
            result[seed] = Found(stored, cached=seed not in missing)
    return result


def load(artefact: Artefact) -> Evaluation | None:
    """The evaluation of an artefact; None for a policy that diverged."""
    document = json.loads((artefact.folder / EVALUATION_FILE).read_bytes())
    return None if document is None else Evaluation.model_validate(document)


def _evaluate(plan: GroupPlan, policies: Mapping[int, Artefact], context: Context) -> dict[int, Evaluation]:
    seeds, learner, protocol = list(policies), plan.learner.build(), plan.protocol
    points_of = protocol.episodes_of_curve(plan.spec.family)
    curves, final = states_of([policies[seed] for seed in seeds])
    points = {**curves, int(policies[seeds[0]].notes["updates"]): final}
    curve: dict[int, list[CurvePoint]] = {seed: [] for seed in seeds}
    for number, (updates, states) in enumerate(sorted(points.items()), start=1):
        policy = learner.load_policy(states, plan.spec, context.device)
        outcome = evaluate(policy, plan.task, points_of, plan.environment_seed, plan.learner.text)
        for replica, seed in enumerate(seeds):
            mean_return = None if outcome.diverged[replica] else float(outcome.returns[replica].mean())
            curve[seed].append(CurvePoint(updates=updates, mean_return=mean_return, episodes=points_of))
        context.report("evaluation", number, len(points) + 1, "points of the learning curve")
    episodes = protocol.episodes_of_evaluation(plan.spec.family)
    policy = learner.load_policy(final, plan.spec, context.device)
    outcome = evaluate(policy, plan.task, episodes, plan.environment_seed, plan.learner.text)
    context.report("evaluation", len(points) + 1, len(points) + 1, "final policies")
    return {
        seed: Evaluation(
            episodes=episodes,
            environment_seed=plan.environment_seed,
            returns=[float(value) for value in outcome.returns[replica]],
            won=None if outcome.won is None else [bool(value) for value in outcome.won[replica]],
            curve=curve[seed],
        )
        for replica, seed in enumerate(seeds)
        if not outcome.diverged[replica]
    }


def _diagnosis(policy: Artefact, evaluation: Evaluation | None) -> dict[str, float | None]:
    """What training told, and how far the best point of the curve lies above its last (on the same episodes)."""
    diagnosis = {**policy.notes["diagnosis"], "updates": float(policy.notes["updates"])}
    returns = [p.mean_return for p in evaluation.curve if p.mean_return is not None] if evaluation else []
    if returns:
        diagnosis |= {
            "best_checkpoint_return": max(returns),
            "final_checkpoint_return": returns[-1],
            "best_minus_final": max(returns) - returns[-1],
        }
    return diagnosis


def cost_document(artefact: Artefact) -> dict[str, Any]:
    """The cost of an artefact as plain values, to keep beside an evaluation."""
    return asdict(artefact.cost)
