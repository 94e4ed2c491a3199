"""A cell group with everything resolved: task, data, methods, and the keys of all its artefacts.

This is the one place where the parts of keys are put together. Nothing is computed or loaded here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from benchmark.artefacts import Artefact
from benchmark.cells import CellGroup
from benchmark.choices import Choice, choose_augmenter, choose_learner
from benchmark.keys import Key, Stage
from benchmark.protocols import Protocol, make_protocol
from benchmark.records import Artefacts, CellId
from benchmark.stages.datasets import DatasetSource
from methods.base import Augmenter, Learner
from tasks.base import Task
from tasks.common.errors import UsageError
from tasks.common.seeding import derive_seed
from tasks.common.selector import Selector
from tasks.datasets import regimes
from tasks.registry import make_task
from tasks.spec import TaskSpec


@dataclass(frozen=True)
class GroupPlan:
    """What running a cell group means."""

    group: CellGroup
    protocol: Protocol
    task: Task
    source: DatasetSource
    augmenter: Choice[Augmenter[Any]]
    learner: Choice[Learner[Any]]

    @property
    def spec(self) -> TaskSpec:
        """The task's spec."""
        return self.task.spec

    # -- seeds ---------------------------------------------------------------------------------------------------

    def augmentation_seed(self, seed: int) -> int:
        """Seed of replicate `seed` of the augmenter; not of its learner's, and the same for variants of one class."""
        return derive_seed("augmentation", self.spec.id, self.source.request.text, self.augmenter.target, seed)

    def learner_seed(self, seed: int) -> int:
        """Seed of replicate `seed` of the learner; the same under every augmenter, so that lifts are paired."""
        return derive_seed("learner", self.spec.id, self.source.request.text, self.learner.target, seed)

    def extra_seed(self, seed: int) -> int:
        """Seed of the further real episodes of replicate `seed`; never the dataset's own."""
        return derive_seed("extra-data", self.protocol.dataset_seed, seed)

    @property
    def environment_seed(self) -> int:
        """Seed of the evaluation: one for all policies of a task, and never a dataset's."""
        return derive_seed("evaluation", self.spec.id, self.protocol.environment_seed)

    # -- keys ----------------------------------------------------------------------------------------------------

    @cached_property
    def dataset_key(self) -> Key:
        """Key of the original data. Raises UsageError if a behaviour policy is not shipped."""
        return self.source.key()

    def fit_key(self, seed: int) -> Key | None:
        """Key of the fitted augmenter, for those that train; without what `fit` never reads.

        A budget's None, the method's own number, is in the config.
        """
        method = self.augmenter.method_class
        if not method.trains:
            return None
        parts = self.augmenter.identity(self.spec, without=frozenset(method.generation_fields))
        return Key(
            "fit",
            {
                "dataset": self.dataset_key.digest,
                **parts,
                "seed": self.augmentation_seed(seed),
                method.compute: self.protocol.compute(method.compute).given(of_fit=True),
            },
        )

    def augmented_key(self, seed: int) -> Key | None:
        """Key of the synthetic episodes; None where nothing is ever added."""
        method = self.augmenter.method_class
        if not method.adds_data:
            return None
        extra = {"seed": self.extra_seed(seed)} if method.needs_extra_data else None
        # A method that does not train has no model, so no budget of one makes its episodes other ones.
        trained = {method.compute: self.protocol.compute(method.compute).given()} if method.trains else {}
        return Key(
            "augmented",
            {
                "dataset": self.dataset_key.digest,
                **self.augmenter.identity(self.spec),
                "seed": self.augmentation_seed(seed),
                "amount_ratio": self.protocol.amount_ratio,
                "extra_data": extra,
                **trained,
            },
        )

    def policy_key(self, seed: int) -> Key:
        """Key of a trained policy. Neither the device nor the replicates trained beside it change what it is."""
        augmented = self.augmented_key(seed)
        return Key(
            "policy",
            {
                "dataset": self.dataset_key.digest,
                "augmented": augmented.digest if augmented else None,
                "mix": str(self.protocol.mix) if augmented else None,
                **self.learner.identity(self.spec),
                "seed": self.learner_seed(seed),
                "updates": self.protocol.updates,
                "batch_size": self.protocol.batch_size,
                "snapshots": self.protocol.snapshots,
            },
        )

    def evaluation_key(self, seed: int) -> Key:
        """Key of what the policy did in the environment."""
        spec = self.spec
        return Key(
            "evaluation",
            {
                "policy": self.policy_key(seed).digest,
                "task": spec.id,
                "engine": spec.engine,
                "engine_version": spec.engine_version,
                "variant": spec.variant,
                "environment_files": dict(self.task.environment_files()),
                "episodes": self.protocol.episodes_of_evaluation(spec.family),
                "curve_episodes": self.protocol.episodes_of_curve(spec.family),
                "environment_seed": self.environment_seed,
            },
        )

    def keys(self, seed: int) -> tuple[Key, ...]:
        """All keys of a replicate, in the order of the stages; stages that do not apply are left out."""
        keys = (
            self.dataset_key,
            self.fit_key(seed),
            self.augmented_key(seed),
            self.policy_key(seed),
            self.evaluation_key(seed),
        )
        return tuple(key for key in keys if key is not None)

    def artefacts(self, seed: int, card_sha256: str | None = None) -> Artefacts:
        """The keys as records store them."""
        augmented = self.augmented_key(seed)
        return Artefacts(
            dataset=self.dataset_key.digest,
            augmented=augmented.digest if augmented else None,
            policy=self.policy_key(seed).digest,
            evaluation=self.evaluation_key(seed).digest,
            dataset_card_sha256=card_sha256,
        )

    def maker_of(self, stage: Stage) -> Choice[Any] | None:
        """The method behind a stage's artefact; None where it is none of this cell's methods."""
        makers: dict[Stage, Choice[Any]] = {"fit": self.augmenter, "augmented": self.augmenter, "policy": self.learner}
        return makers.get(stage)

    def source_has_changed(self, artefact: Artefact) -> bool:
        """Whether the method behind a stored artefact reads otherwise now than when it was made."""
        maker = self.maker_of(artefact.parts["stage"])
        return maker is not None and artefact.source_digest not in (None, maker.source)

    def unsupported(self) -> str | None:
        """Why this combination is undefined, or None."""
        undefined = regimes.undefined(self.task, self.source.request)
        if undefined is not None:
            return undefined
        for choice in (self.augmenter, self.learner):
            reason = choice.method_class.unsupported(self.spec)
            if reason is not None:
                return f"{choice.text}: {reason}"
        try:
            lacking = self.learner.build().needs_episodes(self.spec)
        except UsageError as error:  # a parameter that this task does not have
            return f"{self.learner.text}: {error}"
        return None if lacking is None or self._has_episodes() else f"{self.learner.text}: {lacking}"

    def _has_episodes(self) -> bool:
        """Whether something else than single transitions is left to learn from."""
        protocol = self.protocol
        if protocol.mix.rule != "replace" or protocol.amount_ratio == 0 or self.spec.episode_limit == 1:
            return True
        return not self.augmenter.method_class.adds_data or not self.augmenter.build().returns_transitions


def plan_group(group: CellGroup) -> GroupPlan:
    """Resolves every name of a cell group.

    Raises:
        UsageError: for an unknown name or parameter, or one of a model that the protocol fixes for all of its kind;
            the message says where.
    """
    protocol, task = make_protocol(group.protocol), make_task(group.task)
    request = regimes.resolve(task, group.dataset)
    source = DatasetSource(task, request, protocol.episodes_of_dataset(task.spec.family), protocol.dataset_seed)
    augmenter = choose_augmenter(group.augmenter)
    if augmenter.method_class.trains:
        _refuse_fixed(group, protocol, augmenter.method_class.compute)
    return GroupPlan(
        group=group,
        protocol=protocol,
        task=task,
        source=source,
        augmenter=augmenter,
        learner=choose_learner(group.learner),
    )


def _refuse_fixed(group: CellGroup, protocol: Protocol, compute: str) -> None:
    """A name must not promise what the protocol's compute would silently replace."""
    for name in Selector.parse(group.augmenter).params:
        if name in protocol.compute(compute).given():
            base = protocol.name.partition("[")[0]
            raise UsageError(
                f"{group.augmenter}: protocol {protocol.name} fixes {name} for every {compute} model. Vary the "
                f"protocol, {base}[{compute}_{name}=...], or take one that leaves it to the method (paper)."
            )


def plan_cell(cell: CellId) -> GroupPlan:
    """What running one cell alone means. Raises UsageError as `plan_group` does."""
    group = CellGroup(
        protocol=cell.protocol,
        task=cell.task,
        dataset=cell.dataset,
        augmenter=cell.augmenter,
        learner=cell.learner,
        seeds=(cell.seed,),
    )
    return plan_group(group)
